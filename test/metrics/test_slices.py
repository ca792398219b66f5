"""Slices of depth, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dense_perception.metrics.slices import distance_names, distance_place, sliced_errors


def test_slices_by_distance_and_class() -> None:
    true = np.array([0.2, 0.5, 1.0, 2.99, 3.0, 79.9, 80.0, 500.0])
    names = distance_names()
    placed = [names[p] for p in distance_place(true)]
    assert placed == ["0-0.5", "0.5-1", "1-1.5", "2-3", "3-4", "40-80", "80-inf", "80-inf"]
    found = sliced_errors(1.5 * true, true, np.array([0, 7, 1, 1, 1, 7, 0, -1]), 2)
    assert found["pixels"].tolist() == [2, 3]
    assert found["absrel"] == pytest.approx([1, 1.5])
    assert found["scale"] == pytest.approx([3, 4.5])
    assert found["d1"].tolist() == [0, 0]
