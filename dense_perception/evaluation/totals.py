"""Sums by recording or block of time, and the figures that follow from them.

All that a figure needs adds up: numerators and denominators, and of labels the pixels by class.
So the figures of all frames, of one unit and of every resample come from the same few lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.core.printable import counted
from dense_perception.evaluation.document import UnitSums
from dense_perception.evaluation.figures import IOU, PANOPTIC, RIGHT, SAID, figure
from dense_perception.evaluation.intervals import weighted
from dense_perception.metrics.calibration import BINS, calibration_error

_HIT, _TRUE, _GIVEN = "labels.hit.", "labels.true.", "labels.given."
_JOINT = (SAID, RIGHT, PANOPTIC)  # columns of which a figure needs all
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

    def only(self, names: Sequence[str]) -> Totals:
        """The columns of ``names`` in their order, and those of the confidence and of segments."""
        own = [name for name in names if not name.startswith(_JOINT)]
        kept = (*own, *(name for name in self.names if name.startswith(_JOINT)))
        places = [self.names.index(name) for name in kept]
        return replace(self, names=kept, above=self.above[:, places], below=self.below[:, places])

    def parts(self, size: int) -> Iterator[Totals]:
        """So many columns after the other, those of the confidence and of segments together, and
        the labels last: what is drawn of each fits in little memory."""
        joint = [place for place, name in enumerate(self.names) if name.startswith(_JOINT)]
        rest = [place for place in range(len(self.names)) if place not in set(joint)]
        none = np.zeros((len(self.above), 0))
        for places in (*(rest[k : k + size] for k in range(0, len(rest), size)), joint):
            names = tuple(self.names[place] for place in places)
            yield Totals(names, self.above[:, places], self.below[:, places], (), none, none, none)
        yield Totals((), none, none, self.classes, self.hit, self.true, self.given)

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
            if not name.startswith(_JOINT):
                value = ratios[:, place]
                found[name] = np.sqrt(value) if figure(name).how == "root" else value
        bins = [n for n in self.names if n.startswith(SAID)]
        if bins:
            found["confidence.ece"] = self._calibration_error()
        found |= self._segments(ratios)
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

    def _segments(self, ratios: np.ndarray) -> dict[str, np.ndarray]:
        """Panoptic, segmentation and recognition quality, of each class and as means over them."""
        found: dict[str, np.ndarray] = {}
        means: dict[str, list[np.ndarray]] = {}
        for group in ("things.", "stuff."):
            start = f"{PANOPTIC}{group}pq."
            for place, name in enumerate(self.names):
                if not name.startswith(start):
                    continue
                label = name.removeprefix(start)
                pairs = self.names.index(f"{PANOPTIC}{group}rq.{label}")
                quality = _divided(self.above[:, place], self.above[:, pairs])
                quality[(self.below[:, place] > 0) & np.isnan(quality)] = 0.0  # all are missed
                values = {"pq": ratios[:, place], "sq": quality, "rq": ratios[:, pairs]}
                for measure, value in values.items():
                    found[f"{PANOPTIC}{group}{measure}.{label}"] = value
                    for whole in ("", group):
                        means.setdefault(f"{PANOPTIC}{whole}{measure}", []).append(value)
        return found | {name: _mean_of_known(values) for name, values in means.items()}

    def _labels(self) -> dict[str, np.ndarray]:
        ious = _divided(self.hit, self.true + self.given - self.hit)
        known = np.isfinite(ious)
        occurs = (self.true + self.given).any(0)
        return {
            "labels.miou": _divided(np.where(known, ious, 0).sum(1), known.sum(1)),
            "labels.accuracy": _divided(self.hit.sum(1), self.true.sum(1)),
            **{IOU + c: ious[:, i] for i, c in enumerate(self.classes) if occurs[i]},
        }


class Sums:
    """Adds up stretches of frames: by unit, and of how many frames and recordings they are.

    :param units: how many there are, ``recordings`` likewise.
    :param classes: the names of the labels' classes, from 0.
    """

    def __init__(self, units: int, recordings: int, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)
        self._rows: dict[str, int] = {}
        self._above, self._below = np.zeros((2, 0, units))
        self._frames = np.zeros(0, np.int64)
        # A bit for each recording: there may be as many as frames.
        self._seen = np.zeros((0, -(-recordings // 8)), np.uint8)
        self._labels = np.zeros((3, units, len(classes)))

    def add(
        self,
        columns: Iterable[tuple[str, Column]],
        confusion: np.ndarray,
        units: np.ndarray,
        recordings: np.ndarray,
    ) -> None:
        """The columns of a stretch, and what of its labels counts, as ``Answers.confusion``.

        :param units: with ``recordings`` those of its frames, int64 (frames,), ``units`` rising.
        :raises InputError: if a true class is not among the classes.
        """
        names, above, below = [], [], []
        for name, column in columns:
            names.append(name)
            above.append(column.above)
            below.append(column.below)
        if names:
            self._add(names, np.array(above), np.array(below), units, recordings)
        if len(confusion):
            self._count(confusion, units)

    def counts(self, name: str) -> tuple[int, int] | None:
        """How many frames of how many recordings a column has; None where there is none."""
        row = self._rows.get(name)
        if row is None:
            return None
        return int(self._frames[row]), int(np.unpackbits(self._seen[row]).sum())

    def totals(self, hidden: str = "") -> Totals:
        """What was added up, in the order of the alphabet, without the columns whose names start
        with ``hidden``."""
        names = sorted(n for n in self._rows if not hidden or not n.startswith(hidden))
        rows = [self._rows[name] for name in names]
        return Totals(
            tuple(names), self._above[rows].T, self._below[rows].T, self._classes, *self._labels
        )

    def _add(
        self,
        names: Sequence[str],
        above: np.ndarray,
        below: np.ndarray,
        units: np.ndarray,
        recordings: np.ndarray,
    ) -> None:
        for name in names:
            self._rows.setdefault(name, len(self._rows))
        self._grow(len(self._rows))
        rows = np.array([self._rows[name] for name in names])
        starts = np.flatnonzero(np.diff(units, prepend=-1))
        places = rows[:, None], units[starts]
        self._above[places] += np.add.reduceat(above, starts, axis=1)
        self._below[places] += np.add.reduceat(below, starts, axis=1)
        counted = below > 0
        self._frames[rows] += counted.sum(1)
        for recording in np.unique(recordings):
            some = counted[:, recordings == recording].any(1)
            self._seen[rows, recording // 8] |= some * np.uint8(1 << recording % 8)

    def _grow(self, rows: int) -> None:
        more = rows - len(self._frames)
        if more > 0:
            room = ((0, max(more, 64)), (0, 0))
            self._above, self._below = np.pad(self._above, room), np.pad(self._below, room)
            self._seen = np.pad(self._seen, room)
            self._frames = np.pad(self._frames, room[0])

    def _count(self, confusion: np.ndarray, units: np.ndarray) -> None:
        frame, true, given, pixels = confusion.T
        width, unit = len(self._classes), units[frame]
        if true.max(initial=-1) >= width:
            raise InputError(
                f"pixels of class {true.max()} were scored, but {counted(width, 'class')} "
                f"{'is' if width == 1 else 'are'} named: name all"
            )
        chosen = ((true, true == given), (true, true < width), (given, given < width))
        for labels, (place, some) in zip(self._labels, chosen, strict=True):
            np.add.at(labels, (unit[some], place[some]), pixels[some])


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


def _mean_of_known(values: Sequence[np.ndarray]) -> np.ndarray:
    """The mean over arrays (n,), without NaN."""
    stacked = np.stack(values)
    known = np.isfinite(stacked)
    return _divided(np.where(known, stacked, 0).sum(0), known.sum(0))
