"""Metrics of normals and gray maps against loops and hand-made values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dense_perception.core.errors import InputError
from dense_perception.metrics.dense import Confusion, mean_absolute_error, normal_figures


def test_angles_of_known_vectors() -> None:
    true = np.tile(np.float32([0, 0, -1]), (1, 5, 1))
    angles = (0, 10, 20, 29, 90)
    predicted = np.float32([[(math.sin(a), 0, -math.cos(a)) for a in np.radians(angles)]])
    got = normal_figures(predicted, true)
    assert got["mean_deg"] == pytest.approx(sum(angles) / 5, abs=0.01)
    assert got["median_deg"] == pytest.approx(20, abs=0.01)
    shares = [got[f"within_{name}"] for name in ("11", "22", "30")]
    assert shares == pytest.approx([0.4, 0.6, 0.8])
    true[0, 4] = np.nan
    assert normal_figures(predicted, true)["mean_deg"] == pytest.approx(59 / 4, abs=0.01)


def test_nothing_to_count_is_nan_and_shapes_must_agree() -> None:
    unknown = np.full((2, 2, 3), np.nan, np.float32)
    assert math.isnan(normal_figures(unknown, unknown)["within_30"])
    assert math.isnan(mean_absolute_error(unknown, unknown))
    assert mean_absolute_error(np.float32([1, 2]), np.float32([0.5, np.nan])) == 0.5
    for call in (normal_figures, mean_absolute_error):
        with pytest.raises(InputError, match="shape"):
            call(unknown, unknown[:1])


def test_equal_normals_are_no_angle_apart_even_in_float32() -> None:
    vectors = np.random.default_rng(1).standard_normal((40, 50, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    best = normal_figures(vectors, vectors.copy())
    assert best == {name: float(not name.endswith("deg")) for name in best}
    # Two independent directions are 90 degrees apart on average, and near by chance only.
    others = np.random.default_rng(2).permutation(vectors.reshape(-1, 3)).reshape(vectors.shape)
    chance = normal_figures(vectors, others)
    assert chance["mean_deg"] == pytest.approx(90, abs=3)
    assert chance["within_30"] == pytest.approx((1 - math.cos(math.radians(30))) / 2, abs=0.02)


def test_counts_by_hand_and_their_sparse_form() -> None:
    confusion = Confusion(3)
    confusion.add(np.array([[0, 0, 1, 2, 7, 1]]), np.array([[0, 1, 1, 9, 0, 1]]))
    assert confusion.sparse() == {(0, 0): 1, (0, 3): 1, (1, 0): 1, (1, 1): 2}
    assert confusion.pixel_accuracy == pytest.approx(3 / 5)
    assert confusion.iou[:2] == pytest.approx([1 / 3, 2 / 3])
    assert math.isnan(confusion.iou[2])
    assert confusion.mean_iou == pytest.approx(0.5)
