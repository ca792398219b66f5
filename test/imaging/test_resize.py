"""Geometry of the way to the network and back."""

from __future__ import annotations

import numpy as np
import pytest

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import InputError
from dense_perception.imaging.resize import (
    fit_within,
    prepare,
    resample,
    restore,
    restore_gray,
    restore_normals,
)


def naive_area(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Box filter in fp64: each target pixel is the mean of the source area it covers."""

    def weights(source: int, target: int) -> np.ndarray:
        matrix = np.zeros((target, source))
        for row in range(target):
            low, high = row * source / target, (row + 1) * source / target
            for column in range(source):
                matrix[row, column] = max(0.0, min(high, column + 1) - max(low, column))
        return matrix * target / source

    rows, columns = weights(image.shape[0], height), weights(image.shape[1], width)
    # In two steps: the sum over both axes at once takes a minute.
    return np.einsum("yr,rcd,xc->yxd", rows, image.astype(np.float64), columns, optimize=True)


def naive_linear(plane: np.ndarray, width: int, height: int) -> np.ndarray:
    """Half-pixel bilinear interpolation in fp64."""
    result = np.empty((height, width))
    for y in range(height):
        for x in range(width):
            v = np.clip((y + 0.5) * plane.shape[0] / height - 0.5, 0, plane.shape[0] - 1)
            u = np.clip((x + 0.5) * plane.shape[1] / width - 0.5, 0, plane.shape[1] - 1)
            y0, x0 = int(v), int(u)
            y1, x1 = min(y0 + 1, plane.shape[0] - 1), min(x0 + 1, plane.shape[1] - 1)
            top = plane[y0, x0] * (1 - u + x0) + plane[y0, x1] * (u - x0)
            bottom = plane[y1, x0] * (1 - u + x0) + plane[y1, x1] * (u - x0)
            result[y, x] = top * (1 - v + y0) + bottom * (v - y0)
    return result


SHRUNK = [(1, 1), (7, 11), (24, 13), (12, 30), (23, 29), (8, 10)]


@pytest.mark.parametrize(("height", "width"), SHRUNK)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_resampling_averages_areas_of_any_pixels(
    height: int, width: int, dtype: type[np.generic]
) -> None:
    image = np.random.default_rng(0).uniform(0, 255, (24, 30, 3)).astype(dtype)
    got = resample(image, width, height)
    assert got.dtype == dtype
    tolerance = 1e-3 if dtype is np.float32 else 1.01
    assert np.abs(got - naive_area(image, width, height)).max() <= tolerance
    plane = np.ascontiguousarray(image[..., 1])
    np.testing.assert_array_equal(resample(plane, width, height), got[..., 1])


@pytest.mark.parametrize(("height", "width"), [(40, 45), (24, 31), (60, 11), (5, 64)])
def test_resampling_shrinks_before_it_grows(height: int, width: int) -> None:
    image = np.random.default_rng(1).uniform(0, 9, (24, 30, 1)).astype(np.float32)
    shrunk = naive_area(image, min(width, 30), min(height, 24))[..., 0]
    expected = naive_linear(shrunk, width, height)
    np.testing.assert_allclose(resample(image[..., 0], width, height), expected, atol=1e-3)


def test_resampling_to_the_same_size_and_into_an_array() -> None:
    image = np.random.default_rng(2).integers(0, 256, (24, 30, 3), np.uint8)
    assert resample(image, 30, 24) is image
    out = np.zeros((12, 15, 3), np.uint8)
    assert resample(image, 15, 12, out) is out
    np.testing.assert_array_equal(out, resample(image, 15, 12))


@pytest.mark.parametrize(("height", "width"), [(192, 256), (150, 200), (144, 192), (100, 211)])
def test_shrinking_in_two_steps_keeps_what_a_lens_can_draw(height: int, width: int) -> None:
    """Whole blocks first, then a small step: as good as averaging areas for a picture in focus."""
    rows, columns = np.mgrid[0:480, 0:640]
    waves = [np.sin(columns / 9 + k) * np.cos(rows / 11 - k) for k in range(3)]
    image = np.round(127 + 100 * np.stack(waves, -1)).astype(np.uint8)
    difference = np.abs(prepare(image, width, height) - naive_area(image, width, height))
    assert difference.mean() < 0.8
    assert difference.max() < 4


@pytest.mark.parametrize(("height", "width"), [(12, 16), (24, 30), (7, 30), (24, 13)])
def test_shrinking_averages_areas(height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (24, 30, 3), np.uint8)
    got = prepare(image, width, height)
    assert np.abs(got - naive_area(image, width, height)).max() <= 1.01


def test_growing_is_linear_with_half_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    got = prepare(image, 13, 17)
    for channel in range(3):
        expected = naive_linear(image[..., channel].astype(np.float64), 13, 17)
        assert np.abs(got[..., channel] - expected).max() <= 1.01


def test_one_side_may_grow_while_the_other_shrinks() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 10, 3), np.uint8)
    got = prepare(image, 20, 10)
    shrunk = naive_area(image, 10, 10)
    for channel in range(3):
        expected = naive_linear(shrunk[..., channel], 20, 10)
        assert np.abs(got[..., channel] - expected).max() <= 2


def test_writes_into_the_buffer_and_refuses_a_wrong_one() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    batch = np.zeros((2, 10, 10, 3), np.uint8)
    assert prepare(image, 10, 10, batch[1]) is not None
    assert np.array_equal(batch[1], prepare(image, 10, 10))
    assert not batch[0].any()
    for wrong in (np.zeros((10, 11, 3), np.uint8), np.zeros((10, 10, 3), np.float32)):
        with pytest.raises(InputError, match="expected contiguous"):
            prepare(image, 10, 10, wrong)


@pytest.mark.parametrize(("height", "width"), [(48, 64), (17, 23), (20, 24)])
def test_restore_equals_the_naive_resize(height: int, width: int) -> None:
    depth = np.random.default_rng(0).uniform(1, 9, (10, 12)).astype(np.float32)
    got = restore(depth, width, height)
    np.testing.assert_allclose(got, naive_linear(depth.astype(np.float64), width, height), 1e-4)


def test_restore_of_a_plane_agrees_with_the_scaled_intrinsics() -> None:
    """1/depth of a slanted plane is linear in the pixel, before and after."""
    small = Intrinsics(32, 24, 30, 30, 15.2, 11.7)
    big = small.resized(128, 96)
    columns = (np.arange(32) - small.cx) / small.fx
    inverse = np.tile(0.5 + 0.2 * columns, (24, 1)).astype(np.float32)
    got = restore(inverse, 128, 96)
    expected = 0.5 + 0.2 * (np.arange(128) - big.cx) / big.fx
    np.testing.assert_allclose(got[:, 4:-4], np.tile(expected, (96, 1))[:, 4:-4], rtol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(40, 40), (5, 5), (15, 25)])
def test_nan_neither_spreads_nor_is_filled(height: int, width: int) -> None:
    depth = np.full((10, 10), 3.0, np.float32)
    depth[:, 5:] = np.nan
    got = restore(depth, width, height)
    valid = np.isfinite(got)
    np.testing.assert_allclose(got[valid], 3.0, rtol=1e-5)
    half = width // 2
    assert valid[:, : half - 1].all()
    assert not valid[:, half + 1 :].any()


def test_all_nan_and_infinite() -> None:
    assert np.isnan(restore(np.full((4, 4), np.nan, np.float32), 9, 9)).all()
    assert np.isnan(restore(np.full((4, 4), np.inf, np.float32), 9, 9)).all()


def test_restore_never_returns_its_argument() -> None:
    depth = np.ones((4, 4), np.float32)
    assert not np.shares_memory(restore(depth, 4, 4), depth)


@pytest.mark.parametrize(
    ("size", "limit", "expected"),
    [
        ((640, 480), 1280, (640, 480)),
        ((8000, 6000), 1280, (1280, 960)),
        ((10, 5000), 100, (1, 100)),
        ((1280, 1), 640, (640, 1)),
    ],
)
def test_fit_within(size: tuple[int, int], limit: int, expected: tuple[int, int]) -> None:
    assert fit_within(*size, limit) == expected


def test_normals_between_two_directions_are_unit_vectors_between_them() -> None:
    normals = np.zeros((1, 2, 3), np.float32)
    normals[0, 0], normals[0, 1] = (0, 0, -1), (0.8, 0, -0.6)
    got = restore_normals(normals, 8, 1)
    np.testing.assert_allclose(np.linalg.norm(got, axis=2), 1, atol=1e-6)
    angles = np.degrees(np.arctan2(got[0, :, 0], -got[0, :, 2]))
    assert np.all(np.diff(angles) >= -1e-4)
    assert (angles[0], angles[-1]) == pytest.approx((0, 53.13), abs=1e-3)


def test_unknown_normals_neither_spread_nor_are_filled_in() -> None:
    normals = np.full((4, 4, 3), np.nan, np.float32)
    normals[:, :2] = (0, -1, 0)
    got = restore_normals(normals, 8, 8)
    np.testing.assert_allclose(got[:, :4], np.broadcast_to((0, -1, 0), (8, 4, 3)), atol=1e-6)
    assert np.isnan(got[:, 4:]).all()
    opposite = np.zeros((1, 2, 3), np.float32)
    opposite[0, 0], opposite[0, 1] = (0, 0, -1), (0, 0, 1)
    assert np.isnan(restore_normals(opposite, 1, 1)).all()


def test_gray_maps_keep_their_mean_and_place() -> None:
    gray = np.zeros((8, 8), np.uint8)
    gray[2:4, 4:6] = 200
    doubled = restore_gray(gray, 16, 16)
    assert doubled.dtype == np.uint8
    assert doubled.mean() == pytest.approx(gray.mean(), rel=0.02)
    assert doubled[5, 9] == 200
    assert np.array_equal(restore_gray(gray, 4, 4), gray[::2, ::2])
    assert restore_gray(gray, 8, 8) is not gray
