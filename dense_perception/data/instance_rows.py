"""The things of a view as training takes them: numbered from 1 on, with a list of their classes."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

MOST_ROWS = 100
"""Things of a view that are learnt, the largest; batches stack lists of this length."""
NOBODY = 255
"""Class of a row without a thing, or with one that counts neither for nor against a model."""
UNNUMBERED = 65535
"""Number, of class 0, of all pixels of things that have none; see
:mod:`dense_perception.data.unnumbered`. They are in the last row of a list."""


def instance_rows(
    instances_hw: np.ndarray, labels: Mapping[int, int], stuff: Collection[int] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Row + 1 of the thing at each pixel, int32 (H, W), and the class of each row, int64.

    Things too many for the list are taken together in its last row, which nobody is to learn, and
    so is what has the number :data:`UNNUMBERED`.

    :param instances_hw: whole numbers, 0 for no thing.
    :param labels: the class of each instance, from 1 on; 0 does not count.
    :param stuff: classes, from 1 on, whose instances are none.
    """
    classes_k = np.full(MOST_ROWS, NOBODY, np.int64)
    numbers, flat, sizes = np.unique(instances_hw, return_inverse=True, return_counts=True)
    rows = np.zeros(len(numbers), np.int32)
    found = [
        index
        for index, number in enumerate(numbers.tolist())
        if number and labels.get(number, 0) not in stuff
    ]
    # What has no number comes last, even where rows before it are free.
    region = [i for i in found if numbers[i] == UNNUMBERED and not labels.get(UNNUMBERED, 0)]
    found = [i for i in found if i not in region]
    found.sort(key=lambda index: -sizes[index])
    shared = bool(region) or len(found) > MOST_ROWS
    for row, index in enumerate(found):
        rows[index] = min(row, MOST_ROWS - 1) + 1
        label = labels.get(int(numbers[index]), 0)
        if label and (row < MOST_ROWS - 1 or not shared):
            classes_k[row] = label - 1
    rows[region] = MOST_ROWS
    return rows[flat].reshape(instances_hw.shape), classes_k


def unknown_rows(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Of a view whose things are not known: it is no background either."""
    return np.ones((height, width), np.int32), np.full(MOST_ROWS, NOBODY, np.int64)
