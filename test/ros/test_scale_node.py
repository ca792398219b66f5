"""A relative model in a real node: metric once another sensor has said how far things are."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from geometry_msgs.msg import TransformStamped
from sensor_msgs.msg import Image, LaserScan, PointCloud2

from dense_perception.core.camera import Intrinsics
from dense_perception.core.card_specs import DepthSpec
from dense_perception.core.prediction import DepthKind
from dense_perception.imaging.points import organised_xyz
from dense_perception.ros.convert import CloudWriter, camera_info_message, image_message
from test.ros.conftest import NodeFactory
from test.support.artefacts import red_card, red_depth, write_red_artefact
from test.support.ros_probe import (
    Probe,
    header,
    qos_profile,
    random_rgb,
    values_of,
    wait_until,
)

pytestmark = pytest.mark.ros

CAMERA = Intrinsics(64, 48, 80.0, 80.0, 31.5, 23.5)
SCALE = 0.37


@pytest.fixture(scope="module")
def relative_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """red.onnx with a card that calls its numbers depth up to a scale."""
    path = tmp_path_factory.mktemp("models") / "relative.onnx"
    write_red_artefact(path, red_card(), depth=DepthSpec(DepthKind.RELATIVE))
    return path


def truth(rgb_hwc: np.ndarray) -> np.ndarray:
    return (SCALE * red_depth(rgb_hwc, CAMERA.mean_focal_px)).astype(np.float32)


def spoilt(depth_m: np.ndarray) -> np.ndarray:
    """Fifty pixels kept, fifteen of them wrong; NaN elsewhere."""
    rng = np.random.default_rng(0)
    sparse = np.full(depth_m.shape, np.nan, np.float32)
    places = rng.choice(depth_m.size, 50, replace=False)
    sparse.reshape(-1)[places] = depth_m.reshape(-1)[places]
    sparse.reshape(-1)[places[:15]] *= np.exp(rng.uniform(0.3, 2, 15))
    return sparse


def depth_of(image: Image) -> np.ndarray:
    return np.frombuffer(image.data, np.float32).reshape(image.height, image.width)


def send_picture(probe: Probe, rgb_hwc: np.ndarray, seconds: int) -> None:
    probe.send_info(camera_info_message(None, CAMERA, header(seconds)))
    probe.send_image(image_message(rgb_hwc, header(seconds), "rgb8"))


@pytest.mark.parametrize("source", ["depth", "points"])
def test_relative_depth_waits_for_its_scale_and_is_metric_then(
    source: str, start_node: NodeFactory, probe: Probe, relative_model: Path
) -> None:
    start_node(model=relative_model, scale_source=source)
    rgb_hwc = random_rgb(seed=7)
    relative = probe.collect(Image, "/depth_node/depth/relative")
    metric = probe.collect(Image, "/depth_node/depth/image")
    points = probe.collect(PointCloud2, "/depth_node/points")
    report = probe.diagnostics()

    probe.ask(100, lambda: send_picture(probe, rgb_hwc, 100), relative)
    assert not metric.messages
    report.wait_for(lambda array: f"no scale yet: no {source}" in array.status[0].message)
    sparse_m = spoilt(truth(rgb_hwc))
    if source == "depth":
        message = image_message(sparse_m, header(101), "32FC1")
        publisher = probe.publisher(Image, "/scale/depth", reliable=False)
    else:
        message = CloudWriter().cloud(sparse_m, CAMERA, header(101))
        assert np.isfinite(organised_xyz(sparse_m, CAMERA)).any()
        publisher = probe.publisher(PointCloud2, "/scale/points", reliable=False)

    def send_both() -> None:
        publisher.publish(message)
        send_picture(probe, rgb_hwc, 101)

    depth, cloud = probe.ask(101, send_both, metric, points)
    np.testing.assert_allclose(np.median(depth_of(depth) / truth(rgb_hwc)), 1, atol=0.03)
    assert (cloud.width, cloud.height) == (64, 48)
    assert depth.header == cloud.header


def test_a_factor_changes_while_it_runs(
    start_node: NodeFactory, probe: Probe, relative_model: Path
) -> None:
    start_node(model=relative_model, scale_source="factor", scale_factor=SCALE)
    metric = probe.collect(Image, "/depth_node/depth/image")
    rgb_hwc = random_rgb(seed=8)
    # No camera_info: the assumed field of view decides what the model says.
    assumed = Intrinsics.from_fov(64, 48, 60.0).mean_focal_px
    for seconds, factor in ((100, SCALE), (200, 2.0)):
        assert probe.set_parameters(scale_factor=factor)[0].successful
        message = image_message(rgb_hwc, header(seconds), "rgb8")
        (depth,) = probe.ask(seconds, lambda m=message: probe.send_image(m), metric)
        np.testing.assert_allclose(depth_of(depth), factor * red_depth(rgb_hwc, assumed), rtol=1e-4)
    (refused,) = probe.set_parameters(scale_factor=math.inf)
    assert not refused.successful


def pose(child: str, seconds: float, yaw: float, xyz: tuple[float, ...]) -> TransformStamped:
    """Of ``child`` in base_link: x forward, y left, z up."""
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = "base_link"
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(round(seconds * 1e9), 10**9)
    t, q = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = xyz
    q.z, q.w = math.sin(yaw / 2), math.cos(yaw / 2)
    return message


def camera_pose() -> TransformStamped:
    """Optical frame: z along base_link's x, x against its y (REP 103)."""
    message = pose("camera_optical", 0.0, 0.0, (0.2, 0.0, 1.0))
    q = message.transform.rotation
    q.x, q.y, q.z, q.w = -0.5, 0.5, -0.5, 0.5
    return message


