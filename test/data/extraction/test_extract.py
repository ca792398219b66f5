"""Recordings of a made-up robot become corpora: matched, registered, split, resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dense_perception.cli import main
from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import InputError
from dense_perception.data.corpus import Corpus
from dense_perception.data.extraction import recording
from dense_perception.data.extraction.extract import Extracted, ExtractOptions, extract
from dense_perception.data.extraction.recording import Settings
from dense_perception.data.extraction.topics import TopicNames
from dense_perception.imaging.transforms import Transform
from test.data.extraction.test_registration import between_neighbours
from test.imaging.test_video import ENCODERS, encoded, shows
from test.support import recordings
from test.support.robots import (
    START_NS,
    Robot,
    World,
    info_of,
    picture,
    stamped,
    write_robot_bag,
)

ROBOT = Robot.usual(160, 120)
WORLD = World()


def run(bags: list[Path], out: Path, settings: Settings | None = None, **options: Any) -> Extracted:
    return extract(ExtractOptions(tuple(bags), out, settings or Settings(), **options))


def test_unaligned_depth_is_registered_and_the_image_undistorted(tmp_path: Path) -> None:
    bag = write_robot_bag(tmp_path / "bag", ROBOT)
    (row,) = run([bag], tmp_path / "c", licence="MIT").rows
    assert (row.images, row.frames, row.still, row.problems) == (6, 6, 0, [])
    assert row.partners == {"/depth/image": 6}
    corpus = Corpus(tmp_path / "c")
    assert corpus.keys == tuple(f"bag_{k:06d}" for k in range(6))
    assert (corpus.width, corpus.height) == (160, 120)
    assert corpus.description["licence"] == "MIT"
    sample = corpus[2]
    assert (sample.recording, sample.stamp_ns) == ("bag", START_NS + 200_000_000)
    truth = WORLD.depth(sample.intrinsics, ROBOT.colour_base)
    error = between_neighbours(sample.depth_m, truth)
    assert np.isfinite(error).mean() > 0.95
    assert np.nanquantile(error, 0.999) < 0.005
    seen = picture(truth, 0).astype(int)
    assert np.median(np.abs(corpus[0].rgb_hwc - seen)) < 8, "the image fits the same camera"


def test_a_cloud_is_projected(tmp_path: Path) -> None:
    bag = write_robot_bag(tmp_path / "bag", ROBOT, 2, depth=False)
    names = TopicNames(points=("/lidar/points",))
    (row,) = run([bag], tmp_path / "c", Settings(names)).rows
    assert row.partners == {"/lidar/points": 2}
    sample = Corpus(tmp_path / "c")[0]
    error = between_neighbours(sample.depth_m, WORLD.depth(sample.intrinsics, ROBOT.colour_base))
    assert 500 < np.isfinite(error).sum() < 0.3 * error.size
    assert np.nanquantile(error, 0.98) < 0.005


def test_a_laser_scan_is_projected(tmp_path: Path) -> None:
    """One line across the image, at the scanner's height."""
    robot = Robot.usual(160, 120, lens=False)
    angles = np.radians(np.arange(-40, 40, 0.5))
    rays = np.stack([np.cos(angles), np.sin(angles), np.zeros_like(angles)], axis=1)
    ranges = WORLD.hit(rays, robot.lidar_base.translation)
    header = recordings.header(START_NS, "lidar")
    scan = recordings.make(
        "sensor_msgs/msg/LaserScan",
        header=header,
        angle_min=float(angles[0]),
        angle_max=float(angles[-1]),
        angle_increment=float(angles[1] - angles[0]),
        time_increment=0.0,
        scan_time=0.1,
        range_min=0.1,
        range_max=30.0,
        ranges=ranges.astype(np.float32),
        intensities=np.zeros(0, np.float32),
    )
    seen = WORLD.depth(robot.colour, robot.colour_base)
    header = recordings.header(START_NS, "colour_optical")
    image = recordings.image(picture(seen, 0), "rgb8", START_NS, header=header)
    bag = recordings.write_bag(
        tmp_path / "bag",
        [
            ("/tf_static", START_NS, make_transforms(robot.transforms())),
            ("/c/camera_info", START_NS, info_of(robot.colour, START_NS, "colour_optical")),
            ("/c/image", START_NS, image),
            ("/scan", START_NS, scan),
        ],
    )
    run([bag], tmp_path / "c", Settings(TopicNames(points=("/scan",))))
    depth_m = Corpus(tmp_path / "c")[0].depth_m
    rows = np.flatnonzero(depth_m.any(axis=1))
    assert 60 < np.count_nonzero(depth_m) < 320
    assert rows.max() - rows.min() < 20
    assert np.nanquantile(between_neighbours(depth_m, seen), 0.95) < 0.005


