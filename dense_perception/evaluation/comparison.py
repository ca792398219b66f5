"""An evaluation against an earlier one's ``report.json``: what became better, what worse."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.core.json_text import parse_json
from dense_perception.core.printable import counted
from dense_perception.core.storage import read_file
from dense_perception.evaluation.document import (
    VERSION,
    Change,
    FigureValue,
    Method,
    Ranked,
    Report,
)
from dense_perception.evaluation.figures import (
    PANOPTIC,
    Figure,
    class_of,
    figure,
    in_order,
    is_of_class,
)
from dense_perception.evaluation.intervals import (
    Units,
    drawn_weights,
    interval,
    judged,
    known_together,
)
from dense_perception.evaluation.statistics import Summary
from dense_perception.evaluation.totals import Totals, from_sums
from dense_perception.metrics.protocols import Protocol

_MOST_BYTES = 256 << 20
_SHOWN = 3
_NEEDED = ("figures", "units", "contestants", "method")


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


@dataclass(frozen=True, slots=True)
class Comparison:
    """An earlier report, and what of it a new one can be compared with.

    ``partners`` are the contestants' names there and here; ``left_out`` says of each figure that
    cannot be compared why.
    """

    before: Report
    partners: tuple[tuple[str, str], ...]
    left_out: Mapping[str, str]

    @property
    def notes(self) -> list[str]:
        """What is left out, a line for each reason."""
        groups: dict[str, list[str]] = {}
        for name, why in self.left_out.items():
            groups.setdefault(why, []).append(name)
        return [
            f"--compare leaves out {counted(len(names), 'figure')} ({', '.join(names[:_SHOWN])}"
            f"{', ...' if names[_SHOWN:] else ''}): {why}"
            for why, names in groups.items()
        ]


def compare_with(
    before: Report, contestants: Mapping[str, str], protocols: Collection[Protocol]
) -> Comparison:
    """What can be compared with an earlier report, told before anything is run.

    Contestants go together by name; where there is but one model on either side, these do, for a
    new model often has a new name.

    :param contestants: what will answer, with the kind of each.
    :param protocols: which true depth will count, of all sources.
    :raises InputError: if no contestant is in both, the earlier report is damaged, or none of its
        figures means the same here.
    """
    try:
        earlier = {row["name"]: row["kind"] for row in before["contestants"]}
        partners = _partners(earlier, contestants)
        left_out = {}
        depth = _other_truth(before["method"], protocols)
        revisions = before["method"].get("revisions", {})
        for old, _ in partners:
            _check(before, old)
            for name in before["figures"][old]:
                known = _known(name)
                if known is None:
                    left_out[name] = "this version does not measure them"
                elif depth and known.rests_on_depth:
                    left_out[name] = depth
                elif revisions.get(_whole(name), 1) != known.revision:
                    left_out[name] = (
                        f"they were defined otherwise by {_version(before)}: make the earlier "
                        "report again with this version"
                    )
        names = {name for old, _ in partners for name in before["figures"][old]}
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"the earlier report is damaged ({type(error).__name__}: {error}): make it again"
        ) from error
    if names and names <= left_out.keys():
        reasons = "; ".join(dict.fromkeys(left_out.values()))
        raise InputError(f"nothing of the earlier report can be compared: {reasons}")
    return Comparison(before, tuple(partners), left_out)


def changes(comparison: Comparison, after: Summary) -> list[Change]:
    """What changed of every contestant that both have, for every figure that both have.

    On the same frames the differences are paired; else the intervals of both are combined (Zou and
    Donner 2008), which sees less.
    """
    return [
        change
        for old, new in comparison.partners
        if old in comparison.before["units"] and new in after.unit_sums
        for change in _contestant_changes(comparison, old, after, new)
    ]


def _partners(before: Mapping[str, str], after: Mapping[str, str]) -> list[tuple[str, str]]:
    """Names in the earlier and the new report that belong together, from the kinds by name."""
    shared = [name for name in after if name in before]
    models = [[name for name in side if side[name] != "baseline"] for side in (before, after)]
    if len(models[0]) == len(models[1]) == 1 and models[0] != models[1]:
        return [(models[0][0], models[1][0]), *((name, name) for name in shared)]
    if not any(name in models[1] for name in shared):
        raise InputError(
            f"the earlier report has {', '.join(models[0]) or 'no model'}, this one "
            f"{', '.join(models[1])}: none is in both, so nothing can be compared"
        )
    return [(name, name) for name in shared]


def _other_truth(method: Method, protocols: Collection[Protocol]) -> str:
    """Why figures of depth mean something else; empty where the same true depth counts."""
    now = sorted({each.text for each in protocols})
    if "truth" in method:
        was = method["truth"]
    else:  # an older report knows less
        only = next(iter(protocols)) if len(now) == 1 else None
        same = (method.get("crop"), method.get("max_depth_m"))
        if same in ((None, None), (None, None) if only is None else (only.crop, only.max_m)):
            return ""
        limit = same[1]
        was = [f"up to {limit:g} m, {f'inside {same[0]}' if same[0] else 'all pixels'}"
               if limit is not None else f"inside {same[0]}"]  # fmt: skip
    if was == now:
        return ""
    return (
        f"true depth counted {' and '.join(was)}, here {' and '.join(now)}: give the same data, "
        "--max-depth and --crop"
    )


def _check(before: Report, name: str) -> None:
    """
    :raises KeyError: with other errors of its kind if a contestant's part is damaged.
    """
    if not before["figures"][name] and name not in before["units"]:
        return  # it answered nothing
    totals, units = from_sums(before["units"][name])
    if len(totals.above) != len(units):
        raise ValueError(f"{len(units)} units have {len(totals.above)} sums")
    if "ranked" in before["units"][name]:
        ranked = before["units"][name]["ranked"]
        _array([*ranked["true"].values()])
        for each in ranked["figures"].values():
            if len(each["units"]) != len(units):
                raise ValueError(f"{len(units)} units have {len(each['units'])} average precisions")
            _array(each["units"] + each["drawn"])
    for value in before["figures"][name].values():
        for end in ("value", "low", "high"):
            number = value[end]
            if number is not None:
                float(number)


def _known(name: str) -> Figure | None:
    try:
        return figure(name)
    except InputError:
        return None


def _whole(name: str) -> str:
    """The figure over all classes, whose revision is that of each class, too."""
    return class_of(name)[0] if is_of_class(name) else name


def _version(before: Report) -> str:
    return f"dense_perception {before.get('versions', {}).get('dense_perception', 'of before')}"


def _contestant_changes(
    comparison: Comparison, old: str, after: Summary, new: str
) -> Iterator[Change]:
    before, units = comparison.before, after.units
    sums = before["units"][old], after.unit_sums[new]
    totals = [from_sums(each) for each in sums]
    same_frames = sums[0].get("frames", []) in ([], sums[1].get("frames", []))
    paired = ranked = None
    if totals[0][1] == totals[1][1] and same_frames:
        knows_frames = bool(sums[0].get("frames"))
        paired = _Paired(totals[0][0], totals[1][0], units, knows_frames=knows_frames)
        kept = [each.get("ranked") for each in sums]
        same_draws = before["method"]["seed"] == after.seed
        if kept[0] is not None and kept[1] is not None and knows_frames and same_draws:
            ranked = _PairedRanking(kept[0], kept[1], units)
    figures = before["figures"][old]
    for name in in_order((set(figures) & set(after.figures[new])) - comparison.left_out.keys()):
        was, now = figures[name], after.figures[new][name]
        if was["value"] is None or now["value"] is None or figure(name).better == "one":
            continue
        difference = now["value"] - was["value"]
        if paired is not None and paired.has(name):
            low, high, certain, why = paired.judge(name)
        elif ranked is not None and ranked.has(name):
            low, high, certain, why = ranked.judge(name)
        else:
            same = paired is not None and figure(name).how == "ranking"
            low, high, certain, why = _apart(was, now, units, same=same)
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

    def __init__(self, before: Totals, after: Totals, units: Units, *, knows_frames: bool) -> None:
        """:param knows_frames: whether it is known, and not only likely, that the frames agree."""
        self.units, self._knows_frames = units, knows_frames
        self._before, self._after = before, after
        weights = drawn_weights(len(units.names))
        self._by_unit = before.figures(), after.figures()
        self._drawn = before.drawn(weights).figures(), after.drawn(weights).figures()

    def has(self, name: str) -> bool:
        """Whether both counted the same in every unit: the same frames, as far as one can tell."""
        if name.startswith("labels."):
            classes = self._before.classes == self._after.classes
            return classes and np.array_equal(self._before.true, self._after.true)
        if name.startswith(PANOPTIC):  # of weights that hold what was found as well
            return self._knows_frames and name in self._drawn[0] and name in self._drawn[1]
        if name in self._before.names and name in self._after.names:
            return np.array_equal(self._before.column(name)[1], self._after.column(name)[1])
        if name == "confidence.ece":  # how many pixels are in each bin is what may have changed
            return np.array_equal(self._before.confident, self._after.confident)
        return False

    def judge(self, name: str) -> tuple[float | None, float | None, bool, str]:
        parts = known_together(self._by_unit[1][name], self._by_unit[0][name])
        low, high = interval(self._drawn[1][name] - self._drawn[0][name], len(parts[0]))
        return low, high, *judged(low, high, *parts, self.units)


class _PairedRanking:
    """Average precision of two contestants on the same frames: both drew the same resamples."""

    def __init__(self, before: Ranked, after: Ranked, units: Units) -> None:
        self._sides, self._units = (before, after), units

    def has(self, name: str) -> bool:
        """Whether both are of the same things: annotations may have been mended in between."""
        true = [each["true"] for each in self._sides]
        if not all(name in each["figures"] for each in self._sides):
            return False
        if is_of_class(name):
            label = class_of(name)[1]
            return true[0].get(label) == true[1].get(label)
        return true[0] == true[1]

    def judge(self, name: str) -> tuple[float | None, float | None, bool, str]:
        before, after = (each["figures"][name] for each in self._sides)
        parts = known_together(_array(after["units"]), _array(before["units"]))
        drawn = [_array(each["drawn"]) for each in (before, after)]
        count = min(map(len, drawn))
        low, high = interval(drawn[1][:count] - drawn[0][:count], len(parts[0]))
        return low, high, *judged(low, high, *parts, self._units)


def _array(values: Sequence[float | None]) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values], np.float64)


def _apart(
    was: FigureValue, now: FigureValue, units: Units, *, same: bool
) -> tuple[float | None, float | None, bool, str]:
    """The difference of two figures from the interval of each, as of independent ones.

    :param same: whether the frames are the same, and the parts of the figure were not kept.
    """
    ends = [(each["value"], each["low"], each["high"]) for each in (was, now)]
    if any(number is None for each in ends for number in each):
        why = "one has no interval" if same else "the frames differ, and one has no interval"
        return None, None, False, f"not certain: {why}"
    (a, a_low, a_high), (b, b_low, b_high) = cast(list[tuple[float, float, float]], ends)
    low = b - a - math.hypot(b - b_low, a_high - a)
    high = b - a + math.hypot(b_high - b, a - a_low)
    lies = f"{'by both intervals' if same else 'on other frames'} it lies"
    if low <= 0 <= high:
        why = f"from {low:.4g} to {high:.4g}, which includes no difference"
        return low, high, False, f"not certain: {lies} {why}"
    if units.kind != "recordings":
        why = "blocks of too few recordings" if same else "other frames than before, of too few"
        return low, high, False, f"not certain: {why}{'' if same else ' recordings'}"
    return low, high, True, f"certain: {lies} from {low:.4g} to {high:.4g}"
