"""Whether differences are certain: between contestants, and against an earlier report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dense_perception.core.printable import counted
from dense_perception.evaluation.document import Change, PairValue
from dense_perception.evaluation.page.elements import Cell, Column, Row, RowGroup, Section, Table
from dense_perception.evaluation.page.reading import Reading
from dense_perception.evaluation.page.wording import (
    direction_of,
    interval,
    number,
    reason,
    signed,
    title_of,
)

_TURNS = {"worse": "✗ worse", "better": "✓ better", "same": "= no certain change"}


def pairs_section(reading: Reading) -> Section | None:
    """The main figures' differences: between models, then of models and baselines."""
    tables = [
        table
        for which in dict.fromkeys((reading.primary, *reading.headlines))
        if (table := _pairs_table(reading, which)) is not None
    ]
    if not tables:
        return None
    return Section(
        "pairs",
        "Differences",
        "Is the difference certain?",
        [
            "A difference is of the same frames, those that both answered. It is certain "
            "if its interval leaves out 0 and rests on enough independent data. The differences of "
            "all figures are in report.json."
        ],
        tables=[with_more(tables[0], tables[1:], "Differences in the other main figures")],
    )


def with_more(table: Table, more: Sequence[Table], title: str) -> Table:
    """The table with others folded below it."""
    return replace(table, more=more, more_title=f"{title} ({len(more)})")


def _pairs_table(reading: Reading, which: str) -> Table | None:
    groups: dict[str, list[Row]] = {"Between models": [], "Against baselines": []}
    pairs = [each for each in reading.report["pairs"] if each["figure"] == which]
    for pair in sorted(pairs, key=lambda each: not each["certain"]):
        models = [name for name in (pair["a"], pair["b"]) if reading.slot(name) is not None]
        if len(models) == 2:
            groups["Between models"].append(_pair_row(pair))
        elif models:
            groups["Against baselines"].append(_pair_row(pair))
    if not any(groups.values()):
        return None
    return Table(
        f"pairs-{which}",
        f"{title_of(which)} ({direction_of(which)})",
        "Pair",
        [
            Column("Difference"),
            Column("Certain?", text=True),
            Column("Reading", text=True),
            Column("Why", text=True),
        ],
        [RowGroup(title, rows) for title, rows in groups.items() if rows],
    )


def _pair_row(pair: PairValue) -> Row:
    which = pair["figure"]
    words = "no difference" if pair["better"] is None else f"{pair['better']} is better"
    cells = [
        Cell(
            signed(pair["difference"], which),
            pair["difference"],
            interval(pair["low"], pair["high"], which),
        ),
        Cell("✓ certain" if pair["certain"] else "? not certain"),
        Cell(words if pair["certain"] or pair["better"] is None else f"perhaps: {words}"),
        Cell(reason(pair["why"])),
    ]
    detail = f"{counted(pair['n_frames'], 'frame')}, {counted(pair['n_recordings'], 'recording')}"
    return Row(f"{pair['a']} less {pair['b']}", cells, detail=detail)


def changes_section(reading: Reading) -> Section | None:
    """Regressions against the earlier report; ``None`` where nothing was compared."""
    before = reading.report["compared_with"]
    if before is None:
        return None
    changes = reading.report["changes"]
    counts = {
        kind: sum(each["verdict"] == kind for each in changes)
        for kind in ("worse", "better", "same")
    }
    text = (
        f"Against {before}: {counted(counts['worse'], 'figure')} certainly worse, "
        f"{counts['better']} certainly better, {counts['same']} without a certain change."
    )
    tables = [
        _changes_table(key, caption, [each for each in changes if each["verdict"] in kinds], folded)
        for key, caption, kinds, folded in (
            ("worse", "Regressions", ("worse",), False),
            ("better", "Improvements", ("better",), False),
            ("same", "Without a certain change", ("same",), True),
        )
        if counts[kinds[0]]
    ]
    return Section("changes", "Changes", "What changed since before?", [text], tables=tables)


def _changes_table(key: str, caption: str, changes: Sequence[Change], folded: bool) -> Table:
    groups: dict[str, list[Row]] = {}
    for each in changes:
        which = each["figure"]
        cells = [
            Cell(number(each["before"], which), each["before"]),
            Cell(number(each["after"], which), each["after"]),
            Cell(
                signed(each["difference"], which),
                each["difference"],
                interval(each["low"], each["high"], which),
            ),
            Cell(_TURNS[each["verdict"]]),
            Cell(reason(each["why"])),
        ]
        row = Row(title_of(which), cells, detail=direction_of(which))
        groups.setdefault(each["contestant"], []).append(row)
    return Table(
        f"changes-{key}",
        f"{caption} ({len(changes)})",
        "Figure",
        [
            Column("Before"),
            Column("Now"),
            Column("Difference"),
            Column("Verdict", text=True),
            Column("Why", text=True),
        ],
        [RowGroup(name, rows) for name, rows in groups.items()],
        folded=folded,
    )
