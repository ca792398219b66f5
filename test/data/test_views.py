"""Crops and rolls: the intrinsics must go on describing the pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dense_perception.core.camera import Intrinsics
from dense_perception.data.augmentation import AugmentConfig, random_crop
from dense_perception.data.sample import Sample
from dense_perception.data.views import Crop, cut, whole_view


def wall(normal: np.ndarray, distance: float, camera: Intrinsics) -> Sample:
    """A plane normal . X = distance; red and green are the point's X and Y, which roll with it."""
    v, u = np.mgrid[0 : camera.height, 0 : camera.width].astype(np.float64)
    ray = np.stack(
        [(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u)], axis=-1
    )
    depth = distance / (ray @ normal)
    rgb = np.full((camera.height, camera.width, 3), 128, np.uint8)
    return Sample(rgb, depth.astype(np.float32), camera)


@pytest.mark.parametrize("seed", range(12))
def test_a_plane_stays_a_plane_at_its_distance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    camera = Intrinsics(320, 240, 280.0, rng.choice([280.0, 250.0]), 157.0, 121.0)
    normal = np.array([0.3, -0.2, 1.0])
    normal /= np.linalg.norm(normal)
    sample = wall(normal, 2.0, camera)
    config = AugmentConfig(roll_p=1.0, zoom_p=1.0)
    view = cut(sample, random_crop(camera, config, rng), 96, 72)
    got = view.intrinsics
    v, u = np.mgrid[0:72, 0:96].astype(np.float64)
    points = np.stack(
        [(u - got.cx) / got.fx, (v - got.cy) / got.fy, np.ones_like(u)], axis=-1
    ) * view.depth_m[..., None].astype(np.float64)
    flat = points.reshape(-1, 3)
    solution, *_ = np.linalg.lstsq(flat, np.ones(len(flat)), rcond=None)
    assert 1 / np.linalg.norm(solution) == pytest.approx(2.0, rel=5e-3)
    # A roll turns the normal about z: its z part stays, whatever the crop and the mirror.
    assert solution[2] / np.linalg.norm(solution) == pytest.approx(normal[2], abs=5e-3)
    assert np.abs(flat @ solution - 1).max() < 0.02


@pytest.mark.parametrize("seed", range(30))
def test_random_crops_stay_inside_the_image(seed: int) -> None:
    camera = Intrinsics(320, 240, 300.0, 300.0, 159.5, 119.5)
    crop = random_crop(camera, AugmentConfig(roll_p=1.0, roll_deg=20), np.random.default_rng(seed))
    cos, sin = math.cos(crop.roll_rad), math.sin(crop.roll_rad)
    for sx in (-0.5, 0.5):
        for sy in (-0.5, 0.5):
            x = crop.centre_x + cos * sx * crop.width - sin * sy * crop.height
            y = crop.centre_y + sin * sx * crop.width + cos * sy * crop.height
            assert -1e-6 <= x <= 320 + 1e-6
            assert -1e-6 <= y <= 240 + 1e-6


def test_whole_view_has_the_intrinsics_of_a_stretched_image() -> None:
    camera = Intrinsics(320, 240, 300.0, 290.0, 150.0, 121.0)
    sample = wall(np.array([0.0, 0.0, 1.0]), 3.0, camera)
    view = whole_view(sample, 128, 128)
    expected = camera.resized(128, 128)
    for name in ("fx", "fy", "cx", "cy"):
        assert getattr(view.intrinsics, name) == pytest.approx(getattr(expected, name))
    assert view.rgb_hwc.shape == (128, 128, 3)
    np.testing.assert_array_equal(view.depth_m, np.float32(3.0))


def test_a_mirror_image_is_the_image_mirrored() -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    depth = rng.uniform(1, 5, (24, 32)).astype(np.float16)
    sample = Sample(rgb, depth, Intrinsics(32, 24, 30.0, 30.0, 14.0, 11.0))
    plain = cut(sample, Crop(16, 12, 32, 24), 32, 24)
    mirrored = cut(sample, Crop(16, 12, 32, 24, mirror=True), 32, 24)
    np.testing.assert_array_equal(plain.depth_m, depth.astype(np.float32))
    np.testing.assert_array_equal(mirrored.depth_m, plain.depth_m[:, ::-1])
    difference = mirrored.rgb_hwc.astype(int) - plain.rgb_hwc[:, ::-1].astype(int)
    assert np.abs(difference).max() <= 2
    assert mirrored.intrinsics.cx == pytest.approx(31 - 14.0)


def test_depth_is_never_interpolated() -> None:
    depth = np.ones((24, 32), np.float16)
    depth[:, 16:] = 5
    sample = Sample(
        np.zeros((24, 32, 3), np.uint8), depth, Intrinsics(32, 24, 30.0, 30.0, 15.5, 11.5)
    )
    view = cut(sample, Crop(17.3, 12.2, 20.1, 14.9, roll_rad=0.1), 64, 64)
    assert set(np.unique(view.depth_m)) == {1.0, 5.0}
