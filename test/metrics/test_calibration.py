"""Reliability of the confidence, by hand and against a loop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dense_perception.core.errors import InputError
from dense_perception.metrics.calibration import BINS, Reliability, calibration_error, reliability


def naive(confidences: list[float], rights: list[bool]) -> float:
    total = 0.0
    for number in range(BINS):
        inside = [
            (c, r)
            for c, r in zip(confidences, rights, strict=True)
            if number / BINS < c <= (number + 1) / BINS or (number == 0 and c == 0)
        ]
        if inside:
            gap = sum(r for _, r in inside) - sum(c for c, _ in inside)
            total += abs(gap)
    return total / len(confidences)


def error(found: Reliability) -> float:
    return float(calibration_error(found.said, found.right, found.pixels))


def test_by_hand() -> None:
    found = reliability(np.array([0.9, 0.9, 0.9, 0.9, 0.1]), np.array([1, 1, 1, 0, 0], bool))
    assert error(found) == pytest.approx((4 * abs(0.75 - 0.9) + 0.1) / 5)
    # Sums of two frames add up.
    twice = Reliability(2 * found.said, 2 * found.right, 2 * found.pixels)
    assert error(twice) == pytest.approx(error(found))
    assert found.pixels.sum() == 5


def test_against_a_loop_for_bytes_and_floats() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.integers(0, 256, (30, 40)).astype(np.uint8)
    right = rng.random((30, 40)) < 0.7
    expected = naive((confidence / 255).ravel().tolist(), right.ravel().tolist())
    assert error(reliability(confidence, right)) == pytest.approx(expected, abs=1e-12)
    assert error(reliability(confidence / 255, right)) == pytest.approx(expected, abs=1e-12)


def test_an_honest_confidence_has_no_error_and_a_boaster_all_of_it() -> None:
    rng = np.random.default_rng(2)
    confidence = rng.random(200_000)
    honest = reliability(confidence, rng.random(200_000) < confidence)
    assert error(honest) == pytest.approx(0, abs=0.01)
    assert error(reliability(np.ones(7), np.zeros(7, bool))) == 1
    assert math.isnan(error(reliability(np.ones(0), np.zeros(0, bool))))
    with pytest.raises(InputError, match="shape"):
        reliability(np.ones(3), np.ones(4, bool))
