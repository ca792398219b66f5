"""Boxes x1, y1, x2, y2 in pixels, measured from the left and upper edge of the first pixel."""

from __future__ import annotations

import numpy as np


def areas(boxes_n4: np.ndarray) -> np.ndarray:
    """(n,) ``float64``; 0 for a box that ends before it begins."""
    sides_n2 = np.maximum(boxes_n4[:, 2:].astype(np.float64) - boxes_n4[:, :2], 0)
    return np.asarray(sides_n2[:, 0] * sides_n2[:, 1])


def shared_areas(first_n4: np.ndarray, second_m4: np.ndarray) -> np.ndarray:
    """Area of the intersection of every pair, (n, m) ``float64``."""
    first, second = first_n4.astype(np.float64), second_m4.astype(np.float64)
    low_nm2 = np.maximum(first[:, None, :2], second[None, :, :2])
    high_nm2 = np.minimum(first[:, None, 2:], second[None, :, 2:])
    return np.asarray(np.maximum(high_nm2 - low_nm2, 0).prod(axis=2))


def overlaps(first_n4: np.ndarray, second_m4: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair, (n, m) ``float64``; 0 where the union is empty."""
    first, second = first_n4.astype(np.float64), second_m4.astype(np.float64)
    shared_nm = shared_areas(first, second)
    union_nm = areas(first)[:, None] + areas(second)[None] - shared_nm
    return np.divide(shared_nm, union_nm, out=np.zeros_like(shared_nm), where=union_nm > 0)


def boxes_around(rows_hw: np.ndarray, count: int) -> np.ndarray:
    """The smallest box around the pixels of each of ``count`` things, (count, 4) ``float64``.

    Its sides are the pixels' outer edges: one pixel at column x makes a box from x to x + 1. 0 for
    a thing without a pixel. ``nets.detection.boxes.boxes_around`` is the same rule for PyTorch.

    :param rows_hw: whole numbers, 0 for no thing, k for thing k - 1; larger ones do not count.
    """
    height, width = rows_hw.shape
    flat = rows_hw.ravel().astype(np.int64)
    (at,) = np.nonzero((flat > 0) & (flat <= count))
    numbers = flat[at] - 1
    sides = []
    for place, length in ((at % width, width), (at // width, height)):
        seen = np.zeros((count, length), bool)
        seen[numbers, place] = True
        low = seen.argmax(axis=1)
        high = length - seen[:, ::-1].argmax(axis=1)
        sides.append((low, np.where(seen.any(axis=1), high, 0)))
    (left, right), (top, bottom) = sides
    return np.stack([left, top, right, bottom], axis=1).astype(np.float64)
