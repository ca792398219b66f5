"""Steps of stored depth follow the noise that is in it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dense_perception.core.camera import Intrinsics
from dense_perception.data.depth_steps import depth_noise, fine_unit, sensor_unit
from dense_perception.data.sample import Sample
from dense_perception.data.shards import decode, encode

CAMERA = Intrinsics(160, 120, 120.0, 120.0, 79.5, 59.5)


def floor_and_wall(noise_m: float, seed: int = 0) -> np.ndarray:
    """A floor 1.1 m below and a wall at 4 m, in whole millimetres, with a tenth unknown."""
    rng = np.random.default_rng(seed)
    rows = (np.arange(120) - CAMERA.cy) / CAMERA.fy
    with np.errstate(divide="ignore"):
        floor_m = np.where(rows > 0, 1.1 / rows, np.inf)
    depth_m = np.broadcast_to(np.minimum(floor_m, 4.0)[:, None], (120, 160))
    depth_m = np.rint((depth_m + rng.normal(0, noise_m, (120, 160))) * 1000) / 1000
    depth_m[rng.random(depth_m.shape) < 0.1] = 0
    return depth_m.astype(np.float32)


@pytest.mark.parametrize("noise_m", [0.002, 0.005, 0.02])
def test_the_noise_is_what_was_added(noise_m: float) -> None:
    # 4 % is the spread of the median over the few thousand pixels that are looked at.
    assert depth_noise(floor_and_wall(noise_m)) == pytest.approx(noise_m, rel=0.1)


def test_unknown_pixels_have_no_noise() -> None:
    nothing = np.full((24, 32), np.nan, np.float32)
    nothing[::2], nothing[1::4] = 0, np.inf
    assert depth_noise(nothing) == 0
    assert sensor_unit(nothing) == 0.001


@pytest.mark.parametrize(
    ("noise_m", "unit"), [(0.0, 0.001), (0.0008, 0.001), (0.0014, 0.002), (0.004, 0.002)]
)
def test_a_sensors_depth_comes_back_within_its_noise(noise_m: float, unit: float) -> None:
    depth_m = np.maximum(floor_and_wall(noise_m), 0)
    assert sensor_unit(depth_m) == unit
    sample = Sample(np.zeros((120, 160, 3), np.uint8), depth_m, CAMERA)
    members = encode(sample, unit_m=sensor_unit(depth_m), png_level=1)
    assert json.loads(members["json"])["depth_unit_m"] == unit
    found_m = decode(members, "k").depth_m
    np.testing.assert_array_equal(found_m > 0, depth_m >= unit / 2)
    if unit == 0.001:
        np.testing.assert_allclose(found_m, depth_m, atol=1e-6)  # to the millimetre
    else:
        assert np.abs(found_m - depth_m).max() <= unit / 2 + 1e-5 <= noise_m + 1e-5


def test_far_noise_does_not_round_what_is_near() -> None:
    """As of stereo cameras: two thirds of the frame at 12 m with 4 cm of noise, the rest at 1 m."""
    rng = np.random.default_rng(1)
    depth_m = 12 + rng.normal(0, 0.04, (120, 160)).astype(np.float32)
    assert sensor_unit(depth_m) == 0.01
    depth_m[80:] = 1 + rng.normal(0, 0.0005, (40, 160))
    assert depth_noise(depth_m) > 0.01
    assert sensor_unit(depth_m) == 0.001


def test_far_points_of_a_lidar_stay() -> None:
    depth_m = np.zeros((120, 160), np.float32)
    depth_m[::7, ::5] = 3.0
    depth_m[7, 5] = 90.0
    assert sensor_unit(depth_m) == 0.002
    depth_m[7, 5] = 9000.0
    assert sensor_unit(depth_m) == 0.001, "no step reaches that"


def test_generated_depth_is_as_fine_as_its_near_pixels_need() -> None:
    assert fine_unit(np.full((8, 8), 0.3, np.float32)) == 0.00025
    assert fine_unit(np.full((8, 8), 3.0, np.float32)) == 0.002
    assert fine_unit(np.full((8, 8), 3000.0, np.float32)) == 1.0, "millimetres, to be seen as such"
