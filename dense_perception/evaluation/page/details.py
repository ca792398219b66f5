"""Where a model is good: by true distance, by confidence, on slices of the data, by class."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from dense_perception.core.printable import counted
from dense_perception.evaluation.document import Point, SliceValue
from dense_perception.evaluation.page import charts
from dense_perception.evaluation.page.differences import with_more
from dense_perception.evaluation.page.elements import (
    Cell,
    Column,
    Drawing,
    Row,
    RowGroup,
    Section,
    Table,
)
from dense_perception.evaluation.page.overview import contestant_columns
from dense_perception.evaluation.page.reading import Reading
from dense_perception.evaluation.page.wording import (
    direction_of,
    interval,
    number,
    title_of,
)

_BY_DISTANCE = ("scale_by_distance", "absrel_by_distance")
_AXES = ("distance", "class", "brightness", "sharpness", "blur")  # then others, as recording
_AXIS_NOTES = {
    "brightness": "Mean gray of the picture, from 0 (black) to 1.",
    "sharpness": "Variance of the Laplacian of the gray picture: blur makes it low.",
}
_WIDE = 3.0  # values this far apart need a logarithmic scale
_OPEN_ROWS = 12  # a longer table is folded, or cut with the rest folded


def distance_section(reading: Reading) -> Section | None:
    """The scale and the error over the true distance."""
    drawings = [
        drawing
        for key, title, label, reference, note in (
            (
                "scale_by_distance",
                "Scale by true distance",
                "prediction / truth",
                1.0,
                "Above 1 things seem farther than they are, below 1 nearer.",
            ),
            (
                "absrel_by_distance",
                "AbsRel by true distance",
                "AbsRel",
                None,
                "Lower is better.",
            ),
        )
        if (drawing := _distance_drawing(reading, key, title, label, reference, note))
    ]
    curves = reading.report["curves"]
    judged = [curves[each["name"]] for each in reading.models if each["name"] in curves]
    if not drawings or not any(each[key] for each in judged for key in _BY_DISTANCE):  # type: ignore[literal-required]
        return None
    return Section(
        "distance",
        "Distance",
        "How does it depend on the distance?",
        drawings=drawings,
        legend=reading.legend(
            name
            for name in curves
            if any(curves[name][key] for key in _BY_DISTANCE)  # type: ignore[literal-required]
        ),
    )


def reliability_section(reading: Reading) -> Section | None:
    """How often a label is right, by the confidence that came with it."""
    series: list[charts.Series] = []
    rows: list[Row] = []
    for name, curves in reading.report["curves"].items():
        said: list[float] = []
        right: list[float | None] = []
        for point in curves["reliability"]:
            if point["said"] is None or point["right"] is None:
                continue
            said.append(point["said"])
            right.append(point["right"])
            cells = [
                Cell(number(point["said"]), point["said"]),
                Cell(number(point["right"]), point["right"]),
                Cell(f"{point['pixels']:,.0f}", point["pixels"]),
            ]
            rows.append(Row(f"{name}: {point['x_low']:.2f} to {point['x_high']:.2f}", cells))
        if said:
            series.append(charts.Series(name, reading.slot(name), said, right))
    if not series:
        return None
    title = "Share of right labels by confidence"
    columns = [Column("Confidence, mean"), Column("Share right"), Column("Pixels")]
    table = Table("reliability", title, "Model: confidence", columns, [RowGroup("", rows)])
    axes = (charts.Axis("confidence", low=0, high=1), charts.Axis("share right", low=0, high=1))
    svg = (
        "" if charts.why_missing() else charts.draw_lines("reliable", series, *axes, diagonal=True)
    )
    drawing = Drawing(
        "reliable",
        title,
        svg,
        f"{title} for {', '.join(each.name for each in series)}; the numbers are in the table.",
        "On the dotted diagonal a confidence of 0.8 is right in 8 of 10 pixels. Below it the model "
        "is too sure of itself.",
        table,
    )
    return Section(
        "reliability",
        "Confidence",
        "Can its confidence be trusted?",
        drawings=[drawing],
        legend=reading.legend(each.name for each in series),
    )


def slices_section(reading: Reading) -> Section | None:
    """A table for each axis and figure."""
    found: dict[tuple[str, str], dict[str, dict[str, SliceValue]]] = {}
    for name, axes in reading.report["slices"].items():
        for axis, values in axes.items():
            for value in values:
                bins = found.setdefault((axis, value["figure"]), {})
                bins.setdefault(value["bin"], {})[name] = value
    if not found:
        return None
    order = {name: k for k, name in enumerate((reading.primary, *reading.figures))}
    tables: list[Table] = []
    models = {each["name"] for each in reading.models}
    # Baselines are sliced in every way that any model may be judged.
    found = {
        key: bins
        for key, bins in found.items()
        if any(models & row.keys() for row in bins.values())
    }
    axes_found = {axis for axis, _ in found}
    known = [axis for axis in _AXES if axis in axes_found]
    for axis in (*known, *sorted(axes_found - set(known))):
        figures = sorted(
            (which for each, which in found if each == axis),
            key=lambda which: order.get(which, len(order)),
        )
        first, *more = (_slice_table(reading, axis, which, found[axis, which]) for which in figures)
        tables.append(with_more(first, more, f"By {axis}: other figures") if more else first)
    if not tables:
        return None
    return Section(
        "slices",
        "Slices",
        "Where is it good, where not?",
        [
            "The same figures on parts of the data. Bars start at 0 and are full at the largest "
            "value of a model."
        ],
        tables=tables,
    )


def classes_section(reading: Reading) -> Section | None:
    """IoU of each class, the most frequent classes first."""
    per_class = reading.report["per_class"]
    names = [each["name"] for each in reading.contestants if per_class.get(each["name"])]
    if not any(per_class.get(each["name"]) for each in reading.models):
        return None
    shares: dict[str, float] = {}
    for name in names:
        for each in per_class[name]:
            shares.setdefault(each["name"], each["share"])
    by_name = {name: {each["name"]: each for each in per_class[name]} for name in names}
    rows: list[Row] = []
    for label in sorted(shares, key=lambda label: -shares[label]):
        cells = [Cell(f"{100 * shares[label]:.1f} %", shares[label])]
        for name in names:
            value = by_name[name].get(label)
            iou = None if value is None else value["iou"]
            cells.append(
                Cell(
                    number(iou),
                    iou,
                    "" if value is None else interval(value["low"], value["high"]),
                    bar=iou,
                )
            )
            accuracy = None if value is None else value["accuracy"]
            cells.append(Cell(number(accuracy), accuracy))
        rows.append(Row(label, cells))
    columns = [Column("Share of the true pixels")]
    for name in names:
        columns.append(Column(name, "IoU", reading.slot(name)))
        columns.append(Column(name, "accuracy (recall)", reading.slot(name)))
    first, rest = rows[: 2 * _OPEN_ROWS], rows[2 * _OPEN_ROWS :]
    tables = [
        Table(
            "classes", "Intersection over union by class", "Class", columns, [RowGroup("", first)]
        )
    ]
    if rest:
        caption = counted(len(rest), "rarer class")
        tables.append(
            Table("classes-rest", caption, "Class", columns, [RowGroup("", rest)], folded=True)
        )
    return Section("classes", "Classes", "Which classes does it know?", tables=tables)


def _distance_drawing(
    reading: Reading, key: str, title: str, label: str, reference: float | None, note: str
) -> Drawing | None:
    lines: dict[str, Sequence[Point]] = {}
    for name, curves in reading.report["curves"].items():
        points: Sequence[Point] = curves[key]  # type: ignore[literal-required]
        # Only as far as something was measured; the last bin has no end to draw it at.
        points = [each for each in points if _is_finite(each)]
        measured = [k for k, each in enumerate(points) if each["value"] is not None]
        points = points[measured[0] : measured[-1] + 1] if measured else []
        if points:
            lines[name] = points
    if not lines:
        return None
    series = [
        charts.Series(
            name,
            reading.slot(name),
            [(point["x_low"] + point["x_high"]) / 2 for point in points],
            [point["value"] for point in points],
            [point["low"] for point in points],
            [point["high"] for point in points],
        )
        for name, points in lines.items()
    ]
    bins = list(
        dict.fromkeys(
            (each["x_low"], each["x_high"]) for points in lines.values() for each in points
        )
    )
    of_bin = {
        name: {(each["x_low"], each["x_high"]): each for each in points}
        for name, points in lines.items()
    }
    rows = [
        Row(
            f"{low:g} to {high:g} m",
            [_point_cell(of_bin[name].get((low, high))) for name in lines],
        )
        for low, high in bins
    ]
    columns = [Column(name, slot=reading.slot(name)) for name in lines]
    table = Table(key, title, "True distance", columns, [RowGroup("", rows)])
    known = [value for each in series for value in each.y if value is not None]
    is_wide = min(known) > 0 and max(known) > _WIDE * min(known)
    axes = (
        charts.Axis("true distance, m", low=0),
        charts.Axis(label, log=is_wide, reference=reference),
    )
    return Drawing(
        key,
        title,
        "" if charts.why_missing() else charts.draw_lines(key, series, *axes),
        f"{title} for {', '.join(lines)}; the numbers are in the table.",
        note,
        table,
    )


def _is_finite(point: Point) -> bool:
    high: float | None = point["x_high"]  # a report from its file has null for infinity
    return high is not None and math.isfinite(high)


def _point_cell(point: Point | None) -> Cell:
    if point is None or point["value"] is None:
        return Cell(number(None))
    return Cell(number(point["value"]), point["value"], interval(point["low"], point["high"]))


def _slice_table(
    reading: Reading,
    axis: str,
    which: str,
    bins: dict[str, dict[str, SliceValue]],
) -> Table:
    models = {each["name"] for each in reading.models}
    # A baseline that is far off must not make the models' bars too short to compare.
    largest = max(
        (
            abs(each["value"])
            for row in bins.values()
            for name, each in row.items()
            if name in models and each["value"]
        ),
        default=1.0,
    )
    present = {name for row in bins.values() for name in row}
    named = [each["name"] for each in reading.contestants if each["name"] in present]
    rows = []
    for part, row in bins.items():
        if all(each["value"] is None for each in row.values()):
            continue
        cells = [_slice_cell(row.get(name), which, largest) for name in named]
        frames = max(each["n"] for each in row.values())
        rows.append(Row(_bin(axis, part), cells, detail=counted(frames, "frame")))
    columns = [each for each in contestant_columns(reading) if each.head in present]
    return Table(
        f"slice-{axis}-{which}",
        f"By {axis}: {title_of(which)} ({direction_of(which)})",
        axis.capitalize(),
        columns,
        [RowGroup("", rows)],
        note=_AXIS_NOTES.get(axis, ""),
        folded=len(rows) > _OPEN_ROWS,
    )


def _slice_cell(value: SliceValue | None, which: str, largest: float) -> Cell:
    if value is None or value["value"] is None:
        return Cell(number(None))
    return Cell(
        number(value["value"], which),
        value["value"],
        interval(value["low"], value["high"], which),
        bar=abs(value["value"]) / largest,
    )


def _bin(axis: str, part: str) -> str:
    low, dash, high = part.partition("-")
    if axis != "distance" or not dash:
        return part
    return f"over {low} m" if high == "inf" else f"{low} to {high} m"


SECTIONS: Sequence[Callable[[Reading], Section | None]] = (
    distance_section,
    reliability_section,
    slices_section,
    classes_section,
)
