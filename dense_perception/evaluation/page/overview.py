"""The first part of the page: the verdict and the main table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dense_perception.evaluation.document import FigureValue
from dense_perception.evaluation.figures import IOU, is_of_class
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
    direction_of,
    group_of,
    hint_of,
    interval,
    measure_of,
    number,
    reach,
    reason,
    subject_of,
    title_of,
)

_SIGNS = (
    "★ best: certainly better than every other model. ☆ leads: the best value, but the difference "
    "to some other model is not certain or was not tested. Ranges in brackets are {level:g} % "
    "intervals."
)


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
    first, *others = reading.report["verdict"] or [
        {"text": "There is nothing to compare.", "pair": None}
    ]
    pair = reading.pair_of(first["pair"])
    return Verdict(
        first["text"],
        None if pair is None else pair["certain"],
        "" if pair is None else _sentence(reason(pair["why"])),
        [each["text"] for each in others],
        " ".join(filter(None, (reach(reading.report["method"]), _weight(reading)))),
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _weight(reading: Reading) -> str:
    """That most frames are of one source, where they are: the figures are mostly its."""
    data = [each for each in reading.report["data"] if each["scored"]]
    total = sum(each["scored"] for each in data)
    most = max(data, key=lambda each: each["scored"], default=None)
    if len(data) < 2 or most is None or most["scored"] <= total / 2:
        return ""
    return f"Each frame counts once, and {most['name']} has {most['scored']:,} of {total:,}."


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
    """Every figure as a row, a column for each contestant; of single classes those of labels."""
    groups: dict[str, list[Row]] = {}
    chosen = [n for n in reading.figures if not is_of_class(n) or n.startswith(IOU)]
    for which in chosen:
        cells = [figure_cell(reading, each["name"], which) for each in reading.contestants]
        detail = "; ".join(filter(None, (hint_of(which), direction_of(which))))
        row = Row(measure_of(which), cells, detail=detail)
        groups.setdefault(group_of(which), []).append(row)
    return Table(
        "all",
        f"All {len(chosen)} figures",
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


def _row(reading: Reading, name: str) -> Row:
    cells = [figure_cell(reading, name, which) for which in reading.headlines]
    return Row(name, cells, detail=_what(reading, name), slot=reading.slot(name))


def _what(reading: Reading, name: str) -> str:
    data = next(each for each in reading.contestants if each["name"] == name)
    words = [data["precision"], data["backend"], data["device"]]
    if data["kind"] == "topic":
        words.insert(0, "recorded topic")
    told: list[str] = []
    for word in words:
        if word and word not in name and not any(word in each for each in told):
            told.append(word)
    return ", ".join(told)


def _of(which: str) -> str:
    return "; ".join(filter(None, (subject_of(which), hint_of(which), direction_of(which))))


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
