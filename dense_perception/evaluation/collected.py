"""The scores of frames as sums by unit, of each contestant and of each pair on what both have."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dense_perception.evaluation.figures import (
    KINDS,
    PANOPTIC,
    RIGHT,
    SAID,
)
from dense_perception.evaluation.intervals import Units
from dense_perception.evaluation.score_table import Answers, Frames, Scores
from dense_perception.evaluation.thing_totals import ThingScores
from dense_perception.evaluation.totals import Column, Sums

SLICED = (
    "depth.metric.absrel", "depth.metric.d1", "depth.scaled.absrel", "depth.aligned.absrel",
    "depth.scale", "normals.mean_deg", "labels.accuracy",
)  # fmt: skip
"""The figures that are also given by recording and by the frames' tags."""
COUNTED = "counted."
"""Begins the columns that count frames alone."""
_LABELS, _CONFIDENCE = f"{COUNTED}labels", f"{COUNTED}confidence"
_SEGMENTS, _KINDS = f"{COUNTED}panoptic", {kind: f"{COUNTED}{kind}" for kind in KINDS}


@dataclass(frozen=True)
class KnownClasses:
    """The names of the classes that a contestant of things knows, in lower case: those that average
    precision counts, and those that are stuff to it."""

    things: frozenset[str]
    stuff: frozenset[str]

    @classmethod
    def of(cls, things: Iterable[str], labels: Iterable[str]) -> KnownClasses:
        """
        :param labels: of all its pixels, things among them.
        """
        found = frozenset(name.casefold() for name in things)
        return cls(found, frozenset(name.casefold() for name in labels) - found)

    def shared(self, other: KnownClasses) -> KnownClasses:
        """Those that are things, or stuff, to both: one that is a thing to one and stuff to the
        other is judged by other figures."""
        return KnownClasses(self.things & other.things, self.stuff & other.stuff)


@dataclass(frozen=True)
class Collected:
    """Sums of each contestant, and of each pair on the frames that both have; who answered what,
    bool (frames,)."""

    alone: dict[str, Sums]
    things: dict[str, ThingScores]
    together: dict[tuple[str, str], tuple[Sums, Sums]]
    answered: dict[str, np.ndarray]


def collect(
    scores: Scores,
    names: Sequence[str],
    frames: Frames,
    units: Units,
    axes: Mapping[str, Mapping[str, np.ndarray]],
    classes: Sequence[str],
    known: Mapping[str, KnownClasses],
) -> Collected:
    """A stretch of frames after the other: all at once would be hundreds of megabytes."""
    size = len(units.names), int(frames.recording_numbers.max()) + 1, classes
    alone = {name: Sums(*size) for name in names}
    things = {name: ThingScores() for name in names}
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
            things[name].add((int(places[frame]), matches) for frame, matches in answers.things)
        for pair, sums in together.items():
            first, second = (found[name] for name in pair)
            masks = _shared_frames(first, second, shared_classes(known, pair))
            labelled = first.labelled & second.labelled
            both = {_LABELS: labelled, _CONFIDENCE: first.answered & second.answered}
            marks = _thing_marks(first), _thing_marks(second)
            both |= {name: marks[0][name] & marks[1][name] for name in marks[0].keys() & marks[1]}
            for each, own in ((first, sums[0]), (second, sums[1])):
                shared = ((n, c.where(masks[n])) for n, c in _columns(each, {}) if n in masks)
                own.add(
                    itertools.chain(shared, ((n, _marks(mask)) for n, mask in both.items())),
                    each.confusion[labelled[each.confusion[:, 0]]],
                    *where,
                )
    return Collected(alone, things, together, answered)


def counts(sums: Sums, name: str) -> tuple[int, int]:
    """How many frames, of how many recordings, a figure is of."""
    start = name.partition(".")[0]
    groups = {"confidence": _CONFIDENCE, "panoptic": _SEGMENTS, **_KINDS}
    group = groups.get(start, _LABELS)
    return sums.counts(name) or sums.counts(group) or (0, 0)


def shared_classes(known: Mapping[str, KnownClasses], pair: tuple[str, str]) -> KnownClasses | None:
    """The classes that both know; None where nobody says."""
    first, second = pair
    return known[first].shared(known[second]) if {*pair} <= known.keys() else None


def _thing_marks(answers: Answers) -> dict[str, np.ndarray]:
    """The frames in which segments, boxes and masks were compared, bool (frames,)."""
    marks: dict[str, np.ndarray] = {}
    for frame, kinds in answers.things:
        for kind in kinds.keys() & _KINDS:
            marks.setdefault(_KINDS[kind], np.zeros(len(answers.answered), bool))[frame] = True
    segmented = [pair[1] > 0 for name, pair in answers.sums.items() if name.startswith(PANOPTIC)]
    if segmented:
        marks[_SEGMENTS] = np.any(segmented, 0)
    return marks


def _marks(frames: np.ndarray) -> Column:
    """Counts frames, bool (frames,), and says nothing more of them."""
    return Column(np.zeros(len(frames)), frames.astype(np.float64))


def _shared_frames(
    first: Answers, second: Answers, classes: KnownClasses | None
) -> dict[str, np.ndarray]:
    """The frames on which both have a figure, bool (frames,), by the names of its columns.

    Slices are left out, and segments of none of ``classes``. A bin of the confidence that one of
    them never uses in a frame is empty there, not unknown, and so is a class of segments.
    """
    masks = {
        name: np.isfinite(values) & np.isfinite(second.values[name])
        for name, values in first.values.items()
        if name in second.values
    }
    for name, (_, below) in first.sums.items():
        if "@" not in name and not name.startswith(PANOPTIC) and name in second.sums:
            masks[name] = (below > 0) & (second.sums[name][1] > 0)
    for name in {**first.sums, **second.sums}:
        of_both = name.startswith((SAID, RIGHT))
        if name.startswith(PANOPTIC):
            _, group, _, label = name.split(".", 3)
            of_both = classes is None or label.casefold() in (
                classes.things if group == "things" else classes.stuff
            )
        if of_both:
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
    for name, mask in _thing_marks(answers).items():
        yield name, _marks(mask)
    for axis, bins in axes.items():
        for part, inside in bins.items():
            for name, column in sliced.items():
                here = column.where(inside)
                if here.counted.any():
                    yield f"{name}@{axis}={part}", here


def _accuracy(answers: Answers) -> Column:
    frame, true, predicted, pixels = answers.confusion.T
    count = len(answers.answered)
    return Column(
        np.bincount(frame, pixels * (true == predicted), count),
        np.bincount(frame, pixels, count),
    )
