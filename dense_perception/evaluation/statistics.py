"""From the scores of frames to figures with intervals, differences, slices and curves.

What an interval is and when a difference is certain is said in
:mod:`dense_perception.evaluation.intervals`; every sum is taken over the frames in the order of
:class:`~dense_perception.evaluation.score_table.ScoreTable`, so that the same scores give the same
bytes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.evaluation.document import (
    ClassValue,
    Curves,
    FigureValue,
    Method,
    PairValue,
    Point,
    ReliabilityPoint,
    SliceValue,
    UnitSums,
)
from dense_perception.evaluation.figures import RIGHT, SAID, catalogue, figure, in_order
from dense_perception.evaluation.intervals import (
    LEVEL,
    RESAMPLES,
    SEED,
    Units,
    drawn_weights,
    interval,
    judged,
    known_together,
    units_of,
)
from dense_perception.evaluation.judge import FOLLOWED, SHAPED
from dense_perception.evaluation.score_table import Answers, Frames, Scores
from dense_perception.evaluation.totals import Column, Sums, Totals
from dense_perception.metrics.calibration import BINS
from dense_perception.metrics.protocols import Protocol
from dense_perception.metrics.slices import DISTANCES_M, distance_names

SLICED = (
    "depth.metric.absrel", "depth.metric.d1", "depth.scaled.absrel", "depth.aligned.absrel",
    "depth.scale", "normals.mean_deg", "labels.accuracy",
)  # fmt: skip
"""The figures that are also given by recording and by the frames' tags."""
SAMPLED = (
    f"of {SHAPED} successive frames of a recording, the first is judged by surfaces, boundaries, "
    f"normals, slices and gray maps, and of {FOLLOWED} one by flicker, the same for all "
    "contestants; slices are of every fourth pixel, normals of depth of windows spread over it"
)
REVISIONS = {each.name: each.revision for each in catalogue().values() if each.revision != 1}
_THIRDS = ("lowest third", "middle third", "highest third")
_MOST_BINS = 50
_DRAWN = 32  # columns whose resamples are held at a time
# Columns that count frames alone.
_COUNTED = "counted."
_LABELS, _CONFIDENCE = f"{_COUNTED}labels", f"{_COUNTED}confidence"


@dataclass(frozen=True, slots=True)
class Summary:
    """The parts of a report that come from the scores alone, by contestant where it says so."""

    units: Units
    resamples: int
    seed: int
    figures: dict[str, dict[str, FigureValue]]
    slices: dict[str, dict[str, list[SliceValue]]]
    pairs: list[PairValue]
    curves: dict[str, Curves]
    per_class: dict[str, list[ClassValue]]
    unit_sums: dict[str, UnitSums]

    def method(self, protocols: Collection[Protocol] = ()) -> Method:
        """How the figures were made, for the report.

        :param protocols: which true depth counted, of all sources.
        """
        only = next(iter(protocols)) if len(set(protocols)) == 1 else None
        return Method(
            unit=self.units.kind,
            units=len(self.units.names),
            resamples=self.resamples,
            seed=self.seed,
            level=LEVEL,
            speaks_for=self.units.speaks_for,
            crop=None if only is None else only.crop,
            max_depth_m=None if only is None else only.max_m,
            truth=sorted({each.text for each in protocols}),
            sampled=SAMPLED,
            revisions=REVISIONS,
        )


