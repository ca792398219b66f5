"""Baselines and slices of depth, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dense_perception.metrics.baselines import RowPrior
from dense_perception.metrics.slices import distance_names, distance_place, sliced_errors


def test_the_prior_of_frames_that_are_rows_is_exact() -> None:
    depth = np.linspace(4, 1, 240, dtype=np.float32).reshape(240, 1).repeat(7, axis=1)
    depth = np.repeat(depth[::2], 2, axis=0)  # pairs of rows, as the prior's 120 are
    depth[17, 3] = np.nan
    prior = RowPrior()
    prior.add(depth)
    prior.add(depth[:, :3])
    by_row = prior.by_row(120, 5)
    np.testing.assert_allclose(by_row, depth[::2, :1].repeat(5, axis=1), rtol=1e-6)
    assert by_row.dtype == np.float32
    inverse = np.concatenate([1 / depth.ravel(), 1 / depth[:, :3].ravel()])
    assert prior.constant(2, 3) == pytest.approx(1 / np.nanmean(inverse), rel=1e-6)


def test_rows_that_nobody_measured_are_as_their_nearest() -> None:
    prior = RowPrior()
    assert np.isnan(prior.by_row(4, 4)).all()
    assert np.isnan(prior.constant(4, 4)).all()
    depth = np.full((120, 4), 3.0)
    depth[:100] = 0
    prior.add(depth)
    np.testing.assert_allclose(prior.by_row(48, 2), 3)


def test_slices_by_distance_and_class() -> None:
    true = np.array([[0.2, 0.5, 1.0, 2.99, 3.0, 79.9, 80.0, 500.0, 0.0, np.nan]])
    names = distance_names()
    placed = [names[p] if p >= 0 else "" for p in distance_place(true)[0]]
    expected = ["0-0.5", "0.5-1", "1-1.5", "2-3", "3-4", "40-80", "80-inf", "80-inf", "", ""]
    assert placed == expected
    predicted = 1.5 * true
    predicted[0, 1] = np.nan
    found = sliced_errors(predicted, true, np.array([[0, 0, 1, 1, 1, 7, 0, -1, 0, 0]]), 2)
    assert found["pixels"].tolist() == [2, 3]
    assert found["absrel"] == pytest.approx([1, 1.5])
    assert found["scale"] == pytest.approx([3, 4.5])
    assert found["d1"].tolist() == [0, 0]
