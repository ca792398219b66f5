"""Depth metrics against loops written from their definitions, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dense_perception.core.errors import InputError
from dense_perception.metrics import depth as metrics


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    true = rng.uniform(0.5, 8, (12, 17))
    predicted = true * rng.uniform(0.6, 1.7, true.shape)
    true[0, 0], true[1, 1], true[2, 2] = 0, np.nan, np.inf
    predicted[3, 3], predicted[4, 4] = np.nan, 0
    return predicted, true


def counted(predicted: np.ndarray, true: np.ndarray) -> list[tuple[float, float]]:
    pairs = zip(predicted.ravel().tolist(), true.ravel().tolist(), strict=True)
    return [(p, t) for p, t in pairs if math.isfinite(p) and math.isfinite(t) and p > 0 and t > 0]


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def test_every_metric_equals_its_definition(pair: tuple[np.ndarray, np.ndarray]) -> None:
    pixels = counted(*pair)
    logs = [math.log(p) - math.log(t) for p, t in pixels]
    expected = {
        "abs_rel": mean([abs(p - t) / t for p, t in pixels]),
        "sq_rel": mean([(p - t) ** 2 / t for p, t in pixels]),
        "rmse": math.sqrt(mean([(p - t) ** 2 for p, t in pixels])),
        "log10": mean([abs(math.log10(p) - math.log10(t)) for p, t in pixels]),
        "silog": 100 * math.sqrt(mean([d * d for d in logs]) - mean(logs) ** 2),
        "d1": mean([max(p / t, t / p) < 1.25 for p, t in pixels]),
        "d2": mean([max(p / t, t / p) < 1.25**2 for p, t in pixels]),
        "d3": mean([max(p / t, t / p) < 1.25**3 for p, t in pixels]),
        "coverage": (12 * 17 - 5) / (12 * 17 - 3),
    }
    got = metrics.evaluate(*pair)
    assert {name: got[name] for name in expected} == pytest.approx(expected, rel=1e-12)


def test_alignment_undoes_any_scale_and_shift_of_inverse_depth() -> None:
    true = np.random.default_rng(0).uniform(0.5, 8, (20, 30))
    predicted = 1 / (0.37 / true + 0.05)
    aligned = metrics.align_scale_shift(predicted, true)
    np.testing.assert_allclose(aligned, true, rtol=1e-10)
    assert metrics.evaluate(predicted, true)["aligned_abs_rel"] < 1e-10
    assert metrics.evaluate(predicted, true)["abs_rel"] > 0.1


def test_alignment_equals_numpys_least_squares(pair: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, true = pair
    pixels = np.array(counted(predicted, true))
    design = np.column_stack([1 / pixels[:, 0], np.ones(len(pixels))])
    (scale, shift), *_ = np.linalg.lstsq(design, 1 / pixels[:, 1], rcond=None)
    aligned = metrics.align_scale_shift(predicted, true, max_m=100)
    usable = np.isfinite(predicted) & (predicted > 0)
    expected = 1 / np.maximum(scale / predicted[usable] + shift, 1 / 100)
    np.testing.assert_allclose(aligned[usable], expected, rtol=1e-9)
    assert np.isnan(aligned[~usable]).all()


def test_aligned_inverse_depth_below_the_limit_is_the_limit() -> None:
    true = np.array([[1.0, 2.0, 4.0, 0.0]])
    predicted = np.array([[1.0, 2.0, 4.0, 1e9]])
    shifted = 1 / (1 / predicted - 0.1)  # the last pixel's inverse depth is negative: no depth
    aligned = metrics.align_scale_shift(predicted, shifted * (true > 0), max_m=9.0)
    assert aligned[0, 3] == pytest.approx(9.0)
    assert metrics.align_scale_shift(predicted, shifted * (true > 0))[0, 3] == pytest.approx(
        shifted[0, 2]
    )


def test_a_constant_prediction_aligns_to_the_mean_inverse_depth() -> None:
    true = np.array([[1.0, 2.0, 4.0]])
    aligned = metrics.align_scale_shift(np.full((1, 3), 3.3), true)
    np.testing.assert_allclose(aligned, 3 / (1 + 0.5 + 0.25), rtol=1e-9)


def test_nothing_measured_is_nan_and_is_left_out_of_the_average() -> None:
    empty = metrics.evaluate(np.ones((2, 2)), np.zeros((2, 2)))
    assert all(math.isnan(value) for value in empty.values())
    full = metrics.evaluate(np.full((2, 2), 2.0), np.ones((2, 2)))
    assert metrics.average([empty, full])["abs_rel"] == 1.0
    assert metrics.average([]) == {}


def test_shapes_must_agree() -> None:
    with pytest.raises(InputError, match="resize"):
        metrics.abs_rel(np.ones((2, 2)), np.ones((2, 3)))
