"""Calibration messages to intrinsics: windows of the sensor, and what no camera can have."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dense_perception.core.camera import (
    Intrinsics,
    Lens,
    calibration_doubt,
    calibration_for_output,
    camera_doubt,
    intrinsics_from_info,
)
from dense_perception.core.errors import InputError

K = [800.0, 0.0, 330.25, 0.0, 790.0, 244.75, 0.0, 0.0, 1.0]
POINTS = np.random.default_rng(0).uniform([-0.3, -0.3, 1.0], [0.3, 0.3, 5.0], (20, 3))


def info_of(
    roi: tuple[int, int, int, int] = (0, 0, 0, 0), binning: int = 0, **changes: Any
) -> SimpleNamespace:
    """Of a sensor of 641x479 pixels; ``roi``: left, top, width, height."""
    left, top, width, height = roi
    window = SimpleNamespace(x_offset=left, y_offset=top, width=width, height=height)
    fields: dict[str, Any] = {
        "width": 641,
        "height": 479,
        "k": K,
        "p": [*K[:3], 0.0, *K[3:6], 0.0, *K[6:], 0.0],
        "r": np.eye(3).reshape(-1),
        "d": [0.1, -0.2, 0.0, 0.0, 0.05],
        "distortion_model": "plumb_bob",
        "binning_x": binning,
        "binning_y": binning,
        "roi": window,
    }
    return SimpleNamespace(**{**fields, **changes})


def pixels(k: np.ndarray) -> np.ndarray:
    projected = POINTS @ np.asarray(k, np.float64).reshape(3, 3).T
    return projected[:, :2] / projected[:, 2:]


@pytest.mark.parametrize(
    ("roi", "binning", "size"),
    [
        ((0, 0, 0, 0), 0, (641, 479)),
        ((0, 0, 0, 0), 0, (320, 239)),  # resized by other than a whole number
        ((40, 30, 512, 384), 1, (512, 384)),
        ((40, 30, 512, 384), 2, (256, 192)),
        ((41, 31, 512, 384), 2, (128, 96)),  # binned, then resized
    ],
)
def test_a_point_lands_where_window_binning_and_resizing_move_it(
    roi: tuple[int, int, int, int], binning: int, size: tuple[int, int]
) -> None:
    left, top, width, height = roi if roi[2] else (0, 0, 641, 479)
    # Pixel areas: the centre of pixel u of the sensor is u + 0.5 from its left edge.
    edges = pixels(np.array(K)) + 0.5 - [left, top]
    expected = edges * [size[0] / width, size[1] / height] - 0.5
    info = info_of(roi, binning)
    intrinsics = intrinsics_from_info(info, *size)
    np.testing.assert_allclose(pixels(intrinsics.matrix()), expected)
    fields = calibration_for_output(info, intrinsics)
    assert (fields.width, fields.height) == size
    np.testing.assert_allclose(pixels(fields.k), expected)
    np.testing.assert_allclose(pixels(fields.p.reshape(3, 4)[:, :3]), expected)
    np.testing.assert_array_equal(fields.d, info.d)


@pytest.mark.parametrize(
    ("fx", "named"),
    [
        (0.9, r"K of camera_info is not usable: fx is 0.9 for a width of 641 pixels.*in pixels"),
        (1e9, "field of view of .* degrees, expected 1 to 170"),
        (float("inf"), "fx is inf"),
        (-800.0, "fx is -800"),
    ],
)
def test_focal_lengths_that_no_camera_has(fx: float, named: str) -> None:
    with pytest.raises(InputError, match=named):
        intrinsics_from_info(info_of(k=[fx, *K[1:]]), 641, 479)


@pytest.mark.parametrize("matrix", ["k", "r", "p"])
@pytest.mark.parametrize("rectified", [False, True])
def test_numbers_that_are_none_are_refused_in_every_matrix(matrix: str, rectified: bool) -> None:
    values = [*getattr(info_of(), matrix)]
    values[1] = float("nan")
    with pytest.raises(InputError, match=f"{matrix.upper()} of camera_info .* finite numbers"):
        intrinsics_from_info(info_of(**{matrix: values}), 641, 479, rectified=rectified)


def test_an_image_that_is_not_rectified_has_the_lens_of_its_calibration() -> None:
    lens = Lens(False, (0.1, -0.2, 0.0, 0.0, 0.05))
    assert intrinsics_from_info(info_of(), 641, 479).lens == lens
    assert intrinsics_from_info(info_of(), 1282, 958).lens == lens
    assert intrinsics_from_info(info_of(), 641, 479, rectified=True).lens is None
    assert intrinsics_from_info(info_of(d=[0.0] * 5), 641, 479).lens is None
    assert intrinsics_from_info(info_of(d=[], distortion_model=""), 641, 479).lens is None


def test_a_fisheye_without_coefficients_is_no_pinhole() -> None:
    info = info_of(distortion_model="equidistant", d=[])
    assert intrinsics_from_info(info, 641, 479).lens == Lens(True, (0.0, 0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"distortion_model": "omni"}, "model is 'omni', expected plumb_bob"),
        ({"distortion_model": ""}, "model is 'empty'"),
        ({"d": [0.1] * 6}, "for plumb_bob, expected 4 or 5 or 8"),
        ({"d": [0.1, float("nan"), 0.0, 0.0]}, "finite numbers"),
        ({"distortion_model": "equidistant", "d": [0.1] * 5}, "for equidistant, expected 4 finite"),
        ({"d": [0.0] * 12 + [0.1, 0.0]}, "tilts the sensor"),
    ],
)
def test_distortion_that_nobody_knows_is_doubted_and_left_out(
    changes: dict[str, Any], named: str
) -> None:
    info = info_of(**changes)
    assert intrinsics_from_info(info, 641, 479).lens is None
    assert named in calibration_doubt(info)
    assert "feed rectified images" in calibration_doubt(info)
    assert calibration_doubt(info, "P") == ""


def test_two_matrices_without_distortion_are_doubted_until_one_is_chosen() -> None:
    other = [900.0, 0.0, 330.25, 0.0, 0.0, 790.0, 244.75, 0.0, 0.0, 0.0, 1.0, 0.0]
    info = info_of(p=other, d=[0.0] * 5)
    assert "K (fx 800) and P (fx 900) differ though D is zero" in calibration_doubt(info)
    assert calibration_doubt(info, "K") == calibration_doubt(info, "P") == ""
    assert calibration_doubt(info_of(d=[0.0] * 5)) == ""
    assert calibration_doubt(info_of(p=[0.0] * 12, d=[0.0] * 5)) == ""


@pytest.mark.parametrize(
    ("fx", "fy", "cx", "named"),
    [
        (800.0, 790.0, 330.25, ""),
        (0.9, 0.9, 0.5, "a field of view of 180 degrees"),
        (8000.0, 8000.0, 330.25, "a field of view of 4.59 degrees"),
        (800.0, 330.0, 330.25, "fx is 800 and fy 330"),
        (800.0, 790.0, 660.0, r"principal point (660, 244.8) lies outside of the image of 641x479"),
        (800.0, 790.0, -1.0, r"principal point (-1, 244.8)"),
    ],
)
def test_what_no_camera_can_be_is_doubted(fx: float, fy: float, cx: float, named: str) -> None:
    k = [fx, 0.0, cx, 0.0, fy, 244.75, 0.0, 0.0, 1.0]
    p = [*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0]
    info = info_of(k=k, p=p, d=[0.0] * 5)
    doubts = camera_doubt(Intrinsics.from_matrix(641, 479, k)), calibration_doubt(info)
    assert bool(doubts[0]) == bool(doubts[1]) == bool(named)
    for doubt in (*doubts, calibration_doubt(info, "P")):
        assert named in doubt
