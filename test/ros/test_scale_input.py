"""Transforms against homogeneous matrices, and messages of the scale sources to points."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

import cv2
import numpy as np
import pytest
from geometry_msgs.msg import TransformStamped
from sensor_msgs.msg import LaserScan, PointCloud2, PointField

from dense_perception.core.errors import InputError
from dense_perception.imaging import transforms
from dense_perception.imaging.point_messages import cloud_points, scan_points
from dense_perception.imaging.transforms import TransformBuffer


def stamped(
    parent: str,
    child: str,
    rotation_vector: tuple[float, float, float] = (0, 0, 0),
    translation: tuple[float, float, float] = (0, 0, 0),
    seconds: float = 0.0,
) -> tuple[TransformStamped, np.ndarray]:
    """The message, and the same as a 4x4 matrix made by OpenCV."""
    message = TransformStamped()
    message.header.frame_id, message.child_frame_id = parent, child
    message.header.stamp.sec = int(seconds)
    message.header.stamp.nanosec = round(seconds % 1 * 1e9)
    vector = np.array(rotation_vector, np.float64)
    angle = float(np.linalg.norm(vector))
    axis = vector / angle if angle else vector
    q = message.transform.rotation
    q.x, q.y, q.z = (float(each) for each in axis * np.sin(angle / 2))
    q.w = float(np.cos(angle / 2))
    t = message.transform.translation
    t.x, t.y, t.z = (float(each) for each in translation)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = cv2.Rodrigues(vector)[0], translation
    return message, matrix


POINTS = np.array([[1.0, 2.0, 3.0], [-4.0, 0.5, 9.0]])


def moved(matrix: np.ndarray) -> np.ndarray:
    return (np.hstack([POINTS, np.ones((2, 1))]) @ matrix.T)[:, :3]


def test_a_lidar_and_a_camera_on_one_body() -> None:
    buffer = TransformBuffer()
    body_camera, camera = stamped("base", "camera", (1.2, -0.4, 0.3), (0.2, 0.0, 0.9))
    body_mast, mast = stamped("base", "mast", (0, 0, 0.7), (0, 0, 1.0))
    mast_lidar, lidar = stamped("mast", "/lidar", (0.1, 3.0, 0.0), (0.0, 0.1, 0.4))
    for message in (body_camera, body_mast, mast_lidar):
        buffer.add(message, static=True)
    expected = moved(np.linalg.inv(camera) @ mast @ lidar)
    np.testing.assert_allclose(buffer.lookup("camera", "lidar", 5.0).apply(POINTS), expected)
    back = buffer.lookup("lidar", "camera", 5.0)
    np.testing.assert_allclose(back.apply(expected), POINTS, atol=1e-12)
    np.testing.assert_allclose(buffer.lookup("base", "base", 0.0).apply(POINTS), POINTS)


def test_a_moving_frame_is_interpolated_and_not_waited_for() -> None:
    buffer = TransformBuffer()
    for seconds, angle in ((10.0, 0.0), (11.0, 0.2)):
        buffer.add(
            stamped("odom", "base", (0, 0, angle), (angle * 10, 0, 0), seconds)[0], static=False
        )
    _, halfway = stamped("odom", "base", (0, 0, 0.1), (1.0, 0, 0))
    found = buffer.lookup("odom", "base", 10.5).apply(POINTS)
    np.testing.assert_allclose(found, moved(halfway), atol=1e-6)
    _, newest = stamped("odom", "base", (0, 0, 0.2), (2.0, 0, 0))
    np.testing.assert_allclose(buffer.lookup("odom", "base", 11.3).apply(POINTS), moved(newest))
    with pytest.raises(InputError, match=r"no transform from 'base' to 'odom' at 12\.000 s"):
        buffer.lookup("odom", "base", 12.0)
    # A bag that starts again is followed.
    buffer.add(stamped("odom", "base", seconds=0.5)[0], static=False)
    np.testing.assert_allclose(buffer.lookup("odom", "base", 0.5).apply(POINTS), POINTS)


def test_one_thread_reads_while_another_adds() -> None:
    """At each time t the frame is t metres along x, however many messages come meanwhile.

    On a busy machine most lookups come too late for the ten seconds that are kept, so it goes on
    until enough of them were answered while messages came.
    """
    buffer, stopped = TransformBuffer(), threading.Event()
    message, _ = stamped("odom", "base")
    newest_s = 0

    def add() -> None:
        nonlocal newest_s
        message.header.stamp.sec = newest_s + 1
        message.transform.translation.x = float(newest_s + 1)
        buffer.add(message, static=False)
        newest_s += 1

    def keep_adding() -> None:
        while not stopped.is_set():
            add()

    for _ in range(20):
        add()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=keep_adding)
    thread.start()
    answered = 0
    begun_s, deadline = newest_s, time.monotonic() + 60.0
    try:
        while answered < 500 or newest_s < begun_s + 1000:
            assert time.monotonic() < deadline, f"{answered} answers to {newest_s} messages"
            wanted_s = newest_s - 5.5
            try:
                found = buffer.lookup("odom", "base", wanted_s)
            except InputError:  # ten seconds have passed meanwhile
                continue
            assert found.translation[0] == pytest.approx(wanted_s, abs=0.501)
            answered += 1
    finally:
        stopped.set()
        thread.join()
        sys.setswitchinterval(interval)


def add_squares(buffer: TransformBuffer, first_s: int, count: int) -> None:
    """At each whole second t the frame is t * t metres along x."""
    message, _ = stamped("odom", "base")
    for seconds in range(first_s, first_s + count):
        message.header.stamp.sec = seconds
        message.transform.translation.x = float(seconds**2)
        buffer.add(message, static=False)


def looked_up(buffer: TransformBuffer, line: int, meanwhile: Callable[[], None]) -> float | None:
    """Where the frame is at 14.5 s, with ``meanwhile`` called before a line of the lookup.

    :raises StopIteration: if it has not so many lines.
    """
    ahead = line

    def trace(frame: FrameType, event: str, _argument: object) -> object:
        nonlocal ahead
        if frame.f_code.co_filename != transforms.__file__:
            return None
        if event == "line":
            ahead -= 1
            if ahead == -1:
                meanwhile()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        found = float(buffer.lookup("odom", "base", 14.5).translation[0])
    except InputError:  # ten seconds have passed meanwhile
        return None
    finally:
        sys.settrace(before)
    if ahead >= 0:
        raise StopIteration
    return found


@pytest.mark.parametrize("count", [1, 4, 30])
def test_messages_that_come_between_any_two_lines_of_a_lookup_do_no_harm(count: int) -> None:
    """The other thread's part, played at each line of the reader's in turn."""
    for line in itertools.count():
        buffer = TransformBuffer()
        add_squares(buffer, 1, 20)
        try:
            found = looked_up(buffer, line, lambda b=buffer: add_squares(b, 21, count))
        except StopIteration:
            break
        if found is not None:
            assert found == pytest.approx((14**2 + 15**2) / 2)
        else:
            assert count == 30
    assert line > 20


def test_gaps_and_nonsense_are_named() -> None:
    buffer = TransformBuffer()
    buffer.add(stamped("map", "base")[0], static=True)
    with pytest.raises(InputError, match="'lidar' leads to 'lidar', 'base' to 'map'"):
        buffer.lookup("base", "lidar", 0.0)
    broken, _ = stamped("base", "lidar")
    broken.transform.rotation.w = float("nan")
    buffer.add(broken, static=True)
    buffer.add(stamped("lidar", "lidar")[0], static=True)
    with pytest.raises(InputError, match="no transform"):
        buffer.lookup("base", "lidar", 0.0)
    # A loop ends.
    buffer.add(stamped("a", "b")[0], static=True)
    buffer.add(stamped("b", "a")[0], static=True)
    with pytest.raises(InputError, match="no transform"):
        buffer.lookup("map", "a", 0.0)


def cloud(order: str = "<", kind: str = "f4", padding: int = 0) -> PointCloud2:
    """POINTS with an intensity before them, as two rows of one point."""
    size = int(kind[1])
    layout = np.dtype(
        {
            "names": ["intensity", "x", "y", "z"],
            "formats": ["<u2", *[order + kind] * 3],
            "offsets": [0, 2, 2 + size, 2 + 2 * size],
            "itemsize": 2 + 3 * size,
        }
    )
    values = np.zeros(2, layout)
    for index, name in enumerate("xyz"):
        values[name] = POINTS[:, index]
    rows = [value.tobytes() + bytes(padding) for value in values]
    message = PointCloud2(height=2, width=1, is_bigendian=order == ">")
    message.point_step, message.row_step = layout.itemsize, layout.itemsize + padding
    datatype = {"f4": PointField.FLOAT32, "f8": PointField.FLOAT64}[kind]
    message.fields = [
        PointField(name=name, offset=layout.fields[name][1], datatype=datatype, count=1)
        for name in "xyz"
    ]
    message.data.frombytes(b"".join(rows))
    return message


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_clouds_of_any_layout(order: str, kind: str) -> None:
    np.testing.assert_array_equal(cloud_points(cloud(order, kind, padding=5)), POINTS)


def test_broken_clouds_are_named() -> None:
    message = cloud()
    message.data.pop()
    with pytest.raises(InputError, match="the cloud has 27 bytes, expected 28"):
        cloud_points(message)
    message = cloud()
    message.fields = message.fields[:2]
    with pytest.raises(InputError, match=r"fields \['x', 'y'\], expected x, y and z"):
        cloud_points(message)
    message = cloud()
    message.fields[2].offset = 12
    with pytest.raises(InputError, match="point_step is 14"):
        cloud_points(message)
    message = cloud()
    message.width = 2**31
    with pytest.raises(InputError, match="row_step 14"):
        cloud_points(message)
    message = cloud()
    message.fields[0].datatype = PointField.INT16
    with pytest.raises(InputError, match="FLOAT32"):
        cloud_points(message)


def test_returns_of_a_scan() -> None:
    scan = LaserScan(angle_min=0.0, angle_increment=float(np.pi / 2), range_min=0.1, range_max=9.0)
    scan.ranges = [2.0, 3.0, float("inf"), 0.05, float("nan"), 9.5]
    np.testing.assert_allclose(scan_points(scan), [[2, 0, 0], [0, 3, 0]], atol=1e-6)


def test_mutated_messages_are_refused_or_read_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    sizes = (0, 1, 2, 13, 14, 15, 28, 2**16, 2**31, 2**32 - 1)
    read = refused = 0
    for _ in range(500):
        message = cloud(str(rng.choice(["<", ">"])), str(rng.choice(["f4", "f8"])))
        name = str(rng.choice(["width", "height", "point_step", "row_step"]))
        setattr(message, name, int(rng.choice(sizes)))
        message.fields[rng.integers(3)].offset = int(rng.choice([*sizes, 6, 10]))
        del message.data[: int(rng.choice([0, 0, 5]))]
        try:
            assert cloud_points(message).shape[1] == 3
            read += 1
        except InputError:
            refused += 1
    assert read > 5
    assert refused > 100


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_a_scan_without_usable_angles_or_ranges_gives_no_point_there(wrong: float) -> None:
    scan = LaserScan(angle_min=0.0, angle_increment=wrong, range_min=0.1, range_max=9.0)
    scan.ranges = [wrong, 2.0, -1.0, wrong]
    # 1e30 is an angle, if an odd one; the others leave nothing.
    assert len(scan_points(scan)) == (1 if wrong == 1e30 else 0)
    scan.angle_increment, scan.range_max = 0.5, wrong
    assert np.isfinite(scan_points(scan)).all()


def test_a_flood_of_frame_names_pushes_out_no_frame_in_use() -> None:
    buffer = TransformBuffer()
    buffer.add(stamped("base", "mast")[0], static=True)
    for index in range(3000):
        buffer.add(stamped("mast", "camera", seconds=1.0 + index / 1000)[0], static=False)
        buffer.add(stamped("base", f"flood_{index}", seconds=1.0)[0], static=False)
    assert len(buffer._edges) <= 1000
    assert buffer.lookup("base", "camera", 3.5)
