"""The numbered things of a frame as answers are compared with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dense_perception.core.boxes import boxes_around

NAMELESS = -1
"""The label of a thing of no class: it counts neither for nor against a model."""


@dataclass(frozen=True, slots=True, eq=False)
class TrueThings:
    """The k things in view: ``rows_hw`` int32 is 0 for none and row + 1 of the thing at a pixel,
    ``labels_k`` int64 counts classes from 0, ``boxes_k4`` float64 are around their pixels, of which
    there are ``pixels_k``, float64."""

    rows_hw: np.ndarray
    labels_k: np.ndarray
    boxes_k4: np.ndarray
    pixels_k: np.ndarray

    def __len__(self) -> int:
        return len(self.labels_k)


def true_things(instances_hw: np.ndarray, instance_labels: Mapping[int, int]) -> TrueThings:
    """
    :param instances_hw: (H, W) unsigned whole numbers, 0 for no thing.
    :param instance_labels: the class of each from 1 on; 0, or none at all, is :data:`NAMELESS`.
    """
    pixels = np.bincount(instances_hw.ravel(), minlength=1)
    numbers = np.flatnonzero(pixels[1:]) + 1
    rows = np.zeros(len(pixels), np.int32)
    rows[numbers] = np.arange(1, len(numbers) + 1)
    rows_hw = rows[instances_hw]
    labels = [instance_labels.get(number, 0) - 1 for number in numbers.tolist()]
    return TrueThings(
        rows_hw,
        np.array(labels, np.int64),
        boxes_around(rows_hw, len(numbers)),
        pixels[numbers].astype(np.float64),
    )
