"""Sums by recording or block of time, and the figures that follow from them.

All that a figure needs adds up: numerators and denominators, and of labels the pixels by class.
So the figures of all frames, of one unit and of every resample come from the same few lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.evaluation.document import UnitSums
from dense_perception.evaluation.figures import IOU, RIGHT, SAID, figure
from dense_perception.evaluation.intervals import Units, weighted
from dense_perception.evaluation.score_table import Answers
from dense_perception.metrics.calibration import BINS, calibration_error

_HIT, _TRUE, _GIVEN = "labels.hit.", "labels.true.", "labels.given."
_BELOW = "#"  # the denominators of a column, in a report


@dataclass(frozen=True, slots=True)
class Column:
    """What each frame adds to a numerator and a denominator, float64 (frames,)."""

    above: np.ndarray
    below: np.ndarray

    @classmethod
    def of_values(cls, values: np.ndarray) -> Column:
        """Each frame counts once; NaN does not."""
        known = np.isfinite(values)
        return cls(np.where(known, values, 0), known.astype(np.float64))

    @classmethod
    def of_sums(cls, above: np.ndarray, below: np.ndarray) -> Column:
        """NaN counts as nothing."""
        known = np.isfinite(above) & np.isfinite(below)
        return cls(np.where(known, above, 0), np.where(known, below, 0))

    @property
    def counted(self) -> np.ndarray:
        """Which frames contribute."""
        return np.asarray(self.below > 0)

    def where(self, frames: np.ndarray) -> Column:
        """The column with nothing but ``frames``, bool (frames,)."""
        return Column(np.where(frames, self.above, 0), np.where(frames, self.below, 0))


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums of n units or resamples: ``above`` and ``below`` (n, columns) by ``names``; ``hit``,
    ``true`` and ``given`` (n, classes) pixels that are both, truly and by the answer of a class.
    """

    names: tuple[str, ...]
    above: np.ndarray
    below: np.ndarray
    classes: tuple[str, ...]
    hit: np.ndarray
    true: np.ndarray
    given: np.ndarray

    def whole(self) -> Totals:
        """The sum over all units, n = 1."""
        return self._mapped(lambda sums: sums.sum(0, keepdims=True))

    def drawn(self, weights: np.ndarray) -> Totals:
        """Of every resample: ``weights`` (resamples, n) says how often each unit is in it."""
        return self._mapped(lambda sums: weighted(weights, sums))

    def column(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Numerators and denominators of a column, (n,)."""
        place = self.names.index(name)
        return self.above[:, place], self.below[:, place]

    @property
    def confident(self) -> np.ndarray:
        """The pixels whose confidence was judged, (n,)."""
        places = [place for place, name in enumerate(self.names) if name.startswith(SAID)]
        return self.below[:, places].sum(1)

    def figures(self) -> dict[str, np.ndarray]:
        """Every figure, float64 (n,), NaN where nothing counts.

        Classes that occur nowhere have none.
        """
        ratios = _divided(self.above, self.below)
        found = {}
        for place, name in enumerate(self.names):
            if not name.startswith((SAID, RIGHT)):
                value = ratios[:, place]
                found[name] = np.sqrt(value) if figure(name).how == "root" else value
        bins = [n for n in self.names if n.startswith(SAID)]
        if bins:
            found["confidence.ece"] = self._calibration_error()
        if self.true.any():
            found |= self._labels()
        return found

    def sums(self, units: Sequence[str], classes: Sequence[str], frames: Sequence[str]) -> UnitSums:
        """The sums as a report keeps them, without slices; ``frames`` are the units' digests."""
        kept = {}
        for place, name in enumerate(self.names):
            if "@" not in name or name.startswith((SAID, RIGHT)):
                kept[name] = self.above[:, place].tolist()
                kept[name + _BELOW] = self.below[:, place].tolist()
        for place, name in enumerate(classes):
            columns = {_HIT: self.hit, _TRUE: self.true, _GIVEN: self.given}
            if any(sums[:, place].any() for sums in columns.values()):
                kept |= {start + name: sums[:, place].tolist() for start, sums in columns.items()}
        return UnitSums(units=list(units), sums=kept, frames=list(frames))

    def _mapped(self, change: Callable[[np.ndarray], np.ndarray]) -> Totals:
        return Totals(
            self.names, change(self.above), change(self.below), self.classes,
            change(self.hit), change(self.true), change(self.given),
        )  # fmt: skip

    def _calibration_error(self) -> np.ndarray:
        parts = []
        for start in (SAID, RIGHT):
            places = [self.names.index(f"{start}@bin={n}") for n in self._bins()]
            parts.append(self.above[:, places])
        pixels = self.below[:, [self.names.index(f"{SAID}@bin={n}") for n in self._bins()]]
        return calibration_error(parts[0], parts[1], pixels)

    def _bins(self) -> list[int]:
        return [n for n in range(BINS) if f"{SAID}@bin={n}" in self.names]

    def _labels(self) -> dict[str, np.ndarray]:
        ious = _divided(self.hit, self.true + self.given - self.hit)
        known = np.isfinite(ious)
        occurs = (self.true + self.given).any(0)
        return {
            "labels.miou": _divided(np.where(known, ious, 0).sum(1), known.sum(1)),
            "labels.accuracy": _divided(self.hit.sum(1), self.true.sum(1)),
            **{IOU + c: ious[:, i] for i, c in enumerate(self.classes) if occurs[i]},
        }


def column_totals(
    columns: Iterable[tuple[str, Column]],
    answers: Answers,
    units: Units,
    classes: Sequence[str],
    labelled: np.ndarray | None = None,
) -> Totals:
    """The sums of each unit; of the labels over the ``labelled`` frames, without it over all.

    :raises InputError: if a true class is not among ``classes``.
    """
    starts = np.flatnonzero(np.diff(units.of_frame, prepend=-1))
    count = len(units.names)
    # One column at a time: all of them would be hundreds of megabytes.
    names, above, below = [], [np.zeros((count, 0))], [np.zeros((count, 0))]
    for name, column in columns:
        names.append(name)
        above.append(np.add.reduceat(column.above, starts)[:, None])
        below.append(np.add.reduceat(column.below, starts)[:, None])
    frame, true, given, pixels = answers.confusion.T
    if labelled is not None:
        frame, true, given, pixels = answers.confusion[labelled[frame]].T
    unit, width = units.of_frame[frame], len(classes)
    if true.max(initial=-1) >= width:
        raise InputError(
            f"pixels of class {true.max()} were scored, but there are {width} classes: name all"
        )
    counted = [
        np.bincount((unit * width + place)[some], pixels[some], count * width).reshape(count, width)
        for place, some in ((true, true == given), (true, true < width), (given, given < width))
    ]
    return Totals(tuple(names), np.hstack(above), np.hstack(below), tuple(classes), *counted)


def from_sums(kept: UnitSums) -> tuple[Totals, tuple[str, ...]]:
    """What :meth:`Totals.sums` kept, and the names of the units."""
    sums = {name: np.asarray(values, np.float64) for name, values in kept["sums"].items()}
    names = tuple(name for name in sums if name + _BELOW in sums)
    classes = tuple(name.removeprefix(_TRUE) for name in sums if name.startswith(_TRUE))
    count = len(kept["units"])

    def stacked(wanted: Sequence[str]) -> np.ndarray:
        return np.stack([sums[name] for name in wanted], 1) if wanted else np.zeros((count, 0))

    return Totals(
        names,
        stacked(names),
        stacked([name + _BELOW for name in names]),
        classes,
        *(stacked([start + name for name in classes]) for start in (_HIT, _TRUE, _GIVEN)),
    ), tuple(kept["units"])


def _divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
