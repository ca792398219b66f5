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


def test_every_kind_of_every_error_equals_its_definition(
    pair: tuple[np.ndarray, np.ndarray],
) -> None:
    predicted, true = pair
    got = metrics.depth_figures(predicted, true)
    pixels = np.array(counted(predicted, true))
    scale = float(np.median(pixels[:, 0]) / np.median(pixels[:, 1]))
    aligned = metrics.align_scale_shift(predicted, true)
    kinds = {"metric": predicted, "scaled": predicted / scale, "aligned": aligned}
    for kind, answer in kinds.items():
        pairs = counted(answer, true)
        logs = [math.log(p) - math.log(t) for p, t in pairs]
        expected = {
            "absrel": mean([abs(p - t) / t for p, t in pairs]),
            "sqrel": mean([(p - t) ** 2 / t for p, t in pairs]),
            "rmse": math.sqrt(mean([(p - t) ** 2 for p, t in pairs])),
            "rmselog": math.sqrt(mean([d * d for d in logs])),
            "log10": mean([abs(math.log10(p) - math.log10(t)) for p, t in pairs]),
            "silog": 100 * math.sqrt(mean([d * d for d in logs]) - mean(logs) ** 2),
            **{f"d{n}": mean([max(p / t, t / p) < 1.25**n for p, t in pairs]) for n in (1, 2, 3)},
        }
        assert {name: got[f"{kind}.{name}"] for name in metrics.ERRORS} == pytest.approx(
            expected, rel=1e-9
        )
    assert got["scale"] == pytest.approx(scale, rel=1e-12)
    assert len(got) == 3 * len(metrics.ERRORS) + 2


def test_a_frame_of_four_pixels_by_hand() -> None:
    true = np.array([[1.0, 2.0, 4.0, 0.0]])
    predicted = np.array([[1.25, 2.0, 2.0, 9.0]])
    got = metrics.depth_figures(predicted, true, kinds=("metric", "scaled"))
    log = math.log(1.25), 0.0, -math.log(2)
    expected = {
        "absrel": 0.25, "sqrel": (0.0625 + 0 + 1) / 3, "rmse": math.sqrt((0.0625 + 4) / 3),
        "rmselog": math.sqrt((log[0] ** 2 + log[2] ** 2) / 3),
        "log10": (math.log10(1.25) + math.log10(2)) / 3, "silog": 100 * float(np.std(log)),
        "d1": 1 / 3, "d2": 2 / 3, "d3": 2 / 3,
    }  # fmt: skip
    assert {name: got[f"metric.{name}"] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert got["scale"] == got["coverage"] == 1
    assert got["scaled.absrel"] == got["metric.absrel"]


def test_float32_agrees_with_float64_to_a_millionth() -> None:
    rng = np.random.default_rng(9)
    true = rng.uniform(0.3, 12, (240, 320)).astype(np.float32)
    predicted = (true * rng.lognormal(0.1, 0.3, true.shape)).astype(np.float32)
    small = metrics.depth_figures(predicted, true)
    large = metrics.depth_figures(predicted.astype(float), true.astype(float))
    assert small == pytest.approx(large, rel=2e-6)


def test_perfect_is_perfect_and_shuffled_is_no_better_than_a_constant() -> None:
    rng = np.random.default_rng(4)
    true = rng.lognormal(1, 0.5, (60, 80)).astype(np.float32)
    best = metrics.depth_figures(true, true)
    for name, value in best.items():
        good = 1 if name.endswith(("d1", "d2", "d3", "scale", "coverage")) else 0
        assert value == pytest.approx(good, abs=1e-5), name
    shuffled = metrics.depth_figures(rng.permutation(true.ravel()).reshape(true.shape), true)
    constant = metrics.depth_figures(np.full_like(true, np.median(true)), true)
    for name in ("metric.absrel", "metric.silog", "scaled.rmse"):
        assert shuffled[name] > constant[name]
    # The fit sees that they have nothing to do with each other.
    assert shuffled["aligned.silog"] == pytest.approx(constant["aligned.silog"], rel=0.02)


def test_scaled_and_aligned_see_no_scale() -> None:
    rng = np.random.default_rng(5)
    true = rng.uniform(1, 5, (20, 20))
    predicted = true * rng.uniform(0.9, 1.1, true.shape)
    one, seven = (metrics.depth_figures(k * predicted, true) for k in (1.0, 7.0))
    assert seven["scale"] == pytest.approx(7 * one["scale"])
    for name in metrics.ERRORS:
        for kind in ("scaled", "aligned"):
            assert seven[f"{kind}.{name}"] == pytest.approx(one[f"{kind}.{name}"], rel=1e-9)


def test_shapes_must_agree() -> None:
    with pytest.raises(InputError, match="resize"):
        metrics.abs_rel(np.ones((2, 2)), np.ones((2, 3)))
