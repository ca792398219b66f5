"""The numbered things of a frame as answers are compared with them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from dense_perception.core.boxes import boxes_around
from dense_perception.core.labels import VOID
from dense_perception.data.unnumbered import parts_of, unnumbered_pixels

NAMELESS = -1
"""The label of a thing of no class: it counts neither for nor against a model."""

UNNUMBERED_NOTE = "pixels of things without a number are void: what is found there does not count"


@dataclass(frozen=True, slots=True, eq=False)
class TrueThings:
    """The k things in view: ``rows_hw`` int32 is 0 for none and row + 1 of the thing at a pixel,
    ``labels_k`` int64 counts classes from 0, ``boxes_k4`` float64 are around their pixels, of which
    there are ``pixels_k``, float64. ``void_k`` bool are none to be found: those of no class, and
    parts of things without a number, as crowds of their class."""

    rows_hw: np.ndarray
    labels_k: np.ndarray
    boxes_k4: np.ndarray
    pixels_k: np.ndarray
    void_k: np.ndarray

    def __len__(self) -> int:
        return len(self.labels_k)


def true_things(
    instances_hw: np.ndarray,
    instance_labels: Mapping[int, int],
    labels_hw: np.ndarray | None = None,
    things: Collection[int] = (),
) -> TrueThings:
    """
    :param instances_hw: (H, W) unsigned whole numbers, 0 for no thing.
    :param instance_labels: the class of each from 1 on; 0, or none at all, is :data:`NAMELESS`.
    :param labels_hw: classes from 0 on, VOID for none; of another size they say nothing.
    :param things: the classes, from 0 on, whose pixels without a number are void.
    """
    pixels = np.bincount(instances_hw.ravel(), minlength=1)
    numbers = np.flatnonzero(pixels[1:]) + 1
    rows = np.zeros(len(pixels), np.int32)
    rows[numbers] = np.arange(1, len(numbers) + 1)
    rows_hw = rows[instances_hw]
    labels = [instance_labels.get(number, 0) - 1 for number in numbers.tolist()]
    numbered = len(labels)
    if labels_hw is not None and labels_hw.shape == rows_hw.shape:
        known = [label for label in things if label != VOID]
        void_hw = unnumbered_pixels(instances_hw, labels_hw, known)
        if void_hw.any():
            parts_hw, classes = parts_of(void_hw, labels_hw)
            rows_hw = rows_hw + np.where(parts_hw > 0, parts_hw + numbered, 0).astype(np.int32)
            labels += classes
    labels_k = np.array(labels, np.int64)
    return TrueThings(
        rows_hw,
        labels_k,
        boxes_around(rows_hw, len(labels)),
        np.bincount(rows_hw.ravel(), minlength=len(labels) + 1)[1:].astype(np.float64),
        (labels_k == NAMELESS) | (np.arange(len(labels)) >= numbered),
    )
