"""What is written as a recording is read from it, and an unfinished one has no name."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from dense_perception.core.camera import (
    Intrinsics,
    calibration_for_output,
    intrinsics_from_info,
)
from dense_perception.core.errors import InputError
from dense_perception.imaging.encode import encode_jpeg
from dense_perception.imaging.messages import message_depth_m, message_rgb
from dense_perception.imaging.transforms import Transform, TransformBuffer
from dense_perception.media.bag_reader import BagReader
from dense_perception.media.bag_writer import EPOCH_NS, BagWriter

CAMERA = Intrinsics.from_fov(32, 24, 80)


@pytest.mark.parametrize("compress", [False, True])
def test_a_recording_gives_back_what_was_written(compress: bool, tmp_path: Path) -> None:
    rgb_hwc = np.full((24, 32, 3), (200, 120, 40), np.uint8)
    depth_mm = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) + 1
    depth_m = np.linspace(0.3, 4, 24 * 32, dtype=np.float32).reshape(24, 32)
    turn = np.asarray(cv2.Rodrigues(np.array([0.1, -0.2, 0.3]))[0])
    motion = Transform(turn, np.array([0.1, 0.2, 0.3]))
    stamp = (EPOCH_NS, "eye")
    with BagWriter(tmp_path / "bag", compress=compress) as bag:
        info = bag.info(stamp, calibration_for_output(None, CAMERA))
        bag.send("/tf_static", EPOCH_NS, bag.transforms(EPOCH_NS, "base", {"eye": motion}))
        bag.send("/c/image/compressed", EPOCH_NS, bag.jpeg(stamp, encode_jpeg(rgb_hwc, 95)))
        bag.send("/c/camera_info", EPOCH_NS, info)
        bag.send("/d/image", EPOCH_NS, bag.depth_mm((EPOCH_NS + 5, "eye"), depth_mm))
        bag.send("/m/image", EPOCH_NS, bag.depth(stamp, depth_m))
        assert not (tmp_path / "bag").exists()
    assert [each.name for each in tmp_path.iterdir()] == ["bag"]
    with BagReader(tmp_path / "bag") as read:
        topics = [topic.name for topic in read.topics]
        found = {each.topic: read.deserialize(each) for each in read.messages(topics)}
    assert np.abs(message_rgb(found["/c/image/compressed"]).astype(int) - rgb_hwc).max() < 4
    np.testing.assert_allclose(message_depth_m(found["/d/image"]), depth_mm / 1000, atol=1e-6)
    np.testing.assert_array_equal(message_depth_m(found["/m/image"]), depth_m)
    assert found["/d/image"].header.stamp.nanosec == 5
    assert intrinsics_from_info(found["/c/camera_info"], 32, 24) == CAMERA
    buffer = TransformBuffer()
    buffer.add(found["/tf_static"].transforms[0], static=True)
    there = buffer.lookup("base", "eye", 0)
    np.testing.assert_allclose(there.rotation, turn, atol=1e-9)
    np.testing.assert_allclose(there.translation, motion.translation)


def test_what_ends_in_an_error_leaves_nothing(tmp_path: Path) -> None:
    def stopped() -> None:
        with BagWriter(tmp_path / "bag") as bag:
            bag.send("/d/image", EPOCH_NS, bag.depth((EPOCH_NS, ""), np.ones((2, 3), np.float32)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not list(tmp_path.iterdir())
    (tmp_path / "bag").mkdir()
    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not list((tmp_path / "bag").iterdir())
    with pytest.raises(InputError, match="exists"):
        BagWriter(tmp_path / "bag", replace=False)
