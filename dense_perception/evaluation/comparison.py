"""An evaluation against an earlier one's ``report.json``: what became better, what worse."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.core.json_text import parse_json
from dense_perception.core.storage import read_file
from dense_perception.evaluation.document import (
    VERSION,
    Change,
    ContestantData,
    FigureValue,
    Report,
    UnitSums,
)
from dense_perception.evaluation.figures import figure, in_order
from dense_perception.evaluation.intervals import (
    Units,
    drawn_weights,
    interval,
    judged,
    known_together,
)
from dense_perception.evaluation.totals import Totals, from_sums

_MOST_BYTES = 256 << 20
_NEEDED = ("figures", "units", "contestants", "method")


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What is compared: figures and sums by contestant, and who they are."""

    contestants: Sequence[ContestantData]
    figures: Mapping[str, Mapping[str, FigureValue]]
    sums: Mapping[str, UnitSums]


def read_report(path: Path) -> Report:
    """An earlier ``report.json``.

    :raises InputError: if it cannot be read or is no report of this version.
    """
    try:
        data = parse_json(read_file(path, _MOST_BYTES))
    except (InputError, ValueError) as error:
        raise InputError(f"cannot read the earlier report {path}: {error}") from error
    version = data.get("version") if isinstance(data, dict) else None
    if version != VERSION or not all(name in data for name in _NEEDED):
        got = "no report of an evaluation" if version is None else f"a report of version {version}"
        raise InputError(
            f"{path} is {got}, expected version {VERSION}: give the report.json that "
            "`dense-perception evaluate ... --out FOLDER` wrote, or run the earlier one again"
        )
    return cast(Report, data)


def changes(before: Report, after: Evaluated, units: Units) -> list[Change]:
    """What changed of every contestant that both have, for every figure both have.

    Contestants go together by name; where there is but one model on either side, these do, for a
    new model often has a new name. On the same frames the differences are paired; else the
    intervals of both are combined (Zou and Donner 2008), which sees less.

    :param units: what ``after`` draws.
    :raises InputError: if no contestant is in both, or the earlier report is damaged.
    """
    try:
        earlier = Evaluated(before["contestants"], before["figures"], before["units"])
        pairs = _partners(earlier, after)
        found = [
            change
            for old, new in pairs
            for change in _contestant_changes(earlier, old, after, new, units)
        ]
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"the earlier report is damaged ({type(error).__name__}: {error}): make it again"
        ) from error
    return found


def regressions(found: Sequence[Change]) -> list[str]:
    """A sentence for everything that is certainly worse."""
    return [
        f"{each['contestant']}: {each['figure']} went from {each['before']:.4g} to "
        f"{each['after']:.4g}; {each['why']}"
        for each in found
        if each["verdict"] == "worse"
    ]


def _partners(before: Evaluated, after: Evaluated) -> list[tuple[str, str]]:
    """Names in the earlier and the new report that belong together."""
    shared = [name for name in after.figures if name in before.figures]
    models = [
        [row["name"] for row in side.contestants if row["kind"] != "baseline"]
        for side in (before, after)
    ]
    if len(models[0]) == len(models[1]) == 1 and models[0] != models[1]:
        return [(models[0][0], models[1][0]), *((name, name) for name in shared)]
    if not any(name in models[1] for name in shared):
        raise InputError(
            f"the earlier report has {', '.join(models[0]) or 'no model'}, this one "
            f"{', '.join(models[1])}: none is in both, so nothing can be compared"
        )
    return [(name, name) for name in shared]


def _contestant_changes(
    before: Evaluated, old: str, after: Evaluated, new: str, units: Units
) -> Iterator[Change]:
    totals = [from_sums(before.sums[old]), from_sums(after.sums[new])]
    paired = _Paired(totals[0][0], totals[1][0], units) if totals[0][1] == totals[1][1] else None
    for name in in_order(set(before.figures[old]) & set(after.figures[new])):
        was, now = before.figures[old][name], after.figures[new][name]
        if was["value"] is None or now["value"] is None or figure(name).better == "one":
            continue
        difference = now["value"] - was["value"]
        if paired is not None and paired.has(name):
            low, high, certain, why = paired.judge(name)
        else:
            low, high, certain, why = _apart(was, now, units)
        better = figure(name).improves(was["value"], now["value"])
        verdict: Literal["better", "worse", "same"] = "same"
        if certain:
            verdict = "better" if better else "worse"
        yield Change(
            contestant=new,
            figure=name,
            before=was["value"],
            after=now["value"],
            difference=difference,
            low=low,
            high=high,
            verdict=verdict,
            why=why,
        )


class _Paired:
    """Two contestants on the same units: differences in each and in every resample."""

    def __init__(self, before: Totals, after: Totals, units: Units) -> None:
        self.units = units
        self._before, self._after = before, after
        weights = drawn_weights(len(units.names))
        self._by_unit = before.figures(), after.figures()
        self._drawn = before.drawn(weights).figures(), after.drawn(weights).figures()

    def has(self, name: str) -> bool:
        """Whether both counted the same in every unit: the same frames, as far as one can tell."""
        if name.startswith("labels."):
            classes = self._before.classes == self._after.classes
            return classes and np.array_equal(self._before.true, self._after.true)
        if name in self._before.names and name in self._after.names:
            return np.array_equal(self._before.column(name)[1], self._after.column(name)[1])
        return all(name in each for each in self._by_unit)

    def judge(self, name: str) -> tuple[float | None, float | None, bool, str]:
        parts = known_together(self._by_unit[1][name], self._by_unit[0][name])
        low, high = interval(self._drawn[1][name] - self._drawn[0][name], len(parts[0]))
        return low, high, *judged(low, high, *parts, self.units)


def _apart(
    was: FigureValue, now: FigureValue, units: Units
) -> tuple[float | None, float | None, bool, str]:
    """The difference of two independent figures from the interval of each."""
    ends = [(each["value"], each["low"], each["high"]) for each in (was, now)]
    if any(number is None for each in ends for number in each):
        return None, None, False, "not certain: the frames differ, and one has no interval"
    (a, a_low, a_high), (b, b_low, b_high) = cast(list[tuple[float, float, float]], ends)
    low = b - a - math.hypot(b - b_low, a_high - a)
    high = b - a + math.hypot(b_high - b, a - a_low)
    if low <= 0 <= high:
        why = f"from {low:.4g} to {high:.4g}, which includes no difference"
        return low, high, False, f"not certain: on other frames it lies {why}"
    if units.kind != "recordings":
        return low, high, False, "not certain: other frames than before, of too few recordings"
    return low, high, True, f"certain: on other frames it lies from {low:.4g} to {high:.4g}"