def scan_of(rgb_hwc: np.ndarray, yaw: float) -> LaserScan:
    """What a laser at the camera, turned left by ``yaw``, measures; every third return is wrong.

    The picture's columns are upright strips, so a ray's height in the picture does not matter.
    """
    angles = np.linspace(-0.36, 0.36, 121)  # to the left of straight ahead
    columns = (CAMERA.fx * np.tan(-angles) + CAMERA.cx + 0.5).astype(int)
    ranges = truth(rgb_hwc)[0, columns] / np.cos(angles)
    ranges[::3] *= np.exp(np.random.default_rng(1).uniform(0.3, 2, len(ranges[::3])))
    ranges[1], ranges[4] = math.inf, math.nan
    message = LaserScan(
        header=header(101, "laser"),
        angle_min=angles[0] - yaw,
        angle_max=angles[-1] - yaw,
        angle_increment=angles[1] - angles[0],
        range_min=0.05,
        range_max=50.0,
    )
    message.ranges = [float(each) for each in ranges]
    return message


def test_a_turning_laser_is_followed_through_tf(
    tf2_msgs: None, start_node: NodeFactory, probe: Probe, relative_model: Path
) -> None:
    from tf2_msgs.msg import TFMessage

    # Before the node, which has to get it all the same.
    latched = qos_profile(True, latched=True)
    static = probe.node.create_publisher(TFMessage, "/tf_static", latched)
    static.publish(TFMessage(transforms=[camera_pose()]))
    start_node(model=relative_model, scale_source="scan")
    metric = probe.collect(Image, "/depth_node/depth/image")
    report = probe.diagnostics()
    strips = np.repeat(random_rgb(seed=9)[:1], 48, axis=0)
    # The laser turns left by 0.4 rad in the half second around the picture's 101.123 s.
    yaw = 0.4 * 0.123456789 / 0.5
    scans = probe.publisher(LaserScan, "/scale/scan", reliable=False)
    scan = scan_of(strips, yaw)

    def send_both() -> None:
        scans.publish(scan)
        send_picture(probe, strips, 101)

    def is_missed() -> bool:
        send_both()
        # Once the latched transform is there, which may take a frame or two.
        texts = [each.status[0].message for each in report.messages]
        missed = [each for each in texts if "no transform from 'laser' to" in each]
        return any("'camera_optical' to 'base_link'" in each for each in missed)

    wait_until(is_missed, "the missing transform to be named")
    assert not metric.messages
    moving = probe.publisher(TFMessage, "/tf")

    def send_all() -> None:
        for seconds, angle in ((101.0, 0.0), (101.5, 0.4)):
            moving.publish(TFMessage(transforms=[pose("laser", seconds, angle, (0.2, 0.0, 0.9))]))
        send_both()

    (depth,) = probe.ask(101, send_all, metric)
    np.testing.assert_allclose(np.median(depth_of(depth) / truth(strips)), 1, atol=0.01)