def test_what_stands_still_is_dropped(tmp_path: Path) -> None:
    bag = write_robot_bag(tmp_path / "bag", ROBOT, 5, moving=0, lidar=False)
    (row,) = run([bag], tmp_path / "c").rows
    assert (row.images, row.still, row.frames) == (5, 4, 1)
    (row,) = run([bag], tmp_path / "all", Settings(still=0)).rows
    assert row.frames == 5
    (row,) = run([bag], tmp_path / "slow", Settings(still=0, rate_hz=5)).rows
    assert row.frames == 3


def test_what_was_stopped_goes_on_and_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bag = write_robot_bag(tmp_path / "bag", ROBOT, 7, lidar=False)
    monkeypatch.setattr(recording, "_PER_SHARD", 2)
    run([bag], tmp_path / "whole")
    made = []
    write = recording.write_members

    def stops(path: Path, frames: Any) -> Path:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(path.name)
        return write(path, frames)

    monkeypatch.setattr(recording, "write_members", stops)
    with pytest.raises(KeyboardInterrupt):
        run([bag], tmp_path / "c")
    assert not (tmp_path / "c" / "corpus.json").exists()
    monkeypatch.setattr(recording, "write_members", write)
    with pytest.raises(InputError, match=r"other settings \(rate_hz\)"):
        run([bag], tmp_path / "c", Settings(rate_hz=1))
    (row,) = run([bag], tmp_path / "c").rows
    assert (row.images, row.frames) == (7, 7)
    whole = sorted((tmp_path / "whole").glob("*.tar"))
    assert len(whole) == 4
    for path in whole:
        assert (tmp_path / "c" / path.name).read_bytes() == path.read_bytes()
    before = (tmp_path / "c" / whole[0].name).stat().st_mtime_ns
    run([bag], tmp_path / "c")
    assert (tmp_path / "c" / whole[0].name).stat().st_mtime_ns == before


def test_the_end_of_one_recording_is_held_out(tmp_path: Path) -> None:
    bag = write_robot_bag(tmp_path / "bag", ROBOT, 10, lidar=False, depth=False)
    run([bag], tmp_path / "c", validation=tmp_path / "v", held_out=0.3, gap=1)
    train, held_out = Corpus(tmp_path / "c"), Corpus(tmp_path / "v")
    assert train.keys == tuple(f"bag_{k:06d}" for k in range(7))
    assert held_out.keys == ("bag_000008", "bag_000009")
    last, first = train[6].stamp_ns, held_out[0].stamp_ns
    assert last is not None
    assert first is not None
    assert first - last == 200_000_000


def test_of_many_recordings_whole_ones_are_held_out(tmp_path: Path) -> None:
    bags = [
        write_robot_bag(tmp_path / name / "bag", ROBOT, 2, lidar=False, depth=False)
        for name in "xyz"
    ]
    found = run(bags, tmp_path / "c", validation=tmp_path / "v", held_out=0.34, workers=2)
    assert [(row.corpus, row.frames) for row in found.rows] == [("c", 2), ("c", 2), ("v", 2)]
    assert {Corpus(tmp_path / "c")[k].recording for k in range(4)} == {"bag", "bag_2"}
    assert Corpus(tmp_path / "v")[0].recording == "bag_3"


