"""What a network that finds things by their centres is trained towards (Cheng 2020, 3.2)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

SMALLEST_PX = 24
"""A thing of fewer pixels has no centre: it is too small to be found, and not held against one."""
# The bump around a centre, in shares of the thing's size, and its bounds in pixels: narrow ones, so
# that a large thing weighs a few times as much as a small one, and not thirty times.
_SIGMA = 0.12
_SIGMA_PX = (2.0, 4.0)


def centre_targets(
    instances_hw: np.ndarray, labels: Mapping[int, int], stuff: Collection[int] = ()
) -> np.ndarray:
    """(H, W, 3) float32: the height of centres, and the rows and columns from each pixel to that of
    its thing, in pixels.

    NaN is unknown: the height within things that do not count (those of class 0 and the smallest),
    and the distances wherever there is no thing.

    :param labels: the class of each instance, from 1 on; 0 does not count.
    :param stuff: classes, from 1 on, whose instances are none.
    """
    shape = instances_hw.shape
    heights = np.zeros(shape, np.float32)
    down, right = (np.full(shape, np.nan, np.float32) for _ in range(2))
    unknown = np.zeros(shape, bool)
    flat = instances_hw.ravel()
    order = np.argsort(flat, kind="stable")
    numbers, starts = np.unique(flat[order], return_index=True)
    for number, places in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
        label = labels.get(number, 0)
        if number == 0 or label in stuff:
            continue
        rows, columns = np.divmod(places, shape[1])
        if label == 0 or len(places) < SMALLEST_PX:
            unknown[rows, columns] = True
            continue
        row, column = float(rows.mean()), float(columns.mean())
        down[rows, columns] = row - rows
        right[rows, columns] = column - columns
        _raise_bump(heights, row, column, len(places))
    heights[unknown] = np.nan
    return np.stack([heights, down, right], axis=-1)


def _raise_bump(heights_hw: np.ndarray, row: float, column: float, pixels: int) -> None:
    """A Gaussian of height 1 at the centre, where nothing is higher yet."""
    sigma = float(np.clip(_SIGMA * np.sqrt(pixels), *_SIGMA_PX))
    reach = int(np.ceil(3 * sigma))
    top, left = max(0, round(row) - reach), max(0, round(column) - reach)
    part = heights_hw[top : round(row) + reach + 1, left : round(column) + reach + 1]
    rows, columns = np.ogrid[top : top + part.shape[0], left : left + part.shape[1]]
    bump = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * sigma**2))
    np.maximum(part, bump, out=part, casting="same_kind")
