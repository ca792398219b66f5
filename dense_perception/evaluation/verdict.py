"""The first sentences of a report: which is better, by how much, and whether that is certain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from dense_perception.evaluation.document import (
    ContestantData,
    FigureValue,
    PairValue,
    SliceValue,
    Verdict,
)
from dense_perception.evaluation.figures import figure
from dense_perception.evaluation.page.wording import digits_of, measure_of, subject_of

HEADLINES = (
    ("depth", ("depth.metric.absrel", "depth.scaled.absrel", "depth.aligned.absrel")),
    ("labels", ("labels.miou",)),
    ("things", ("boxes.ap",)),
    ("segments", ("panoptic.pq",)),
    ("normals", ("normals.mean_deg",)),
    ("edges", ("edges.l1",)),
    ("keypoints", ("keypoints.l1",)),
    ("reshading", ("reshading.l1",)),
)
"""By task the figures that decide; the first that every contestant of the task has counts."""
_WITHOUT_BASELINES = ("things", "segments")
_MORE_DIGITS = 4
_NAMED = 3
Slices = Mapping[str, Mapping[str, Sequence[SliceValue]]]
"""By contestant and axis, as a report has them."""


def headline(
    task: str, names: Sequence[str], figures: Mapping[str, Mapping[str, FigureValue]]
) -> str | None:
    """The figure that decides a task between the contestants ``names``; None where none has one."""
    for name in dict(HEADLINES)[task]:
        if names and all(figures.get(each, {}).get(name) for each in names):
            return name
    return None


def verdicts(
    contestants: Sequence[ContestantData],
    figures: Mapping[str, Mapping[str, FigureValue]],
    pairs: Sequence[PairValue],
    slices: Slices = MappingProxyType({}),
) -> list[Verdict]:
    """For each task the best model against each other one, and against the best baseline; its
    bare figures where there is nothing to compare any model with, and of things, which no baseline
    finds.

    The sentences rest on ``pairs``, whose numbers they carry. After the first one of a task stands
    on which recordings, by ``slices``, the best model is worse than a baseline.
    """
    kinds = {row["name"]: row["kind"] for row in contestants}
    found: list[Verdict] = []
    alone: list[Verdict] = []
    unrivalled: list[Verdict] = []
    for task, candidates in HEADLINES:
        given = [
            name for name in kinds if any(each in figures.get(name, {}) for each in candidates)
        ]
        models = [name for name in given if kinds[name] != "baseline"]
        name = headline(task, models, figures)
        if name is None:
            continue
        ranked = _ranked(models, name, figures)
        best = ranked[0]
        if len(ranked) == 1:
            value = _text(figures[best][name]["value"], name)
            text = f"{best}: {_said(name)} {value}."
            alone.append(Verdict(text=text, pair=None))
            unrivalled += alone[-1:] if task in _WITHOUT_BASELINES else []
        of_task = [_against(best, each, name, figures, pairs) for each in ranked[1:]]
        baselines = [each for each in given if kinds[each] == "baseline"]
        shared = next(
            (
                n
                for n in candidates
                if n in figures[best] and all(n in figures[b] for b in baselines)
            ),
            None,
        )
        if baselines and shared is not None:
            rival = _ranked(baselines, shared, figures)[0]
            of_task.append(_against(best, rival, shared, figures, pairs, baseline=True))
            of_task[1:1] = _beaten_on(best, baselines, shared, slices)
        found += of_task
    return [*found, *unrivalled] if found else alone


def _beaten_on(best: str, baselines: Sequence[str], name: str, slices: Slices) -> list[Verdict]:
    """The recordings of several on which a baseline is better, which their mean hides."""
    by_recording: dict[str, dict[str, float]] = {}
    for each in (best, *baselines):
        for row in slices.get(each, {}).get("recording", ()):
            if row["figure"] == name and row["value"] is not None:
                by_recording.setdefault(row["bin"], {})[each] = row["value"]
    sign = 1 if figure(name).better == "lower" else -1
    worse = []
    for recording, values in by_recording.items():
        rival = min(values, key=lambda each: sign * values[each])
        if best in values and values[best] != values[rival]:
            given = f"{_text(values[best], name)} against {_text(values[rival], name)}"
            worse.append(f"{recording} ({rival}: {given})")
    if not worse or len(by_recording) < 2:
        return []
    more = f" and {len(worse) - _NAMED} more" if len(worse) > _NAMED else ""
    where = ", ".join(worse[:_NAMED]) + more
    count = f"{len(worse)} of {len(by_recording)} recordings"
    text = f"On {count} {best} is worse than a baseline, by {_said(name)}: {where}."
    return [Verdict(text=text, pair=None)]


def _ranked(
    names: Sequence[str], name: str, figures: Mapping[str, Mapping[str, FigureValue]]
) -> list[str]:
    """Best first; equal ones in the order given."""
    sign = 1 if figure(name).better == "lower" else -1
    known = {each: figures[each][name]["value"] for each in names}
    return sorted(
        names, key=lambda each: sign * value if (value := known[each]) is not None else float("inf")
    )


def _against(
    best: str,
    other: str,
    name: str,
    figures: Mapping[str, Mapping[str, FigureValue]],
    pairs: Sequence[PairValue],
    *,
    baseline: bool = False,
) -> Verdict:
    place = next(
        (
            number
            for number, pair in enumerate(pairs)
            if pair["figure"] == name and {pair["a"], pair["b"]} == {best, other}
        ),
        None,
    )
    rival = f"the baseline {other}" if baseline else other
    what, unit = _said(name), figure(name).unit
    given = [figures[each][name]["value"] for each in (best, other)]
    if place is None:
        values = f"{_text(given[0], name)} against {_text(given[1], name)}"
        return Verdict(text=f"{best} and {other} share no frame: {what} {values}.", pair=None)
    pair = pairs[place]
    digits = digits_of(name)
    if pair["certain"]:
        digits = _telling(given, digits)
    shown = [_rounded(value, digits) for value in given]
    if pair["better"] is None or shown[0] == shown[1]:
        return Verdict(
            text=f"{best} and {rival} are alike: {what} {' and '.join(shown)} {unit}".strip() + ".",
            pair=place,
        )
    first, second = (best, rival) if pair["better"] == best else (rival, best)
    shown = shown if first == best else shown[::-1]
    values = f"{what} {shown[0]} against {shown[1]} {unit}".strip()
    text = f"{first} is better than {second}: {values}{_ahead(pair, digits)}."
    if not pair["certain"]:
        text = (
            f"{first} looks better than {second}, but that is not certain: "
            f"{values}{_ahead(pair, digits)}{_doubt(pair)}."
        )
    return Verdict(text=text[0].upper() + text[1:] if first == rival else text, pair=place)


def _said(name: str) -> str:
    """A figure within a sentence: ``AbsRel of metric depth``."""
    measure = measure_of(name)
    measure = measure[0].lower() + measure[1:] if measure.startswith("Mean") else measure
    return f"{measure} of {subject_of(name)}"


def _doubt(pair: PairValue) -> str:
    """Where the interval leaves out 0 and the difference is not certain all the same."""
    low, high = pair["low"], pair["high"]
    if low is None or high is None or low <= 0 <= high:
        return ""
    return ", but these frames are too few or too alike to rely on it"


def _ahead(pair: PairValue, digits: int) -> str:
    """How far the better one is ahead on the frames that both answered, with its interval."""
    known = figure(pair["figure"])
    sign = 1 if (pair["better"] == pair["a"]) == (known.better == "higher") else -1
    difference, low, high = pair["difference"], pair["low"], pair["high"]
    if difference is None:
        return ""
    text = f", ahead by {_rounded(sign * difference, digits)}"
    if low is not None and high is not None:
        if high > low:  # two digits of its width, so that an end beyond 0 shows
            width = 1 - math.floor(math.log10(high - low))
            digits = min(max(digits, width), digits + _MORE_DIGITS)
        text = f", ahead by {_rounded(sign * difference, digits)}"
        ends = (_rounded(end, digits) for end in sorted((sign * low, sign * high)))
        text += f" [{', '.join(ends)}]"
    return f"{text} {known.unit}".rstrip()


def _telling(values: Sequence[float | None], digits: int) -> int:
    """So many decimals that two values that differ are told apart, within reason."""
    for more in range(_MORE_DIGITS):
        if _rounded(values[0], digits + more) != _rounded(values[1], digits + more):
            return digits + more
    return digits


def _text(value: float | None, name: str) -> str:
    return f"{_rounded(value, digits_of(name))} {figure(name).unit}".strip()


def _rounded(value: float | None, digits: int) -> str:
    return "nothing" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"