def test_images_alone_are_kept_as_they_are(tmp_path: Path) -> None:
    """For distillation; a JPEG of a camera without a lens is not packed again."""
    robot = Robot.usual(160, 120, lens=False)
    bag = write_robot_bag(tmp_path / "bag", robot, 2, depth=False, lidar=False, jpeg=True)
    run([bag], tmp_path / "c")
    sample = Corpus(tmp_path / "c")[1]
    assert not sample.depth_m.any()
    given = recordings.compressed(picture(WORLD.depth(robot.colour, robot.colour_base), 7), 0)
    want = cv2.imdecode(np.frombuffer(given.data, np.uint8), cv2.IMREAD_COLOR)
    assert want is not None
    np.testing.assert_array_equal(sample.rgb_hwc, want[..., ::-1])


def test_without_a_transform_depth_is_left_out_and_named(tmp_path: Path) -> None:
    bag = write_robot_bag(tmp_path / "bag", ROBOT, 2, lidar=False, transforms=False)
    (row,) = run([bag], tmp_path / "c").rows
    assert row.problems == [
        "/depth/image is left out: no transform from 'depth_optical' to 'colour_optical' in /tf"
    ]
    assert not Corpus(tmp_path / "c")[0].depth_m.any()


def test_floats_in_millimetres_are_named_before_they_are_lost(tmp_path: Path) -> None:
    header = recordings.header(START_NS)
    info = recordings.camera_info(64, 48, 50.0, START_NS, d=np.zeros(5), header=header)
    rgb_hwc = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    depth = recordings.image(np.full((48, 64), 90_000, "<f4"), "32FC1", START_NS)
    messages = [("/c/camera_info", START_NS, info), ("/c/depth", START_NS, depth)]
    messages.append(("/c/image", START_NS, recordings.image(rgb_hwc, "rgb8", START_NS)))
    (row,) = run([recordings.write_bag(tmp_path / "bag", messages)], tmp_path / "c").rows
    assert len(row.problems) == 1
    assert row.problems[0].startswith("the median depth is 90000, expected metres")


def test_depth_without_any_value_is_named(tmp_path: Path) -> None:
    """A sensor that sees nothing, in millimetres and in metres."""
    for name, encoding, value in (("zero", "16UC1", 0), ("inf", "32FC1", np.inf)):
        bag = depth_bag(tmp_path / name, np.full((48, 64), value), encoding)
        (row,) = run([bag], tmp_path / f"c_{name}", Settings(still=0)).rows
        assert row.frames == 2
        assert "2 of 2 images of /c/depth have no depth" in row.problems[0]


def test_depth_of_another_shape_is_named(tmp_path: Path) -> None:
    """In the frame of the picture it claims to be aligned, which it cannot be."""
    for shape, problems in (((24, 32), 0), ((36, 64), 1)):
        bag = depth_bag(tmp_path / f"{shape[0]}", np.full(shape, 2000), "16UC1")
        (row,) = run([bag], tmp_path / f"c{shape[0]}", Settings(still=0)).rows
        assert len(row.problems) == problems
    assert "/c/depth is 64x36 but /c/image is 64x48" in row.problems[0]


@pytest.mark.parametrize("stamp_ns", [0, START_NS])
def test_stamps_that_repeat_are_named_and_recording_times_decide(
    stamp_ns: int, tmp_path: Path
) -> None:
    """A driver that leaves them as they are: each picture keeps the depth that came with it."""
    pixels = np.random.default_rng(0).integers(0, 255, (3, 48, 64, 3), np.uint8)
    messages: list[tuple[str, int, Any]] = []
    for k, rgb in enumerate(pixels):
        time_ns = START_NS + k * 10**8
        depth = np.full((48, 64), 1000 * (k + 1), np.uint16)
        info = info_of(Intrinsics.from_fov(64, 48, 60), 0, "camera_optical")
        messages += [
            ("/c/camera_info", time_ns, info),
            ("/c/image", time_ns, recordings.image(rgb, "rgb8", stamp_ns)),
            ("/c/depth", time_ns + 10**6, recordings.image(depth, "16UC1", stamp_ns)),
        ]
    bag = recordings.write_bag(tmp_path / "bag", messages)
    (row,) = run([bag], tmp_path / "c", Settings(still=0)).rows
    run([bag], tmp_path / "slow", Settings(still=0, rate_hz=5))
    slow = [round(float(sample.depth_m[24, 32]), 3) for sample in Corpus(tmp_path / "slow")]
    assert slow == [1, 3]
    assert [round(float(sample.depth_m[24, 32]), 3) for sample in Corpus(tmp_path / "c")] == [
        1,
        2,
        3,
    ]
    (problem,) = row.problems
    assert f"images of /c/image repeat the stamp {stamp_ns} ns" in problem


