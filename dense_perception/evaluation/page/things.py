"""Which things and which stuff a model finds: average precision and panoptic quality by class."""

from __future__ import annotations

from dense_perception.evaluation.figures import KINDS, PANOPTIC, class_of, is_of_class
from dense_perception.evaluation.page.elements import Cell, Column, Row, RowGroup, Section, Table
from dense_perception.evaluation.page.reading import Reading
from dense_perception.evaluation.page.wording import interval, measure_of, number, subject_of

_MEASURES = (*(f"{kind}.ap" for kind in KINDS), f"{PANOPTIC}things.pq", f"{PANOPTIC}stuff.pq")
_OPEN_ROWS = 24
_TEXT = (
    "AP is the mean precision over all recalls and over overlaps from half of the union to 95 % of "
    "it; what a model is surest of counts first. PQ counts finding and overlap at once, of things "
    "and of stuff, and knows no scores. Both are from 0 to 1."
)


def things_section(reading: Reading) -> Section | None:
    """AP of boxes and masks and PQ of each class, those with the most true things first."""
    by_class: dict[str, dict[tuple[str, str], str]] = {}
    for each in reading.models:
        for which in reading.report["figures"].get(each["name"], {}):
            if is_of_class(which) and class_of(which)[0] in _MEASURES:
                whole, label = class_of(which)
                measure = measure_of(whole)
                key = (
                    each["name"],
                    f"{measure} of {subject_of(whole)}" if measure == "AP" else measure,
                )
                by_class.setdefault(label, {})[key] = which
    if not by_class:
        return None
    found = {key for row in by_class.values() for key in row}
    kinds = ("AP of boxes", "AP of masks", "PQ")
    columns = [
        (each["name"], kind)
        for each in reading.models
        for kind in kinds
        if (each["name"], kind) in found
    ]
    counts = _counts(reading)
    rows = []
    for label in sorted(by_class, key=lambda name: (-counts.get(name, 0), name)):
        true = counts.get(label, 0)
        stuff = all(which.startswith(f"{PANOPTIC}stuff.") for which in by_class[label].values())
        cells = [Cell("stuff") if stuff else Cell(f"{true:,}", true)]
        for key in columns:
            cells.append(_cell(reading, key[0], by_class[label].get(key)))
        rows.append(Row(label, cells))
    heads = [Column("True things")]
    heads += [Column(name, kind, reading.slot(name)) for name, kind in columns]
    first, rest = rows[:_OPEN_ROWS], rows[_OPEN_ROWS:]
    tables = [Table("things", "Things and stuff by class", "Class", heads, [RowGroup("", first)])]
    if rest:
        caption = f"{len(rest)} more"
        tables.append(
            Table("things-rest", caption, "Class", heads, [RowGroup("", rest)], folded=True)
        )
    return Section("things", "Things", "Which things does it find?", [_TEXT], tables=tables)


def _counts(reading: Reading) -> dict[str, int]:
    """The true things of each class, the most that some contestant was judged by."""
    counts: dict[str, int] = {}
    for of_model in reading.report.get("things", {}).values():
        for label, count in of_model.items():
            counts[label] = max(count, counts.get(label, 0))
    return counts


def _cell(reading: Reading, name: str, which: str | None) -> Cell:
    found = None if which is None else reading.value(name, which)
    if which is None or found is None or found["value"] is None:
        return Cell(number(None))
    return Cell(
        number(found["value"], which),
        found["value"],
        interval(found["low"], found["high"], which),
        bar=found["value"],
    )
