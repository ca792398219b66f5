"""The first sentences of a report: which is better, by how much, and whether that is certain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dense_perception.evaluation.document import (
    ContestantData,
    FigureValue,
    PairValue,
    Verdict,
)
from dense_perception.evaluation.figures import figure
from dense_perception.evaluation.page.wording import measure_of, subject_of

HEADLINES = (
    ("depth", ("depth.metric.absrel", "depth.scaled.absrel", "depth.aligned.absrel")),
    ("labels", ("labels.miou",)),
    ("normals", ("normals.mean_deg",)),
    ("edges", ("edges.l1",)),
    ("keypoints", ("keypoints.l1",)),
    ("reshading", ("reshading.l1",)),
)
"""By task the figures that decide; the first that every contestant of the task has counts."""


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
) -> list[Verdict]:
    """For each task the best model against each other one, and against the best baseline; its
    bare figures where there is nothing to compare it with.

    The sentences rest on ``pairs``, whose numbers they carry.
    """
    kinds = {row["name"]: row["kind"] for row in contestants}
    found: list[Verdict] = []
    alone: list[Verdict] = []
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
            text = f"{best}: {_said(name)} {_value(best, name, figures)}."
            alone.append(Verdict(text=text, pair=None))
        found += [_against(best, each, name, figures, pairs) for each in ranked[1:]]
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
            found.append(_against(best, rival, shared, figures, pairs, baseline=True))
    return found or alone


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
    values = f"{_value(best, name, figures)} against {_value(other, name, figures)}"
    rival = f"the baseline {other}" if baseline else other
    what = _said(name)
    if place is None:
        return Verdict(text=f"{best} and {other} share no frame: {what} {values}.", pair=None)
    pair = pairs[place]
    if pair["better"] is None:
        return Verdict(text=f"{best} and {rival} are alike in {what}: {values}.", pair=place)
    winner, loser = (best, rival) if pair["better"] == best else (rival, best)
    if winner != best:
        values = f"{_value(other, name, figures)} against {_value(best, name, figures)}"
    by = _advantage(pair)
    text = f"{winner} is better than {loser} in {what} by {by}: {values}."
    if not pair["certain"]:
        text = (
            f"{winner} looks better than {loser} in {what} by {by}, but that is not certain: "
            f"{values}."
        )
    return Verdict(text=text[0].upper() + text[1:] if winner == rival else text, pair=place)


def _said(name: str) -> str:
    """A figure within a sentence: ``AbsRel of metric depth``."""
    measure = measure_of(name)
    measure = measure[0].lower() + measure[1:] if measure.startswith("Mean") else measure
    return f"{measure} of {subject_of(name)}"


def _advantage(pair: PairValue) -> str:
    """How far the better one is ahead on the frames that both answered, with its interval."""
    known = figure(pair["figure"])
    sign = 1 if (pair["better"] == pair["a"]) == (known.better == "higher") else -1
    difference, low, high = pair["difference"], pair["low"], pair["high"]
    text = "" if difference is None else f"{sign * difference:.3g}"
    if low is not None and high is not None:
        ends = sorted((sign * low, sign * high))
        text += f" [{ends[0]:.3g}, {ends[1]:.3g}]"
    return f"{text} {known.unit}".strip()


def _value(contestant: str, name: str, figures: Mapping[str, Mapping[str, FigureValue]]) -> str:
    value = figures[contestant][name]["value"]
    return "nothing" if value is None else f"{value:.4g} {figure(name).unit}".strip()
