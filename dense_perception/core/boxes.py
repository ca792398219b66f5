"""Boxes x1, y1, x2, y2 in pixels, measured from the left and upper edge of the first pixel."""

from __future__ import annotations

import numpy as np


def areas(boxes_n4: np.ndarray) -> np.ndarray:
    """(n,) ``float64``; 0 for a box that ends before it begins."""
    sides_n2 = np.maximum(boxes_n4[:, 2:].astype(np.float64) - boxes_n4[:, :2], 0)
    return np.asarray(sides_n2[:, 0] * sides_n2[:, 1])


def overlaps(first_n4: np.ndarray, second_m4: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair, (n, m) ``float64``; 0 where the union is empty."""
    first, second = first_n4.astype(np.float64), second_m4.astype(np.float64)
    low_nm2 = np.maximum(first[:, None, :2], second[None, :, :2])
    high_nm2 = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared_nm = np.maximum(high_nm2 - low_nm2, 0).prod(axis=2)
    union_nm = areas(first)[:, None] + areas(second)[None] - shared_nm
    return np.divide(shared_nm, union_nm, out=np.zeros_like(shared_nm), where=union_nm > 0)
