"""Depth metrics against loops written from their definitions, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dense_perception.core.camera import Intrinsics
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


def slanted(angle_deg: float) -> tuple[np.ndarray, Intrinsics]:
    """Depth of a plane turned about the vertical by an angle, seen by a level camera."""
    camera = Intrinsics.from_fov(64, 48, 60)
    x = (np.arange(64)[None] - camera.cx) / camera.fx
    depth = 2.0 / (1 + x * math.tan(math.radians(angle_deg)))
    return np.repeat(depth, 48, axis=0), camera


def test_normals_of_the_depth_see_the_angle_between_planes() -> None:
    true, camera = slanted(10)
    for angle in (10.0, 25.0, -20.0):
        found = metrics.depth_normals(3 * slanted(angle)[0], true, camera)
        assert found["depth_normals_median_deg"] == pytest.approx(abs(angle - 10), abs=1e-5)
        assert found["depth_normals_mean_deg"] == pytest.approx(abs(angle - 10), abs=1e-5)
    empty = metrics.depth_normals(true, np.zeros_like(true), camera)
    assert math.isnan(empty["depth_normals_median_deg"])


def test_edges_count_what_is_made_within_four_pixels() -> None:
    true = np.full((30, 40), 2.0)
    true[:, 20:] = 4.0
    assert metrics.edge_share(true, true) == pytest.approx(1)
    assert metrics.edge_share(np.full((30, 40), 3.0), true) == 0
    # A ramp in log depth over twelve steps makes a quarter of it in three.
    ramp = np.clip((np.arange(40) - 13.5) / 12, 0, 1)
    blurred = np.repeat(2 * 2 ** ramp[None], 30, axis=0)
    assert metrics.edge_share(blurred, true) == pytest.approx(0.25, abs=1e-6)
    assert metrics.edge_share(blurred.T, true.T) == pytest.approx(0.25, abs=1e-6)
    assert math.isnan(metrics.edge_share(true, np.full((30, 40), 2.0)))