def summarise(
    scores: Scores,
    classes: Sequence[str] = (),
    contestants: Sequence[str] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Summary:
    """Everything that the scores say; they are read once, after their frames.

    :param classes: the names of the labels' classes, from 0.
    :param contestants: in the order of the report; without it in that of the alphabet.
    :raises InputError: if there is no score at all, or a class without a name.
    """
    names = scores.contestants if contestants is None else list(contestants)
    frames = scores.frames()
    if not len(frames):
        raise InputError("no frame was scored: there is nothing to report")
    units = units_of(frames.recordings, frames.stamps_ns)
    weights = drawn_weights(len(units.names), resamples, seed)
    axes = _axes(frames)
    collected = _collect(scores, names, frames, units, axes, classes)
    orders = {axis: list(bins) for axis, bins in axes.items()}
    summary = Summary(units, resamples, seed, {}, {}, [], {}, {}, {})
    for name in names:
        found = _Found(collected.alone[name], orders, weights, classes)
        summary.figures[name] = found.figures()
        summary.slices[name] = found.slices()
        summary.curves[name] = found.curves()
        summary.per_class[name] = found.per_class()
        digests = frames.digests(units.of_frame, collected.answered[name])
        summary.unit_sums[name] = found.totals.sums(units.names, classes, digests)
    for pair, sums in collected.together.items():
        summary.pairs.extend(_pair(pair, sums, units, weights))
    return summary


@dataclass(frozen=True)
class _Collected:
    """Sums of each contestant, and of each pair on the frames that both have; who answered what,
    bool (frames,)."""

    alone: dict[str, Sums]
    together: dict[tuple[str, str], tuple[Sums, Sums]]
    answered: dict[str, np.ndarray]


def _collect(
    scores: Scores,
    names: Sequence[str],
    frames: Frames,
    units: Units,
    axes: Mapping[str, Mapping[str, np.ndarray]],
    classes: Sequence[str],
) -> _Collected:
    """A stretch of frames after the other: all at once would be hundreds of megabytes."""
    size = len(units.names), int(frames.recording_numbers.max()) + 1, classes
    alone = {name: Sums(*size) for name in names}
    together = {pair: (Sums(*size), Sums(*size)) for pair in itertools.combinations(names, 2)}
    answered = {name: np.zeros(len(frames), bool) for name in names}
    for table in scores.tables():
        places = frames.places(table.frames())
        where = units.of_frame[places], frames.recording_numbers[places]
        here = {
            axis: {part: inside[places] for part, inside in bins.items() if inside[places].any()}
            for axis, bins in axes.items()
        }
        found = {name: table.answers(name) for name in names}
        for name, answers in found.items():
            answered[name][places] = answers.answered
            alone[name].add(_columns(answers, here), answers.confusion, *where)
        for pair, sums in together.items():
            first, second = (found[name] for name in pair)
            masks = _shared_frames(first, second)
            labelled = first.labelled & second.labelled
            both = {_LABELS: labelled, _CONFIDENCE: first.answered & second.answered}
            for each, own in ((first, sums[0]), (second, sums[1])):
                shared = ((n, c.where(masks[n])) for n, c in _columns(each, {}) if n in masks)
                own.add(
                    itertools.chain(shared, ((n, _marks(mask)) for n, mask in both.items())),
                    each.confusion[labelled[each.confusion[:, 0]]],
                    *where,
                )
    return _Collected(alone, together, answered)


def _marks(frames: np.ndarray) -> Column:
    """Counts frames, bool (frames,), and says nothing more of them."""
    return Column(np.zeros(len(frames)), frames.astype(np.float64))


class _Found:
    """The figures of one contestant, over all frames and in every resample."""

    def __init__(
        self,
        sums: Sums,
        orders: Mapping[str, Sequence[str]],
        weights: np.ndarray,
        classes: Sequence[str],
    ) -> None:
        self.classes = classes
        self.orders = {"distance": distance_names(), "class": classes, **orders}
        self.sums, self.totals = sums, sums.totals(_COUNTED)
        self.whole = self.totals.whole().figures()
        by_unit = self.totals.figures()
        self.ends = {
            name: interval(drawn, int(np.isfinite(by_unit[name]).sum()))
            for part in self.totals.parts(_DRAWN)
            for name, drawn in part.drawn(weights).figures().items()
        }

    def value(self, name: str) -> FigureValue:
        low, high = self.ends[name]
        n_frames, n_recordings = _counts(self.sums, name)
        return FigureValue(
            value=_number(self.whole[name][0]),
            low=low,
            high=high,
            n_frames=n_frames,
            n_recordings=n_recordings,
        )

    def figures(self) -> dict[str, FigureValue]:
        return {name: self.value(name) for name in in_order(self.whole) if "@" not in name}

    def slices(self) -> dict[str, list[SliceValue]]:
        rows: dict[str, list[SliceValue]] = {}
        for name in self.whole:
            base, _, rest = name.partition("@")
            if not rest:
                continue
            axis, _, part = rest.partition("=")
            value = self.value(name)
            row = SliceValue(
                bin=part,
                figure=base,
                value=value["value"],
                low=value["low"],
                high=value["high"],
                n=value["n_frames"],
            )
            rows.setdefault(axis, []).append(row)
        for axis, found in rows.items():
            bins = {part: number for number, part in enumerate(self.orders.get(axis, ()))}
            names = in_order(row["figure"] for row in found)
            places = {name: number for number, name in enumerate(names)}
            found.sort(key=partial(_slice_place, places, bins))
        return {axis: rows[axis] for axis in sorted(rows)}

    def curves(self) -> Curves:
        kinds = [k for k in ("metric", "aligned") if self._along(f"depth.{k}.absrel")]
        return Curves(
            scale_by_distance=self._along("depth.scale"),
            absrel_by_distance=self._along(f"depth.{kinds[0]}.absrel") if kinds else [],
            reliability=self._reliability(),
        )

    def _along(self, base: str) -> list[Point]:
        """A curve over the true distance, without the last bin, which has no end."""
        points = []
        for number, part in enumerate(distance_names()[:-1]):
            name = f"{base}@distance={part}"
            if name in self.whole:
                value = self.value(name)
                points.append(
                    Point(
                        x_low=DISTANCES_M[number],
                        x_high=DISTANCES_M[number + 1],
                        value=value["value"],
                        low=value["low"],
                        high=value["high"],
                        n=value["n_frames"],
                    )
                )
        return points

    def _reliability(self) -> list[ReliabilityPoint]:
        points = []
        whole = self.totals.whole()
        for number in range(BINS):
            said, right = f"{SAID}@bin={number}", f"{RIGHT}@bin={number}"
            if said in whole.names and right in whole.names:
                (above, below), (correct, _) = (whole.column(name) for name in (said, right))
                points.append(
                    ReliabilityPoint(
                        x_low=number / BINS,
                        x_high=(number + 1) / BINS,
                        said=_number(above[0] / below[0]) if below[0] else None,
                        right=_number(correct[0] / below[0]) if below[0] else None,
                        pixels=float(below[0]),
                    )
                )
        return points

    def per_class(self) -> list[ClassValue]:
        whole = self.totals.whole()
        pixels = whole.true.sum()
        rows = []
        for number, name in enumerate(self.classes):
            if f"labels.iou.{name}" not in self.whole:
                continue
            value = self.value(f"labels.iou.{name}")
            true, hit = whole.true[0, number], whole.hit[0, number]
            rows.append(
                ClassValue(
                    name=name,
                    iou=value["value"],
                    low=value["low"],
                    high=value["high"],
                    accuracy=float(hit / true) if true else None,
                    share=float(true / pixels) if pixels else 0.0,
                )
            )
        return rows


def _pair(
    names: tuple[str, str], sums: tuple[Sums, Sums], units: Units, weights: np.ndarray
) -> Iterator[PairValue]:
    """The first less the second for every figure both have, on the frames on which both have it."""
    a, b = names
    totals = [each.totals(_COUNTED) for each in sums]
    whole = [each.whole().figures() for each in totals]
    by_unit = [each.figures() for each in totals]
    drawn = _drawn_differences(totals, weights)
    for name in in_order(set(whole[0]) & set(whole[1])):
        kind = figure(name)
        if "@" in name or kind.better == "one" or name.startswith("labels.iou."):
            continue
        difference = float(whole[0][name][0] - whole[1][name][0])
        if not math.isfinite(difference):
            continue
        parts = known_together(by_unit[0][name], by_unit[1][name])
        low, high = interval(drawn[name], len(parts[0]))
        certain, why = judged(low, high, *parts, units)
        n_frames, n_recordings = _counts(sums[0], name)
        a_is_better = kind.improves(float(whole[1][name][0]), float(whole[0][name][0]))
        yield PairValue(
            a=a,
            b=b,
            figure=name,
            difference=difference,
            low=low,
            high=high,
            better=None if difference == 0 else a if a_is_better else b,
            certain=certain,
            why=why,
            n_frames=n_frames,
            n_recordings=n_recordings,
        )


def _shared_frames(first: Answers, second: Answers) -> dict[str, np.ndarray]:
    """The frames on which both have a figure, bool (frames,), by the names of its columns.

    Slices are left out. A bin of the confidence that one of them never uses in a frame is empty
    there, not unknown.
    """
    masks = {
        name: np.isfinite(values) & np.isfinite(second.values[name])
        for name, values in first.values.items()
        if name in second.values
    }
    for name, (_, below) in first.sums.items():
        if "@" not in name and name in second.sums:
            masks[name] = (below > 0) & (second.sums[name][1] > 0)
    for name in {**first.sums, **second.sums}:
        if name.startswith((SAID, RIGHT)):
            masks[name] = first.answered & second.answered
    return masks


def _columns(
    answers: Answers, axes: Mapping[str, Mapping[str, np.ndarray]]
) -> Iterator[tuple[str, Column]]:
    """What is added up of each frame, with the slices over frames."""
    sliced = {}
    for name, values in answers.values.items():
        column = Column.of_values(values)
        if name in SLICED:
            sliced[name] = column
        yield name, column
    for name, pair in answers.sums.items():
        yield name, Column.of_sums(*pair)
    if len(answers.confusion):
        sliced["labels.accuracy"] = _accuracy(answers)
    yield _LABELS, _marks(answers.labelled)
    confident = [pair[1] > 0 for name, pair in answers.sums.items() if name.startswith(SAID)]
    if confident:
        yield _CONFIDENCE, _marks(np.any(confident, 0))
    for axis, bins in axes.items():
        for part, inside in bins.items():
            for name, column in sliced.items():
                here = column.where(inside)
                if here.counted.any():
                    yield f"{name}@{axis}={part}", here


def _drawn_differences(totals: Sequence[Totals], weights: np.ndarray) -> dict[str, np.ndarray]:
    """The first less the second in every resample, of the figures that both have."""
    differences: dict[str, np.ndarray] = {}
    names = sorted(set(totals[0].names) & set(totals[1].names))
    wanted = [each.only(names) for each in totals]
    for first, second in zip(*(each.parts(_DRAWN) for each in wanted), strict=True):
        drawn = first.drawn(weights).figures(), second.drawn(weights).figures()
        differences |= {
            name: drawn[0][name] - drawn[1][name] for name in drawn[0].keys() & drawn[1]
        }
    return differences


def _counts(sums: Sums, name: str) -> tuple[int, int]:
    """How many frames, of how many recordings, a figure is of."""
    group = _CONFIDENCE if name.startswith("confidence") else _LABELS
    return sums.counts(name) or sums.counts(group) or (0, 0)


def _accuracy(answers: Answers) -> Column:
    frame, true, predicted, pixels = answers.confusion.T
    count = len(answers.answered)
    return Column(
        np.bincount(frame, pixels * (true == predicted), count),
        np.bincount(frame, pixels, count),
    )


def _axes(frames: Frames) -> dict[str, dict[str, np.ndarray]]:
    """Which frames are in each bin of each axis: the recordings, and the tags.

    Texts are bins of their own; numbers are cut into thirds of the frames, with their range in the
    name. Of more than fifty bins the first are kept.
    """
    axes: dict[str, dict[str, np.ndarray]] = {}
    known: dict[str, list[str | float | None]] = {"recording": list(frames.recordings)}
    for name, values in {**known, **frames.tags}.items():
        if any(isinstance(value, str) for value in values):
            texts = sorted({value for value in values if isinstance(value, str)})[:_MOST_BINS]
            axes[name] = {t: np.array([value == t for value in values]) for t in texts}
            continue
        numbers = np.array([math.nan if v is None else float(v) for v in values])
        present = numbers[np.isfinite(numbers)]
        if not len(present) or present.min() == present.max():
            continue
        ends = np.quantile(present, [0, 1 / 3, 2 / 3, 1])
        inside = (
            numbers <= ends[1],
            (numbers > ends[1]) & (numbers <= ends[2]),
            numbers > ends[2],
        )
        axes[name] = {
            f"{text} ({_plain(ends[i])} to {_plain(ends[i + 1])})": inside[i]
            for i, text in enumerate(_THIRDS)
        }
    return axes


def _plain(number: float) -> str:
    return f"{number:.3g}" if abs(number) < 1000 else f"{number:.0f}"


def _slice_place(
    figures: Mapping[str, int], bins: Mapping[str, int], row: SliceValue
) -> tuple[int, int, str]:
    return figures[row["figure"]], bins.get(row["bin"], len(bins)), row["bin"]


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
