"""Metrics of normals and gray maps against loops and hand-made values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dense_perception.core.errors import InputError
from dense_perception.metrics.dense import (
    mean_absolute_error,
    normal_metrics,
)


def test_angles_of_known_vectors() -> None:
    true = np.tile(np.float32([0, 0, -1]), (1, 5, 1))
    angles = (0, 10, 20, 29, 90)
    predicted = np.float32([[(math.sin(a), 0, -math.cos(a)) for a in np.radians(angles)]])
    got = normal_metrics(predicted, true)
    assert got["normals_mean_deg"] == pytest.approx(sum(angles) / 5, abs=0.01)
    assert got["normals_median_deg"] == pytest.approx(20, abs=0.01)
    shares = [got[f"normals_below_{name}"] for name in ("11_25", "22_5", "30")]
    assert shares == pytest.approx([0.4, 0.6, 0.8])
    true[0, 4] = np.nan
    assert normal_metrics(predicted, true)["normals_mean_deg"] == pytest.approx(59 / 4, abs=0.01)


def test_nothing_to_count_is_nan_and_shapes_must_agree() -> None:
    unknown = np.full((2, 2, 3), np.nan, np.float32)
    assert math.isnan(normal_metrics(unknown, unknown)["normals_below_30"])
    assert math.isnan(mean_absolute_error(unknown, unknown))
    assert mean_absolute_error(np.float32([1, 2]), np.float32([0.5, np.nan])) == 0.5
    for call in (normal_metrics, mean_absolute_error):
        with pytest.raises(InputError, match="shape"):
            call(unknown, unknown[:1])
