"""From the scores of frames to figures with intervals, differences, slices and curves.

What an interval is and when a difference is certain is said in
:mod:`dense_perception.evaluation.intervals`; every sum is taken over the frames in the order of
:class:`~dense_perception.evaluation.score_table.ScoreTable`, so that the same scores give the same
bytes.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np
from tqdm import tqdm

from dense_perception.core.errors import InputError
from dense_perception.evaluation.collected import (
    COUNTED,
    KnownClasses,
    collect,
    counts,
    shared_classes,
)
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
from dense_perception.evaluation.figures import (
    KINDS,
    RIGHT,
    SAID,
    catalogue,
    in_order,
)
from dense_perception.evaluation.intervals import (
    LEVEL,
    RESAMPLES,
    SEED,
    Units,
    drawn_weights,
    interval,
    units_of,
)
from dense_perception.evaluation.judge import FOLLOWED, SHAPED
from dense_perception.evaluation.pairs import DRAWN, differences
from dense_perception.evaluation.score_table import Frames, Scores
from dense_perception.evaluation.thing_totals import ThingScores, ThingTotals
from dense_perception.evaluation.totals import Sums
from dense_perception.metrics.calibration import BINS
from dense_perception.metrics.protocols import Protocol
from dense_perception.metrics.slices import DISTANCES_M, distance_names

SAMPLED = (
    f"of {SHAPED} successive frames of a recording, the first is judged by surfaces, boundaries, "
    f"normals, slices and gray maps, and of {FOLLOWED} one by flicker, the same for all "
    "contestants; slices are of every fourth pixel, normals of depth of windows spread over it"
)
REVISIONS = {each.name: each.revision for each in catalogue().values() if each.revision != 1}
_THIRDS = ("lowest third", "middle third", "highest third")
_MOST_BINS = 50
_QUICK_S = 2.0  # what takes less shows no bar


@dataclass(frozen=True, slots=True)
class Summary:
    """The parts of a report that come from the scores alone, by contestant where it says so.

    ``things`` says of how many things of each class average precision is, and ``ranked`` how many
    resamples its intervals are of.
    """

    units: Units
    resamples: int
    seed: int
    figures: dict[str, dict[str, FigureValue]]
    slices: dict[str, dict[str, list[SliceValue]]]
    pairs: list[PairValue]
    curves: dict[str, Curves]
    per_class: dict[str, list[ClassValue]]
    unit_sums: dict[str, UnitSums]
    things: dict[str, dict[str, int]]
    ranked: dict[str, int]

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
            sampled=SAMPLED + self._ranked_fewer(),
            revisions=REVISIONS,
        )

    def _ranked_fewer(self) -> str:
        fewest = min(self.ranked.values(), default=self.resamples)
        if fewest == self.resamples:
            return ""
        return f"; intervals of average precision are of {fewest:,} resamples, which take long"


def summarise(
    scores: Scores,
    classes: Sequence[str] = (),
    contestants: Sequence[str] | None = None,
    *,
    known: Mapping[str, KnownClasses] = MappingProxyType({}),
    resamples: int = RESAMPLES,
    seed: int = SEED,
    progress: bool = False,
) -> Summary:
    """Everything that the scores say; they are read once, after their frames.

    :param classes: the names of the labels' classes, from 0.
    :param contestants: in the order of the report; without it in that of the alphabet.
    :param known: the classes that a contestant of things knows; two of them are compared on those
        that are things, or stuff, to both.
    :raises InputError: if there is no score at all, or a class without a name.
    """
    names = scores.contestants if contestants is None else list(contestants)
    frames = scores.frames()
    if not len(frames):
        raise InputError("no frame was scored: there is nothing to report")
    units = units_of(frames.recordings, frames.stamps_ns)
    weights = drawn_weights(len(units.names), resamples, seed)
    axes = _axes(frames)
    collected = collect(scores, names, frames, units, axes, classes, known)
    orders = {axis: list(bins) for axis, bins in axes.items()}
    summary = Summary(units, resamples, seed, {}, {}, [], {}, {}, {}, {}, {})
    bar = partial(
        tqdm, delay=_QUICK_S, disable=None if progress else True, file=sys.stderr, leave=False
    )
    for name in bar(names, desc="intervals", unit="contestant"):
        things = collected.things[name].totals(units.of_frame, len(units.names))
        found = _Found(collected.alone[name], things, orders, weights, classes)
        summary.figures[name] = found.figures()
        slices = found.slices()
        recordings = axes.get("recording", {})
        if of_things := _things_by_recording(collected.things[name], recordings, units, weights):
            slices["recording"] = [*slices.get("recording", []), *of_things]
        summary.slices[name] = {axis: slices[axis] for axis in sorted(slices)}
        summary.curves[name] = found.curves()
        summary.per_class[name] = found.per_class()
        digests = frames.digests(units.of_frame, collected.answered[name])
        summary.unit_sums[name] = found.totals.sums(units.names, classes, digests)
        if collected.things[name]:
            summary.unit_sums[name]["ranked"] = things.kept(found.ranked)
            summary.things[name] = things.true()
            summary.ranked[name] = things.resamples(resamples)
    for pair, sums in bar(collected.together.items(), desc="differences", unit="pair"):
        shared = shared_classes(known, pair)
        both = None if shared is None else shared.things
        first, second = (collected.things[name] for name in pair)
        ranked = [
            each.only(other, both).totals(units.of_frame, len(units.names))
            for each, other in ((first, second), (second, first))
        ]
        summary.pairs.extend(differences(pair, sums, ranked, units, weights))
    return summary


class _Found:
    """The figures of one contestant, over all frames and in every resample."""

    def __init__(
        self,
        sums: Sums,
        things: ThingTotals,
        orders: Mapping[str, Sequence[str]],
        weights: np.ndarray,
        classes: Sequence[str],
    ) -> None:
        self.classes = classes
        self.orders = {"distance": distance_names(), "class": classes, **orders}
        self.sums, self.totals = sums, sums.totals(COUNTED)
        self.whole = self.totals.whole().figures() | things.whole()
        by_unit = self.totals.figures()
        self.ends = {
            name: interval(drawn, int(np.isfinite(by_unit[name]).sum()))
            for part in self.totals.parts(DRAWN)
            for name, drawn in part.drawn(weights).figures().items()
        }
        by_unit = things.by_unit()
        self.ranked = things.figures(weights[: things.resamples(len(weights))])
        self.ends |= {
            name: interval(drawn, int(np.isfinite(by_unit[name]).sum()))
            for name, drawn in self.ranked.items()
        }

    def value(self, name: str) -> FigureValue:
        low, high = self.ends[name]
        n_frames, n_recordings = counts(self.sums, name)
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


def _things_by_recording(
    things: ThingScores,
    recordings: Mapping[str, np.ndarray],
    units: Units,
    weights: np.ndarray,
) -> list[SliceValue]:
    """Average precision in each recording; its interval is drawn from blocks of time within it,
    where these are the units."""
    rows: list[SliceValue] = []
    for recording, frames in recordings.items():
        here = things.of_frames(frames)
        if not here:
            continue
        totals = here.totals(units.of_frame, len(units.names))
        whole = totals.whole()
        by_unit = totals.by_unit() if units.kind == "blocks" else {}
        drawn = totals.figures(weights[: totals.resamples(len(weights))]) if by_unit else {}
        for kind in KINDS:
            if (name := f"{kind}.ap") not in whole:
                continue
            ends: tuple[float | None, float | None] = (None, None)
            if name in drawn:
                ends = interval(drawn[name], int(np.isfinite(by_unit[name]).sum()))
            rows.append(
                SliceValue(
                    bin=recording,
                    figure=name,
                    value=_number(whole[name][0]),
                    low=ends[0],
                    high=ends[1],
                    n=len(here.frames(kind)),
                )
            )
    return sorted(rows, key=lambda row: (KINDS.index(row["figure"].partition(".")[0]), row["bin"]))


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
