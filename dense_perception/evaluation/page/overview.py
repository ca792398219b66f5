"""The first part of the page: the verdict, the main table, pairs, what changed since before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dense_perception.evaluation.document import Change, FigureValue
from dense_perception.evaluation.page import charts
from dense_perception.evaluation.page.elements import (
    Cell,
    Column,
    Drawing,
    Row,
    RowGroup,
    Section,
    Table,
)
from dense_perception.evaluation.page.reading import Reading
from dense_perception.evaluation.page.wording import (
    counted,
    direction_of,
    group_of,
    hint_of,
    interval,
    measure_of,
    number,
    signed,
    subject_of,
    title_of,
)

_SIGNS = (
    "★ best: certainly better than every other model. ☆ leads: the best value, but the difference "
    "to some other model is not certain or was not tested. Ranges in brackets are {level:g} % "
    "intervals."
)
_TURNS = {"worse": "✗ worse", "better": "✓ better", "same": "= no certain change"}


@dataclass(frozen=True)
class Verdict:
    """The first sentence, whether it is certain (``None``: it compares nothing), the others."""

    text: str
    is_certain: bool | None
    why: str
    others: Sequence[str]
    speaks_for: str


def verdict(reading: Reading) -> Verdict:
    """What the report found, in its own sentences."""
    method = reading.report["method"]
    first, *others = reading.report["verdict"] or [
        {"text": "There is nothing to compare.", "pair": None}
    ]
    pair = reading.pair_of(first["pair"])
    return Verdict(
        first["text"],
        None if pair is None else pair["certain"],
        "" if pair is None else pair["why"],
        [each["text"] for each in others],
        method["speaks_for"],
    )


def main_section(reading: Reading) -> Section:
    """The headline figures of every contestant, and the intervals of the first figure."""
    level = 100 * reading.report["method"]["level"]
    table = Table(
        "main",
        "Main figures of every model",
        "Model",
        [Column(measure_of(name), _of(name)) for name in reading.headlines],
        [
            RowGroup("", [_row(reading, each["name"]) for each in reading.models]),
            *(
                [
                    RowGroup(
                        "Baselines, to be beaten",
                        [_row(reading, each["name"]) for each in reading.baselines],
                    )
                ]
                if reading.baselines
                else []
            ),
        ],
        note=_SIGNS.format(level=level),
    )
    return Section(
        "main", "Figures", "How good is each model?", tables=[table], drawings=_intervals(reading)
    )


def all_figures(reading: Reading) -> Table:
    """Every figure as a row, a column for each contestant."""
    groups: dict[str, list[Row]] = {}
    for which in reading.figures:
        cells = [figure_cell(reading, each["name"], which) for each in reading.contestants]
        detail = "; ".join(filter(None, (hint_of(which), direction_of(which))))
        row = Row(measure_of(which), cells, detail=detail)
        groups.setdefault(group_of(which), []).append(row)
    return Table(
        "all",
        f"All {len(reading.figures)} figures",
        "Figure",
        contestant_columns(reading),
        [RowGroup(title, rows) for title, rows in groups.items()],
        folded=True,
    )


def contestant_columns(reading: Reading, *, baselines: bool = True) -> list[Column]:
    """A column for each contestant, with its colour and sign."""
    chosen = reading.contestants if baselines else reading.models
    return [
        Column(each["name"], "baseline" if each["kind"] == "baseline" else "", reading.slot(name))
        for each in chosen
        for name in (each["name"],)
    ]


def figure_cell(reading: Reading, name: str, which: str) -> Cell:
    """A contestant's figure with its interval, its mark, and what it fails to beat."""
    found = reading.value(name, which)
    if found is None or found["value"] is None:
        return Cell(number(None))
    best = reading.best(which)
    mark = ""
    if best is not None and best[0] == name:
        mark = "best" if best[1] else "leads"
    missed = reading.unbeaten(name, which) if reading.slot(name) is not None else []
    return Cell(
        number(found["value"], which),
        found["value"],
        interval(found["low"], found["high"], which),
        mark,
        f"not better than {' and '.join(missed)}" if missed else "",
    )


def pairs_section(reading: Reading) -> Section | None:
    """Differences between models on the same frames, the certain ones first."""
    pairs = reading.report["pairs"]
    if not pairs:
        return None
    groups: dict[str, list[Row]] = {}
    for pair in sorted(pairs, key=lambda each: not each["certain"]):
        which = pair["figure"]
        words = "no difference" if pair["better"] is None else f"{pair['better']} is better"
        cells = [
            Cell(
                signed(pair["difference"], which),
                pair["difference"],
                interval(pair["low"], pair["high"], which),
            ),
            Cell("✓ certain" if pair["certain"] else "? not certain"),
            Cell(words if pair["certain"] else f"perhaps: {words}"),
            Cell(pair["why"]),
        ]
        head = f"{pair['a']} less {pair['b']}"
        detail = (
            f"{counted(pair['n_frames'], 'frame')}, {counted(pair['n_recordings'], 'recording')}"
        )
        groups.setdefault(title_of(which), []).append(Row(head, cells, detail=detail))
    order = [title_of(name) for name in reading.figures]
    primary = title_of(reading.primary) if reading.primary else ""
    table = Table(
        "pairs",
        "Paired differences on the frames that both answered",
        "Pair",
        [
            Column("Difference"),
            Column("Certain?", text=True),
            Column("Reading", text=True),
            Column("Why", text=True),
        ],
        [
            RowGroup(f"{title} ({_better(reading, title)})", groups[title])
            for title in sorted(
                groups, key=lambda t: (t != primary, order.index(t) if t in order else len(order))
            )
        ],
    )
    return Section(
        "pairs",
        "Differences",
        "Is the difference certain?",
        [
            "A difference is taken frame by frame, then averaged. It is certain if its interval "
            "leaves out 0 and rests on enough independent data."
        ],
        tables=[table],
    )


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
            Cell(each["why"]),
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


def _row(reading: Reading, name: str) -> Row:
    cells = [figure_cell(reading, name, which) for which in reading.headlines]
    return Row(name, cells, detail=_what(reading, name), slot=reading.slot(name))


def _what(reading: Reading, name: str) -> str:
    data = next(each for each in reading.contestants if each["name"] == name)
    words = [data["precision"], data["backend"], data["device"]]
    if data["kind"] == "topic":
        words.insert(0, "recorded topic")
    return ", ".join(word for word in words if word and word not in name)


def _of(which: str) -> str:
    return "; ".join(filter(None, (subject_of(which), hint_of(which), direction_of(which))))


def _better(reading: Reading, title: str) -> str:
    return next(
        (direction_of(name) for name in reading.figures if title_of(name) == title), "difference"
    )


def _intervals(reading: Reading) -> list[Drawing]:
    which = reading.primary
    rows: list[tuple[str, int | None, FigureValue]] = [
        (each["name"], reading.slot(each["name"]), found)
        for each in reading.contestants
        if (found := reading.value(each["name"], which)) is not None
    ]
    drawn = [
        (name, slot, found["value"], found["low"], found["high"])
        for name, slot, found in rows
        if found["value"] is not None
    ]
    if not drawn or charts.why_missing():
        return []
    spoken = "; ".join(
        f"{name} {number(value, which)} {interval(low, high, which)}".strip()
        for name, _, value, low, high in drawn
    )
    svg = charts.draw_intervals("intervals", drawn, charts.Axis(direction_of(which)))
    title = title_of(which)
    return [Drawing("intervals", title, svg, f"{title}, with intervals: {spoken}.")]
