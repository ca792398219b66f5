"""Robust fits and their tracking, against scales and shifts that are known."""

from __future__ import annotations

import numpy as np
import pytest

from dense_perception.core.prediction import DepthKind, DepthMap
from dense_perception.runtime.scale.alignment import Alignment, Fit, fit_alignment
from dense_perception.runtime.scale.tracker import ScaleTracker


def tilted_room(seed: int = 0) -> np.ndarray:
    """A floor, a wall at 6 m and a box at 2 m: 60x80 metres."""
    rows, columns = np.mgrid[:60, :80]
    floor = 1.2 / np.maximum((rows - 25) / 70, 1e-3)
    depth_m = np.minimum(floor, 6.0 + columns / 80)
    depth_m[30:50, 10:25] = 2.0
    return depth_m.astype(np.float32)


def measured(
    depth_m: np.ndarray, count: int, outliers: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Flat indices, and depths with one per cent noise of which some are anything."""
    rng = np.random.default_rng(seed)
    places = rng.choice(depth_m.size, count, replace=False)
    metres = depth_m.reshape(-1)[places] * (1 + rng.normal(0, 0.01, count))
    wrong = rng.choice(count, outliers, replace=False)
    metres[wrong] = rng.uniform(0.3, 20, outliers)
    return places, metres


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    ("kind", "scale", "shift"),
    [
        (DepthKind.RELATIVE, 0.2, 0.0),
        (DepthKind.METRIC, 1.3, 0.0),
        (DepthKind.RELATIVE_INVERSE, 0.05, 0.02),
        (DepthKind.RELATIVE_INVERSE, 3.0, -0.3),
    ],
)
def test_fifty_points_of_which_fifteen_are_wrong(
    kind: DepthKind, scale: float, shift: float, seed: int
) -> None:
    truth_m = tilted_room()
    is_inverse = kind is DepthKind.RELATIVE_INVERSE
    values_hw = (1 / truth_m - shift) / scale if is_inverse else truth_m / scale
    depth = DepthMap(values_hw.astype(np.float32), kind)
    places, metres = measured(truth_m, 50, 15, seed)
    fit = fit_alignment(depth, depth.values_hw.reshape(-1)[places], metres)
    assert fit is not None
    assert fit.is_sound
    # A wrong point may happen to be right; most are seen through.
    assert 30 <= fit.inliers <= 40
    metric_m = fit.alignment.applied(depth).metres()
    assert np.median(metric_m / truth_m) == pytest.approx(1, abs=0.03)
    assert np.percentile(np.abs(metric_m / truth_m - 1), 90) < 0.05
    assert fit.error < 0.05


def test_the_error_is_that_of_repeated_measurements() -> None:
    """The claimed standard error against the spread over many draws of the noise."""
    truth_m = tilted_room()
    depth = DepthMap(truth_m / 2, DepthKind.RELATIVE)
    scales, errors = [], []
    for seed in range(200):
        places, metres = measured(truth_m, 50, 0, seed)
        fit = fit_alignment(depth, depth.values_hw.reshape(-1)[places], metres)
        assert fit is not None
        scales.append(fit.alignment.scale)
        errors.append(fit.error)
    assert np.std(scales) / 2 == pytest.approx(np.mean(errors), rel=0.3)


def test_no_evidence_gives_no_fit() -> None:
    depth = DepthMap(tilted_room(), DepthKind.RELATIVE_INVERSE)
    few = np.arange(1.0, 8.0)
    assert fit_alignment(depth, few, few) is None
    nothing = np.full(50, np.nan)
    assert fit_alignment(depth, nothing, np.ones(50)) is None
    assert fit_alignment(depth, np.ones(50), -np.ones(50)) is None
    # All at one depth: any slope will do.
    assert fit_alignment(depth, np.full(50, 0.5), np.full(50, 2.0)) is None
    # Farther where the model says nearer: not this model's frame.
    values = np.linspace(0.1, 1, 50)
    assert fit_alignment(depth, values, values * 5) is None
    empty = DepthMap(np.full((60, 80), np.nan, np.float32), DepthKind.RELATIVE)
    assert fit_alignment(empty, np.ones(50), np.ones(50)) is None


def test_a_crowd_without_a_majority_is_not_sound() -> None:
    rng = np.random.default_rng(0)
    depth = DepthMap(tilted_room(), DepthKind.RELATIVE)
    values = depth.values_hw.reshape(-1)[:60]
    fit = fit_alignment(depth, values, values * np.exp(rng.uniform(-2, 2, 60)))
    assert fit is None or not fit.is_sound or fit.error > 0.05


def test_alignments_in_closed_form() -> None:
    inverse = Alignment(DepthKind.RELATIVE_INVERSE, 0.5, -0.1)
    np.testing.assert_allclose(
        inverse.metres(np.array([1.2, 0.4, 0.2, np.nan])), [2.0, 10.0, np.nan, np.nan], rtol=1e-6
    )
    relative = Alignment(DepthKind.RELATIVE, 3.0)
    np.testing.assert_allclose(relative.metres(np.array([2.0, 0.0, -1.0])), [6.0, np.nan, np.nan])


def fit_of(scale: float, error: float = 0.01, inliers: int = 40) -> Fit:
    return Fit(Alignment(DepthKind.RELATIVE, scale), error, 1.0, 3.0, inliers, 50)


def test_noise_is_averaged_and_a_jump_followed_at_once() -> None:
    rng = np.random.default_rng(1)
    tracker, followed = ScaleTracker(), []
    noisy = 2.0 * np.exp(rng.normal(0, 0.02, 60))
    for index, scale in enumerate(noisy):
        tracker.update(fit_of(scale, error=0.02), index / 30)
        alignment = tracker.current(index / 30)
        assert alignment is not None
        followed.append(alignment.scale)
    assert np.std(followed[10:]) < 0.5 * np.std(noisy)
    assert np.mean(followed[10:]) == pytest.approx(2.0, rel=0.01)
    tracker.update(fit_of(3.0), 2.0)
    jumped = tracker.current(2.0)
    assert jumped is not None
    assert jumped.scale == 3.0


def test_until_it_is_sure_there_is_no_scale() -> None:
    tracker = ScaleTracker()
    assert tracker.current(0.0) is None
    tracker.update(fit_of(2.0, inliers=20), 0.0)  # fewer than half agree
    tracker.update(fit_of(2.0, error=0.5), 0.0)
    assert tracker.current(0.0) is None
    for index in range(6):  # none is good enough alone
        tracker.update(fit_of(2.0, error=0.1), index / 30)
        assert (tracker.current(index / 30) is None) == (index < 4)
    assert tracker.current(1.0) is not None
    assert tracker.current(9.0) is None, "nothing came for seconds"
    assert tracker.current(-1.0) is None, "the clock went back"
    tracker.update(fit_of(2.0), 9.0)
    tracker.forget()
    assert tracker.current(9.0) is None
