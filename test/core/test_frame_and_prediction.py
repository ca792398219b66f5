"""Frames and predictions are checked at birth."""

from __future__ import annotations

import numpy as np
import pytest

from dense_perception.core.camera import Frame, Intrinsics
from dense_perception.core.errors import InputError
from dense_perception.core.prediction import (
    DepthKind,
    DepthMap,
    GrayMap,
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