def depth_bag(path: Path, depth: np.ndarray, encoding: str) -> Path:
    """Two pictures of 64x48 with depth that is said to be seen from the same camera."""
    pixels = np.random.default_rng(0).integers(0, 255, (2, 48, 64, 3), np.uint8)
    depth = depth.astype(np.uint16 if encoding == "16UC1" else np.float32)
    messages: list[tuple[str, int, Any]] = []
    for k, rgb in enumerate(pixels):
        stamp = START_NS + k * 10**8
        messages += [
            (
                "/c/camera_info",
                stamp,
                info_of(Intrinsics.from_fov(64, 48, 60), stamp, "camera_optical"),
            ),
            (
                "/c/image",
                stamp,
                recordings.image(rgb, "rgb8", stamp, header=recordings.header(stamp)),
            ),
            (
                "/c/depth",
                stamp,
                recordings.image(depth, encoding, stamp, header=recordings.header(stamp)),
            ),
        ]
    return recordings.write_bag(path, messages)


def test_depth_beyond_the_tolerance_is_not_taken(tmp_path: Path) -> None:
    bag = write_robot_bag(tmp_path / "bag", ROBOT, 3, lidar=False, depth_late_ns=40_000_000)
    (row,) = run([bag], tmp_path / "c", Settings(tolerance_ms=30)).rows
    assert row.partners == {}
    (row,) = run([bag], tmp_path / "d", Settings(tolerance_ms=45)).rows
    assert row.partners == {"/depth/image": 3}


