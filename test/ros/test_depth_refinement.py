"""The limits of depth, against a comparison number by number."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from dense_perception.core.prediction import DepthKind, DepthMap
from dense_perception.ros.camera import limited

INSIDE = [0.5, 0.5000001, 1.0, 3.7, 7.9999995, 8.0]
OUTSIDE = [0.49999997, 8.000001, 0.0, -1.0, math.inf, -math.inf, math.nan]


@pytest.mark.parametrize("outside", [[], *([each] for each in OUTSIDE), OUTSIDE])
def test_what_is_outside_becomes_invalid_and_nothing_else_changes(outside: list[float]) -> None:
    values_hw = np.array([INSIDE + outside] * 3, np.float32)
    before_hw = values_hw.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        depth = limited(DepthMap(values_hw), 0.5, 8.0)
    for value, got in zip(before_hw.reshape(-1).tolist(), depth.metres().reshape(-1), strict=True):
        if 0.5 <= value <= 8.0:
            assert got == np.float32(value)
        else:
            assert np.isnan(got)
    # What the model gave may be in use elsewhere.
    np.testing.assert_array_equal(values_hw, before_hw)


def test_a_limit_is_rounded_like_the_depths() -> None:
    # 0.1 as float32 is a little more than 0.1: a pixel at either limit counts as inside.
    values_hw = np.array([[0.1, 0.3, np.nan]], np.float32)
    depth = limited(DepthMap(values_hw), 0.1, 0.3).metres()
    np.testing.assert_array_equal(depth, values_hw)


def test_numbers_that_are_no_metres_have_no_limits() -> None:
    depth = DepthMap(np.array([[0.0, 100.0]], np.float32), DepthKind.RELATIVE_INVERSE)
    assert limited(depth, 0.5, 8.0) is depth
