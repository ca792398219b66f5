"""Depth for eyes."""

from __future__ import annotations

import numpy as np
import pytest

from dense_perception.imaging.colorize import (
    DepthColorizer,
    colorize,
    robust_limits,
    side_by_side,
)


def ramp(near: float = 1.0, far: float = 8.0) -> np.ndarray:
    return np.tile(np.linspace(near, far, 64, dtype=np.float32), (48, 1))


def test_invalid_is_black_and_nothing_else_is() -> None:
    depth = ramp()
    depth[:10] = np.nan
    depth[10:12] = 0
    rgb = colorize(depth, 1, 8)
    assert rgb.dtype == np.uint8
    assert rgb.shape == (48, 64, 3)
    assert not rgb[:12].any()
    assert rgb[12:].any(axis=2).all()


def test_near_is_red_and_far_is_blue() -> None:
    rgb = colorize(ramp(), 1, 8).astype(int)
    near, far = rgb[0, 0], rgb[0, -1]
    assert near[0] > near[2] + 50
    assert far[2] > far[0]


def test_equal_steps_of_inverse_depth_are_equal_steps_of_colour() -> None:
    inverse = np.linspace(1 / 8, 1, 255)
    depth = (1 / inverse).astype(np.float32)[None]
    rgb = colorize(depth, 1, 8)
    assert len(np.unique(rgb.reshape(-1, 3), axis=0)) >= 240


def test_past_the_limits_the_colour_stays() -> None:
    rgb = colorize(np.float32([[0.01, 1.0, 8.0, 500.0, np.inf]]), 1, 8)
    assert np.array_equal(rgb[0, 0], rgb[0, 1])
    assert np.array_equal(rgb[0, 2], rgb[0, 3])
    assert np.array_equal(rgb[0, 3], rgb[0, 4])


def test_limits_ignore_outliers_and_follow_slowly() -> None:
    depth = ramp()
    depth[0, 0], depth[0, 1] = 0.001, 9999
    near, far = robust_limits(depth) or (0, 0)
    assert 1 < near < 1.5
    assert 7 < far <= 8
    colorizer = DepthColorizer(momentum=0.9)
    colorizer(depth)
    before = colorizer.limits_m
    colorizer(depth * 1.1)
    after = colorizer.limits_m
    assert before is not None
    assert after is not None
    assert before[1] < after[1] < before[1] * 1.02
    colorizer(depth * 5)
    jumped = colorizer.limits_m
    assert jumped == pytest.approx((near * 5, far * 5), rel=0.01)


def test_map_without_valid_pixels() -> None:
    colorizer = DepthColorizer()
    empty = np.full((4, 4), np.nan, np.float32)
    assert not colorizer(empty).any()
    assert colorizer.limits_m is None
    colorizer(ramp())
    limits = colorizer.limits_m
    colorizer(empty)
    assert colorizer.limits_m == limits


def test_constant_map_and_fixed_limits() -> None:
    assert colorize(
        np.full((2, 2), 3, np.float32), *(robust_limits(np.full((2, 2), 3.0)) or (1, 2))
    ).any()
    colorizer = DepthColorizer(near_m=0.5, far_m=4.0)
    colorizer(ramp())
    assert colorizer.limits_m == (0.5, 4.0)


@pytest.mark.parametrize("shape", [(480, 640), (16, 16), (1, 1)])
def test_side_by_side_shows_both_and_a_legend(shape: tuple[int, int]) -> None:
    height, width = shape
    rgb = np.full((height * 2, width * 2, 3), 77, np.uint8)
    depth_rgb = np.full((height, width, 3), 99, np.uint8)
    picture = side_by_side(rgb, depth_rgb, 1, 8)
    assert picture.shape[0] == height
    assert picture.shape[1] > 2 * width
    assert (picture[:, :width] == 77).all()
    assert (picture[:, width : 2 * width] == 99).all()
    assert picture[:, 2 * width :].any()
