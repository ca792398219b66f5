"""Frames and predictions are checked at birth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dense_perception.core.camera import Frame, Intrinsics
from dense_perception.core.errors import InputError
from dense_perception.core.labels import LABEL_SETS
from dense_perception.core.prediction import (
    DepthKind,
    DepthMap,
    GrayMap,
    Instances,
    NormalMap,
    Prediction,
)

RGB = np.zeros((4, 6, 3), np.uint8)
CAMERA = Intrinsics.from_fov(6, 4, 60)


@pytest.mark.parametrize(
    ("image", "named"),
    [
        (RGB.astype(np.float32), "float32"),
        (RGB[..., 0], r"\(4, 6\)"),
        (np.zeros((4, 6, 4), np.uint8), r"\(4, 6, 4\)"),
        (np.zeros((0, 6, 3), np.uint8), "at least one pixel"),
        ([[1, 2, 3]], "list"),
    ],
)
def test_only_rgb_bytes_make_a_frame(image: object, named: str) -> None:
    with pytest.raises(InputError, match=named):
        Frame(image)  # type: ignore[arg-type]


def test_a_frame_refuses_another_cameras_calibration() -> None:
    with pytest.raises(InputError, match="12x8"):
        Frame(RGB, intrinsics=CAMERA.resized(12, 8))
    assert Frame(RGB, intrinsics=CAMERA).width == 6


def test_relative_depth_never_passes_for_metres() -> None:
    values = np.ones((4, 6), np.float32)
    assert DepthMap(values).metres() is values
    with pytest.raises(InputError, match="relative_inverse"):
        DepthMap(values, DepthKind.RELATIVE_INVERSE).metres()


def test_maps_have_the_predictions_size() -> None:
    with pytest.raises(InputError, match=r"\(5, 6\)"):
        Prediction(6, 4, CAMERA, depth=DepthMap(np.ones((5, 6), np.float32)))
    with pytest.raises(InputError, match="12x8"):
        Prediction(6, 4, CAMERA.resized(12, 8))
    with pytest.raises(InputError, match="float64"):
        DepthMap(np.ones((4, 6)))


def test_normals_and_gray_maps_are_checked_at_birth() -> None:
    up = np.zeros((4, 6, 3), np.float32)
    up[..., 1] = -1
    up[0, 0] = np.nan
    with pytest.raises(InputError, match="float64"):
        NormalMap(up.astype(np.float64))
    with pytest.raises(InputError, match=r"\(4, 6\)"):
        NormalMap(up[..., 0])
    with pytest.raises(InputError, match="float32"):
        GrayMap(up[..., 0])
    with pytest.raises(InputError, match=r"normals has shape \(4, 5, 3\)"):
        Prediction(6, 4, CAMERA, normals=NormalMap(up[:, 1:]))
    with pytest.raises(InputError, match=r"edges has shape \(2, 6\)"):
        Prediction(6, 4, CAMERA, edges=GrayMap(np.zeros((2, 6), np.uint8)))
    colours = NormalMap(up).colored()
    # Up is green; unknown is black.
    assert colours[1, 1].tolist() == [128, 255, 128]
    assert colours[0, 0].tolist() == [0, 0, 0]


BOXES = np.array([[0, 0, 2, 2], [1, 1, 6, 4]], np.float32)
IDS = np.array([[1, 1, 0, 0, 0, 0], [1, 2, 2, 2, 2, 2], [0, 2, 2, 2, 2, 2], [0] * 6], np.uint8)
THINGS: dict[str, Any] = {
    "boxes_n4": BOXES,
    "scores_n": np.array([0.9, 0.4], np.float32),
    "classes_n": np.array([0, 56], np.uint8),
    "labels": LABEL_SETS["coco"],
    "ids_hw": IDS,
}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"boxes_n4": BOXES.astype(np.float64)}, "boxes of 2 instances are float64"),
        ({"scores_n": np.ones(3, np.float32)}, r"scores of 2 instances are .*\(3,\)"),
        ({"scores_n": np.array([0.4, 0.9], np.float32)}, "not sorted"),
        ({"scores_n": np.array([0.9, 0.0], np.float32)}, r"a score is 0\.0"),
        ({"classes_n": np.array([0, 80], np.uint8)}, "a class is 80, the labels coco have 80"),
        ({"ids_hw": IDS.astype(np.int64)}, "instance ids .*int64.*uint8 or uint16"),
        ({"ids_hw": IDS + 1}, "an instance id is 3, there are 2"),
        ({"masks_nhw": np.zeros((1, 4, 6), np.uint8)}, "1 masks of 2 instances"),
        ({"track_ids_n": np.zeros(2, np.int32)}, "track ids .*int32"),
    ],
)
def test_instances_are_checked_at_birth(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        Instances(**{**THINGS, **wrong})


def test_instances_lie_within_the_prediction() -> None:
    found = Instances(**THINGS)
    assert Prediction(6, 4, CAMERA, instances=found).instances is found
    assert (len(found), found.names) == (2, ("person", "chair"))
    with pytest.raises(InputError, match=r"its instance ids have shape \(3, 6\)"):
        Prediction(6, 4, CAMERA, instances=Instances(**{**THINGS, "ids_hw": IDS[:3]}))
    outside = Instances(**{**THINGS, "boxes_n4": BOXES + 1})
    with pytest.raises(InputError, match=r"a box is \[2\.0, 2\.0, 7\.0, 5\.0\]"):
        Prediction(6, 4, CAMERA, instances=outside)


def test_selected_instances_are_numbered_again() -> None:
    found = Instances(**THINGS, track_ids_n=np.array([7, 8], np.int64))
    second = found.selected(np.array([False, True]))
    assert second.names == ("chair",)
    assert second.track_ids_n is not None
    assert second.track_ids_n.tolist() == [8]
    np.testing.assert_array_equal(second.ids_hw, (IDS == 2).astype(np.uint8))
    none = found.selected(np.array([False, False]))
    assert len(none) == 0
    assert none.ids_hw is not None
    assert not none.ids_hw.any()
    assert found.selected(np.array([True, True])) is found
