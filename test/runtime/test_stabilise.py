"""Stabilised depth of a textured wall and a box before it, seen by a panning camera."""

from __future__ import annotations

import tracemalloc

import cv2
import numpy as np
import pytest

from dense_perception.core.camera import Frame
from dense_perception.core.prediction import DepthKind, DepthMap
from dense_perception.runtime.stabilise import DepthStabiliser

WIDTH, HEIGHT = 320, 240


def texture(seed: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(
            rng.uniform(0, 255, (rows, 3 * rows)).astype(np.float32),
            (width, HEIGHT),
            interpolation=cv2.INTER_CUBIC,
        )
        for rows in (4, 12, 30)
    ]
    gray = np.clip(np.mean(layers, axis=0) * 1.6 - 76, 0, 255).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=2)


def view(index: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Picture and true depth: a wall at 4 m moves 2 pixels a frame, a box at 2 m moves 4."""
    wall, box = texture(seed, WIDTH + 400), texture(seed + 1, 80)
    left = 40 + 2 * index
    rgb_hwc = wall[:, left : left + WIDTH].copy()
    depth_m = np.full((HEIGHT, WIDTH), 4.0, np.float32)
    at = 200 - 4 * index
    rgb_hwc[60:180, at : at + 80] = box[60:180]
    depth_m[60:180, at : at + 80] = 2.0
    return rgb_hwc, depth_m


def flickering(truth_m: np.ndarray, seed: int) -> np.ndarray:
    """A smooth error of about five per cent, another one in each frame."""
    coarse = np.random.default_rng(seed).normal(0, 0.05, (6, 8)).astype(np.float32)
    error = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return (truth_m * np.exp(error)).astype(np.float32)


def frame_of(rgb_hwc: np.ndarray, index: int) -> Frame:
    return Frame(rgb_hwc, stamp_ns=index * 33_000_000)


def test_flicker_halves_and_edges_stay() -> None:
    stabiliser, before, after = DepthStabiliser(), [], []
    for index in range(25):
        rgb_hwc, truth_m = view(index)
        noisy_m = flickering(truth_m, index)
        stable_m = stabiliser.apply(frame_of(rgb_hwc, index), DepthMap(noisy_m), 0.7).metres()
        if index >= 5:
            before.append(np.log(noisy_m / truth_m))
            after.append(np.log(stable_m / truth_m))
            # Wall and box are told apart as before: nothing half-way between 2 m and 4 m.
            assert (np.abs(after[-1]) > 0.35).mean() < 0.005
    assert np.std(after) < 0.6 * np.std(before)
    steps_before, steps_after = np.abs(np.diff(before, axis=0)), np.abs(np.diff(after, axis=0))
    assert np.median(steps_after) < 0.5 * np.median(steps_before)


def test_a_cut_is_followed_at_once() -> None:
    stabiliser = DepthStabiliser()
    for index in range(5):
        stabiliser.apply(frame_of(view(index)[0], index), DepthMap(view(index)[1]), 0.9)
    other = np.full((HEIGHT, WIDTH), 4.2, np.float32)  # near enough to be blended, were it not new
    answer = stabiliser.apply(frame_of(view(5, seed=50)[0], 5), DepthMap(other), 0.9)
    np.testing.assert_allclose(answer.metres(), 4.2, rtol=1e-5)


def test_a_moving_surface_is_not_smeared() -> None:
    """Depth that changes by half at a place whose picture stays: a door that opens."""
    stabiliser, rgb_hwc = DepthStabiliser(), view(0)[0]
    for index in range(3):
        stabiliser.apply(
            frame_of(rgb_hwc, index), DepthMap(np.full((240, 320), 2.0, np.float32)), 0.9
        )
    far = np.full((240, 320), 3.0, np.float32)
    answer = stabiliser.apply(frame_of(rgb_hwc, 3), DepthMap(far), 0.9)
    np.testing.assert_allclose(answer.metres(), 3.0, rtol=1e-5)


def test_invalid_pixels_stay_and_come_back() -> None:
    stabiliser, rgb_hwc = DepthStabiliser(), view(0)[0]
    holed = np.full((HEIGHT, WIDTH), 2.0, np.float32)
    holed[:100] = np.nan
    whole = np.full((HEIGHT, WIDTH), 2.1, np.float32)
    first = stabiliser.apply(frame_of(rgb_hwc, 0), DepthMap(holed), 0.5).metres()
    np.testing.assert_array_equal(np.isnan(first), np.isnan(holed))
    second = stabiliser.apply(frame_of(rgb_hwc, 1), DepthMap(whole), 0.5).metres()
    np.testing.assert_allclose(second[:95], 2.1, rtol=1e-5)
    # In logarithms: sqrt(2.0 * 2.1), a little less as the two differ.
    np.testing.assert_allclose(second[105:], np.sqrt(2.0 * 2.1), rtol=2e-3)
    third = stabiliser.apply(frame_of(rgb_hwc, 2), DepthMap(holed), 0.5).metres()
    np.testing.assert_array_equal(np.isnan(third), np.isnan(holed))


def test_off_and_relative_are_left_alone() -> None:
    stabiliser, rgb_hwc = DepthStabiliser(), view(0)[0]
    metric = DepthMap(np.full((HEIGHT, WIDTH), 2.0, np.float32))
    assert stabiliser.apply(frame_of(rgb_hwc, 0), metric, 0.0) is metric
    relative = DepthMap(metric.values_hw, DepthKind.RELATIVE)
    assert stabiliser.apply(frame_of(rgb_hwc, 1), relative, 0.7) is relative
    # A change of size starts anew.
    stabiliser.apply(frame_of(rgb_hwc, 2), metric, 0.7)
    half = DepthMap(np.full((120, 160), 2.1, np.float32))
    answer = stabiliser.apply(frame_of(rgb_hwc, 3), half, 0.7)
    assert answer.metres() == pytest.approx(2.1)


@pytest.mark.parametrize("size_hw", [(4000, 1), (1, 4000)])
def test_the_narrowest_pictures_cost_no_more_than_others(size_hw: tuple[int, int]) -> None:
    """Their flow is computed at a bounded size."""
    smoother = DepthStabiliser()
    noise = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), np.uint8)
    depth = DepthMap(np.full((20, 20), 2, np.float32), DepthKind.METRIC)
    tracemalloc.start()
    try:
        for index in range(2):
            smoothed = smoother.apply(Frame(noise, stamp_ns=index * 10**8), depth, 0.7)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert np.allclose(smoothed.values_hw, 2)