def test_a_cut_forgets_the_scale(
    start_node: NodeFactory, probe: Probe, relative_model: Path
) -> None:
    start_node(model=relative_model, scale_source="depth")
    metric = probe.collect(Image, "/depth_node/depth/image")
    relative = probe.collect(Image, "/depth_node/depth/relative")
    sparse = probe.publisher(Image, "/scale/depth", reliable=False)
    before, after = random_rgb(seed=10), random_rgb(seed=11)

    def measured(rgb_hwc: np.ndarray, seconds: int, factor: float) -> None:
        depth_m = spoilt(np.float32(factor) * truth(rgb_hwc))
        sparse.publish(image_message(depth_m, header(seconds), "32FC1"))
        send_picture(probe, rgb_hwc, seconds)

    def ratios(rgb_hwc: np.ndarray, seconds: int) -> list[float]:
        answers = [each for each in metric.messages if each.header.stamp.sec == seconds]
        return [float(np.median(depth_of(each) / truth(rgb_hwc))) for each in answers]

    report = probe.diagnostics()

    def is_calibrated() -> bool:
        send_picture(probe, before, 99)
        found = report.messages and values_of(report.messages[-1])["intrinsics"]
        return bool(found == "from camera_info")

    # The first pictures may overtake the camera_info, and another focal length is another scale.
    wait_until(is_calibrated, "the calibration in use")
    probe.ask(100, lambda: measured(before, 100, 1.0), metric)
    # Without a measurement the scale is held while the picture stays, and not over a cut.
    probe.ask(101, lambda: send_picture(probe, before, 101), metric)
    probe.ask(102, lambda: send_picture(probe, after, 102), relative)
    assert not ratios(after, 102)
    # Nothing of the old scale is in the first answers after the cut, nor after a sudden change.
    for seconds, factor in ((103, 3.0), (104, 1.5)):
        probe.ask(seconds, lambda s=seconds, f=factor: measured(after, s, f), metric)
        np.testing.assert_allclose(ratios(after, seconds), factor, rtol=0.03)
    np.testing.assert_allclose(ratios(before, 100) + ratios(before, 101), 1, rtol=0.03)

    # The other way to a scale: a floor 0.8 m below the camera, up to a wall.
    probe.reconfigure(scale_source="camera_height", camera_height_m=0.8)
    rows = np.arange(48)[:, None] - CAMERA.cy
    with np.errstate(divide="ignore"):
        floor_m = np.where(rows > 0, 0.8 * CAMERA.fy / rows, np.inf)
    depth_m = np.minimum(np.broadcast_to(floor_m, (48, 64)), 6 * floor_m.min())
    unit_m = float(floor_m.min())
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[..., 0] = np.round((depth_m / unit_m - 1) * 255 / 9)
    picture[..., 1] = np.where(depth_m < 6 * unit_m, 200, 50)
    (depth,) = probe.ask(200, lambda: send_picture(probe, picture, 200), metric)
    np.testing.assert_allclose(np.median(depth_of(depth) / depth_m), 1, atol=0.05)
