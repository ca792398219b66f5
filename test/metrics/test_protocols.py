"""Crops and ranges of the benchmarks, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dense_perception.core.errors import InputError
from dense_perception.metrics.protocols import CROPS, KITTI, NYU, Protocol, crop_slices


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("garg", (375, 1242), (153, 371, 44, 1197)),
        ("eigen_kitti", (375, 1242), (124, 342, 44, 1197)),
        ("eigen_nyu", (480, 640), (45, 471, 41, 601)),
        ("eigen_nyu", (240, 320), (22, 235, 20, 300)),
    ],
)
def test_crops_in_pixels(
    name: str, size: tuple[int, int], expected: tuple[int, int, int, int]
) -> None:
    rows, columns = crop_slices(name, *size)
    assert (rows.start, rows.stop, columns.start, columns.stop) == expected


def test_truth_outside_counts_no_more() -> None:
    true = np.full((480, 640), 3.0, np.float32)
    true[100, 100:104] = 0, np.nan, 10, 10.5
    kept = NYU.truth(true)
    assert kept.dtype == np.float32
    assert np.isfinite(kept).sum() == 426 * 560 - 3
    assert kept[100, 102] == 10
    assert np.isnan(kept[44, 300])
    assert true[44, 300] == 3
    np.testing.assert_array_equal(Protocol().truth(true)[100, 100:104], true[100, 100:104])


def test_predictions_are_limited_where_the_authors_limit_them() -> None:
    predicted = np.float32([[0, 5, 200, np.nan]])
    np.testing.assert_array_equal(KITTI.answer(predicted), np.float32([[1e-3, 5, 80, np.nan]]))
    np.testing.assert_array_equal(Protocol(max_m=3).answer(predicted), predicted)


def test_an_unknown_crop_or_an_empty_range_is_refused() -> None:
    with pytest.raises(InputError, match=", ".join(CROPS)):
        Protocol("nyu")
    with pytest.raises(InputError, match="from 5 to 2 m"):
        Protocol(min_m=5, max_m=2)
