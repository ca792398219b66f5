"""Pairs of contestants: how far apart they are on what both answered, and how certain that is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from dense_perception.evaluation.collected import COUNTED, counts
from dense_perception.evaluation.document import PairValue
from dense_perception.evaluation.figures import figure, in_order, is_of_class
from dense_perception.evaluation.intervals import Units, interval, judged, known_together
from dense_perception.evaluation.thing_totals import ThingTotals
from dense_perception.evaluation.totals import Sums, Totals

DRAWN = 32
"""Columns whose resamples are held at a time."""


def differences(
    names: tuple[str, str],
    sums: tuple[Sums, Sums],
    things: Sequence[ThingTotals],
    units: Units,
    weights: np.ndarray,
) -> Iterator[PairValue]:
    """The first less the second for every figure both have, on the frames on which both have it."""
    a, b = names
    totals = [each.totals(COUNTED) for each in sums]
    whole = [
        each.whole().figures() | ranked.whole() for each, ranked in zip(totals, things, strict=True)
    ]
    by_unit = [
        each.figures() | ranked.by_unit() for each, ranked in zip(totals, things, strict=True)
    ]
    drawn = _drawn_differences(totals, weights) | _ranked_differences(things, weights)
    for name in in_order(set(whole[0]) & set(whole[1])):
        kind = figure(name)
        if "@" in name or kind.better == "one" or is_of_class(name):
            continue
        difference = float(whole[0][name][0] - whole[1][name][0])
        if not math.isfinite(difference):
            continue
        parts = known_together(by_unit[0][name], by_unit[1][name])
        low, high = interval(drawn[name], len(parts[0]))
        certain, why = judged(low, high, *parts, units)
        n_frames, n_recordings = counts(sums[0], name)
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


def _drawn_differences(totals: Sequence[Totals], weights: np.ndarray) -> dict[str, np.ndarray]:
    """The first less the second in every resample, of the figures that both have."""
    differences: dict[str, np.ndarray] = {}
    names = sorted(set(totals[0].names) & set(totals[1].names))
    wanted = [each.only(names) for each in totals]
    for first, second in zip(*(each.parts(DRAWN) for each in wanted), strict=True):
        drawn = first.drawn(weights).figures(), second.drawn(weights).figures()
        differences |= {
            name: drawn[0][name] - drawn[1][name] for name in drawn[0].keys() & drawn[1]
        }
    return differences


def _ranked_differences(
    things: Sequence[ThingTotals], weights: np.ndarray
) -> dict[str, np.ndarray]:
    """As :func:`_drawn_differences`, of as many resamples as both can have."""
    count = min(each.resamples(len(weights)) for each in things)
    first, second = (each.figures(weights[:count]) for each in things)
    return {name: first[name] - second[name] for name in first.keys() & second}
