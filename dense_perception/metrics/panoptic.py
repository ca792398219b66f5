"""Panoptic quality (Kirillov 2019, arXiv:1801.00868), as COCO's panopticapi counts it.

A found segment is a true one if both are of one class and share more than half of their union;
then no other pair of either can. PQ = SQ x RQ: SQ is the mean overlap of the pairs, RQ the F1 of
finding them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dense_perception.core.errors import InputError

UNSEGMENTED = 0
"""The id of pixels without a segment: void in the truth, nothing said in an answer."""


@dataclass(frozen=True)
class Segments:
    """A picture cut into segments, each pixel in one of them or in none.

    ``ids_hw`` are whole numbers, ``classes`` the class of each id; :data:`UNSEGMENTED` has none.
    ``crowds`` are the ids of regions that hold several things of a class, in a truth only.
    """

    ids_hw: np.ndarray
    classes: Mapping[int, int]
    crowds: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Quality:
    """Shares of 0 to 1 as means over ``classes`` classes that occur; NaN where none does."""

    pq: float
    sq: float
    rq: float
    classes: int


class PanopticQuality:
    """Counts pairs, misses and false alarms by class, picture by picture."""

    def __init__(self, classes: int) -> None:
        self.overlap = np.zeros(classes, np.float64)
        self.found = np.zeros(classes, np.int64)
        self.false = np.zeros(classes, np.int64)
        self.missed = np.zeros(classes, np.int64)

    def add(self, predicted: Segments, true: Segments) -> None:
        """Count one picture.

        A found segment that is mostly void, or a crowd of its own class, counts nowhere. One
        without a pixel counts nowhere either; a true one without a pixel is missed.

        :raises InputError: if the sizes differ, an id has no class, or a class is out of range.
        """
        if predicted.ids_hw.shape != true.ids_hw.shape:
            raise InputError(
                f"the segments have shape {predicted.ids_hw.shape}, the truth "
                f"{true.ids_hw.shape}: resize one of them first"
            )
        ours, of_ours_hw = self._numbered(predicted, "found")
        theirs, of_theirs_hw = self._numbered(true, "true")
        # Row 0 is void, column 0 is pixels that nothing was said about.
        pairs = of_theirs_hw.astype(np.int64) * (len(ours) + 1) + of_ours_hw
        shared = np.bincount(pairs.ravel(), minlength=(len(theirs) + 1) * (len(ours) + 1))
        shared = shared.reshape(len(theirs) + 1, len(ours) + 1)
        areas_true, areas_found = shared.sum(1), shared.sum(0)
        taken_true: set[int | None] = set()
        taken_found: set[int] = set()
        for row, column in (np.argwhere(shared[1:, 1:]) + 1).tolist():
            label = true.classes[theirs[row - 1]]
            if theirs[row - 1] in true.crowds or predicted.classes[ours[column - 1]] != label:
                continue
            both = shared[row, column]
            union = areas_true[row] + areas_found[column] - both - shared[0, column]
            if both / union > 0.5:
                self.found[label] += 1
                self.overlap[label] += both / union
                taken_true.add(row)
                taken_found.add(column)
        rows = {number: row for row, number in enumerate(theirs, start=1)}
        crowds: dict[int, int | None] = {}
        for number, label in true.classes.items():
            if number in true.crowds:
                crowds[label] = rows.get(number)  # of several crowds of a class the last counts
            elif rows.get(number) not in taken_true:
                self.missed[label] += 1
        for column, number in enumerate(ours, start=1):
            if column in taken_found:
                continue
            label = predicted.classes[number]
            excused, crowd = shared[0, column], crowds.get(label)
            if crowd is not None:
                excused += shared[crowd, column]
            if not excused / areas_found[column] > 0.5:
                self.false[label] += 1

    def _numbered(self, segments: Segments, whose: str) -> tuple[list[int], np.ndarray]:
        """The ids that occur, sorted, and each pixel's place among them from 1; 0 is void."""
        present, inverse = np.unique(segments.ids_hw, return_inverse=True)
        ids = [int(number) for number in present if number != UNSEGMENTED]
        unknown = [number for number in ids if number not in segments.classes]
        if unknown:
            raise InputError(f"the {whose} segments {unknown[:5]} have no class")
        wrong = {n for n in segments.classes.values() if not 0 <= n < len(self.found)}
        if wrong:
            raise InputError(
                f"{whose} segments have the classes {sorted(wrong)[:5]}, expected 0 to "
                f"{len(self.found) - 1}"
            )
        places = np.searchsorted(np.array(ids, np.int64), present) + 1
        places[present == UNSEGMENTED] = 0
        return ids, places[inverse.reshape(segments.ids_hw.shape)]

    def by_class(self) -> np.ndarray:
        """(classes, 3): PQ, SQ and RQ of each; NaN for classes that neither occur nor are found."""
        weight = self.found + 0.5 * self.false + 0.5 * self.missed
        figures = np.full((len(weight), 3), np.nan)
        occurs = weight > 0
        np.divide(self.overlap, weight, out=figures[:, 0], where=occurs)
        figures[occurs, 1] = 0.0
        np.divide(self.overlap, self.found, out=figures[:, 1], where=self.found > 0)
        np.divide(self.found, weight, out=figures[:, 2], where=occurs)
        return figures

    def mean(self, among: Sequence[int] | None = None) -> Quality:
        """The mean over the classes ``among`` these that occur, by default all."""
        figures = self.by_class()
        figures = figures if among is None else figures[list(among)]
        figures = figures[np.isfinite(figures[:, 0])]
        if not len(figures):
            return Quality(float("nan"), float("nan"), float("nan"), 0)
        pq, sq, rq = (float(value) for value in figures.mean(axis=0))
        return Quality(pq, sq, rq, len(figures))