def aligned_bag(path: Path, labels: bool = True) -> tuple[Path, np.ndarray]:
    """Depth and labels from the colour camera itself, while the robot drives forward."""
    robot = Robot.usual(64, 48, lens=False)
    messages: list[tuple[str, int, Any]] = []
    millimetres = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) + 500
    label_hw = (np.arange(64)[None, :] // 16 * np.ones((48, 1))).astype(np.uint8)
    label_hw[0] = 255
    messages.append(
        ("/tf_static", START_NS, make_transforms([stamped("base", "o", robot.colour_base, 0)]))
    )
    for k in range(3):
        time_ns = START_NS + k * 100_000_000
        motion = Transform(np.eye(3), np.array([0.1 * k, 0, 0]))
        messages.append(
            ("/tf", time_ns, make_transforms([stamped("map", "base", motion, time_ns)]))
        )
        header = recordings.header(time_ns, "o")
        rgb_hwc = np.full((48, 64, 3), 60 * k + 30, np.uint8)
        info = recordings.camera_info(64, 48, 50.0, time_ns, header=header, d=np.zeros(5))
        image = recordings.image
        messages += [
            ("/c/camera_info", time_ns, info),
            ("/c/image", time_ns, image(rgb_hwc, "rgb8", time_ns, header=header)),
            ("/c/depth", time_ns, image(millimetres, "16UC1", time_ns, header=header)),
            ("/c/labels", time_ns, image(label_hw, "mono8", time_ns, header=header)),
        ]
    return recordings.write_bag(path, messages), label_hw


def make_transforms(transforms: list[Any]) -> Any:
    return recordings.make("tf2_msgs/msg/TFMessage", transforms=transforms)


def test_aligned_depth_labels_and_poses(tmp_path: Path) -> None:
    bag, label_hw = aligned_bag(tmp_path / "bag")
    names = tmp_path / "names.txt"
    names.write_text("wall\nfloor\nbox\ncup\n")
    settings = Settings(TopicNames(colour="/c/image", labels="/c/labels"), world="map")
    run([bag], tmp_path / "c", settings, classes=names)
    corpus = Corpus(tmp_path / "c")
    assert corpus.classes == ("wall", "floor", "box", "cup")
    for k in range(3):
        sample = corpus[k]
        want = (np.arange(48 * 64).reshape(48, 64) + 500) / 1000
        np.testing.assert_allclose(sample.depth_m, want, atol=1e-6)
        np.testing.assert_array_equal(sample.labels_hw, (label_hw + 1).astype(np.uint8))
        assert sample.camera_7 is not None
        np.testing.assert_allclose(sample.camera_7[:3], [0.1 + 0.1 * k, 0, 0.5], atol=1e-6)
        np.testing.assert_allclose(sample.camera_7[3:], [-0.5, 0.5, -0.5, 0.5], atol=1e-6)
    small = replace(settings, size=(32, 24))
    run([bag], tmp_path / "s", small, classes=names)
    sample = Corpus(tmp_path / "s")[0]
    assert sample.rgb_hwc.shape == (24, 32, 3)
    assert sample.intrinsics.fx == 25
    names.write_text("wall\nfloor\n")
    run([bag], tmp_path / "few", settings, classes=names)
    with pytest.raises(Exception, match="has label 4, expected up to 2"):
        Corpus(tmp_path / "few")[0]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = write_robot_bag(tmp_path / "bag", ROBOT, 2, lidar=False)
    out = str(tmp_path / "c")
    assert main(["extract", str(bag), "--out", out, "--json", "--workers", "1"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["recording"], row["frames"]) == ("bag", 2)
    assert main(["extract", str(bag), "--out", out, "--workers", "1"]) == 0
    assert "/depth/image 2" in capsys.readouterr().out
    assert main(["extract", str(tmp_path / "no"), "--out", str(tmp_path / "n")]) == 2
    assert "there is no bag" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    assert main(["extract", str(bag), "--out", str(tmp_path / "full")]) == 2
    assert "is not empty" in capsys.readouterr().err
    wrong = ["--points-topic", "/camera/image"]
    assert main(["extract", str(bag), "--out", str(tmp_path / "n"), *wrong]) == 2
    assert "expected sensor_msgs/msg/PointCloud2" in capsys.readouterr().err


def test_a_recording_that_cannot_be_read_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write_robot_bag(tmp_path / "good", ROBOT, 2, lidar=False, depth=False)
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "bad_0.mcap").write_bytes(b"no recording")
    words = ["extract", str(bad), str(good), "--out", str(tmp_path / "c"), "--workers", "1"]
    assert main(words) == 1
    assert "bad: " in capsys.readouterr().err
    assert len(Corpus(tmp_path / "c")) == 2


def test_every_picture_of_a_video_comes_in_order(tmp_path: Path) -> None:
    """Keyframes are five packets apart, and the second corpus begins between two of them."""
    packets = encoded(*ENCODERS[0][::2])
    messages: list[tuple[str, int, Any]] = []
    for index, packet in enumerate(packets):
        time_ns = START_NS + index * 100_000_000
        fields = {"header": recordings.header(time_ns), "format": "h264"}
        data = np.frombuffer(packet, np.uint8)
        video = recordings.make(recordings.COMPRESSED, **fields, data=data)
        info = recordings.camera_info(64, 48, 50.0, time_ns, d=np.zeros(5))
        messages += [("/c/camera_info", time_ns, info), ("/c/image", time_ns, video)]
    bag = recordings.write_bag(tmp_path / "bag", messages)
    settings = Settings(still=0)
    rows = run([bag], tmp_path / "c", settings, validation=tmp_path / "v", held_out=0.6, gap=2).rows
    assert [(row.frames, row.problems) for row in rows] == [(6, []), (7, [])]
    for corpus, first in ((Corpus(tmp_path / "c"), 0), (Corpus(tmp_path / "v"), 8)):
        for index, key in enumerate(corpus.keys, first):
            assert key == f"bag_{index:06d}"
            assert shows(corpus[index - first].rgb_hwc, index)
