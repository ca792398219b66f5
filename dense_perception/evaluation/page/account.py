"""The last part of the page: what it costs, what was left out, how the numbers were made."""

from __future__ import annotations

import shlex

from dense_perception.core.printable import counted
from dense_perception.evaluation.document import Skipped
from dense_perception.evaluation.figures import figure
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
    NONE,
    direction_of,
    kind_of,
    moment,
    number,
    reach,
    title_of,
)


def cost_section(reading: Reading) -> Section | None:
    """Time and memory of each model on this machine, and accuracy against time."""
    measured = [each for each in reading.models if each["latency_ms"] or each["memory_mb"]]
    if not measured:
        return None
    rows = []
    for each in reading.models:
        latency, memory = each["latency_ms"], each["memory_mb"]
        rows.append(
            Row(
                each["name"],
                [
                    _cost(None if latency is None else latency["median"], 1),
                    _cost(None if latency is None else latency["p95"], 1),
                    _cost(1000 / latency["median"] if latency and latency["median"] else None, 1),
                    _cost(memory, 0),
                    Cell(each["backend"] or NONE),
                    Cell(each["device"] or NONE),
                    Cell(each["precision"] or NONE),
                ],
                slot=reading.slot(each["name"]),
            )
        )
    table = Table(
        "cost",
        "Time and memory on this machine",
        "Model",
        [
            Column("Median", "ms a frame"),
            Column("95th percentile", "ms a frame"),
            Column("Rate", "frames a second"),
            Column("Memory", "MB"),
            Column("Backend", text=True),
            Column("Device", text=True),
            Column("Precision", text=True),
        ],
        [RowGroup("", rows)],
    )
    machine = reading.report["machine"]
    times = [each["latency_ms"] for each in reading.models]
    workers = max((ms.get("workers", 1) for ms in times if ms is not None), default=1)
    shared = f" {workers} workers shared the cores: --workers 1 measures a model alone."
    return Section(
        "cost",
        "Cost",
        "What does it cost?",
        [
            f"Measured on {machine['processor'] or 'this machine'}, "
            f"{counted(machine['cores'], 'core')}, on frames during which nothing else "
            f"was read or scored.{shared if workers > 1 else ''}"
        ],
        tables=[table],
        drawings=_accuracy_against_time(reading),
        legend=reading.legend(each["name"] for each in reading.models if each["latency_ms"]),
    )


def _amount(gap: Skipped) -> str:
    """``1 frame``, ``3 outputs``, ``all of it``."""
    thing = gap["what"].removesuffix("s")
    return gap["what"] if thing == gap["what"] else counted(gap["count"], thing)


def skipped_section(reading: Reading) -> Section:
    """Every recording with what was used of it; what was left out, and why."""
    thing = kind_of(reading.report["data"])
    used = [
        Row(
            each["name"],
            [
                Cell(each["kind"]),
                Cell(f"{each['frames']:,}", each["frames"]),
                Cell(f"{each['scored']:,}", each["scored"]),
                Cell(
                    "; ".join(f"{_amount(gap)}: {gap['why']}" for gap in each["skipped"])
                    or "nothing"
                ),
            ],
            detail=each["path"] if each["path"] != each["name"] else "",
        )
        for each in reading.report["data"]
    ]
    failed = [
        Row(each["name"], [Cell(_amount(gap), gap["count"]), Cell(gap["why"])])
        for each in reading.contestants
        for gap in each["failed"]
    ]
    assumed = [
        Row(
            each["name"],
            [
                Cell(counted(each["intrinsics_assumed"], "frame"), each["intrinsics_assumed"]),
                Cell("no calibration: the field of view was assumed, metres are a guess"),
            ],
        )
        for each in reading.contestants
        if each["intrinsics_assumed"]
    ]
    tables = [
        Table(
            "data",
            f"Data: {counted(len(used), thing)}",
            thing.capitalize(),
            [
                Column("Kind", text=True),
                Column("Frames"),
                Column("Scored"),
                Column("Left out", text=True),
            ],
            [RowGroup("", used)],
            folded=len(used) > 24 and not any(each["skipped"] for each in reading.report["data"]),
        )
    ]
    if failed or assumed:
        tables.append(
            Table(
                "failed",
                "What contestants did not answer, or not fully",
                "Contestant",
                [Column("How many", text=True), Column("Why", text=True)],
                [RowGroup("", [*failed, *assumed])],
            )
        )
    problems = reading.report["problems"]
    if problems:
        tables.append(
            Table(
                "problems",
                "Problems on the way",
                "Number",
                [Column("Problem", text=True)],
                [
                    RowGroup(
                        "", [Row(str(k), [Cell(text)]) for k, text in enumerate(problems, start=1)]
                    )
                ],
            )
        )
    nothing = (
        not failed and not problems and not any(gap["skipped"] for gap in reading.report["data"])
    )
    return Section(
        "skipped",
        "Data and gaps",
        "What was used, what was skipped?",
        ["Nothing was skipped."] if nothing else [],
        tables=tables,
    )


def made_section(reading: Reading) -> Section:
    """The command, versions, machine and files; what each figure means."""
    report, machine, method = reading.report, reading.report["machine"], reading.report["method"]
    memory = "" if machine["memory_gb"] is None else f", {machine['memory_gb']:.1f} GB of memory"
    facts = [
        ("Command", shlex.join(report["command"])),
        ("Made", moment(report["created"])),
        ("Versions", ", ".join(f"{name} {text}" for name, text in report["versions"].items())),
        (
            "Machine",
            f"{machine['processor']}, {counted(machine['cores'], 'core')}{memory}; "
            f"{machine['system']}; accelerators: {', '.join(machine['accelerators']) or 'none'}",
        ),
        ("Intervals", _intervals(reading)),
    ]
    if method["crop"]:
        facts.append(("Crop", method["crop"]))
    if method["max_depth_m"] is not None:
        facts.append(("Truth", f"depth up to {method['max_depth_m']:g} m counts"))
    if "sampled" in method:
        facts.append(("Frames judged in full", method["sampled"]))
    files = [
        Row(each["name"], [Cell(each["file"] or NONE), Cell(each["sha256"] or NONE)])
        for each in reading.models
    ]
    meanings = [
        Row(
            title_of(name),
            [Cell(name), Cell(direction_of(name)), Cell(figure(name).definition)],
        )
        for name in reading.figures
    ]
    return Section(
        "made",
        "Method",
        "How was this made?",
        facts=facts,
        tables=[
            Table(
                "files",
                "Files of the models",
                "Model",
                [Column("File", text=True), Column("SHA-256", text=True)],
                [RowGroup("", files)],
                folded=True,
            ),
            Table(
                "meanings",
                "What each figure means",
                "Figure",
                [
                    Column("Name", text=True),
                    Column("Unit and direction", text=True),
                    Column("Definition", text=True),
                ],
                [RowGroup("", meanings)],
                folded=True,
            ),
        ],
    )


def _cost(value: float | None, digits: int) -> Cell:
    return Cell(NONE) if value is None else Cell(f"{value:,.{digits}f}", value)


def _intervals(reading: Reading) -> str:
    method = reading.report["method"]
    if method["unit"] == "none":
        return f"none: {method['speaks_for']}"
    drawn = {"recordings": "recording", "blocks": "block"}[method["unit"]]
    of_time = " of time" if method["unit"] == "blocks" else ""
    return (
        f"{100 * method['level']:g} %, from {method['resamples']:,} draws (bootstrap) of "
        f"{counted(method['units'], drawn)}{of_time}, seed {method['seed']}. {reach(method)}"
    )


def _accuracy_against_time(reading: Reading) -> list[Drawing]:
    which = reading.primary
    series = [
        charts.Series(
            each["name"],
            reading.slot(each["name"]),
            [latency["median"]],
            [found["value"]],
            [found["low"]],
            [found["high"]],
        )
        for each in reading.models
        if (latency := each["latency_ms"]) is not None
        and (found := reading.value(each["name"], which)) is not None
        and found["value"] is not None
    ]
    if len(series) < 2 or charts.why_missing():
        return []
    title = f"{title_of(which)} against time"
    axes = (
        charts.Axis("median ms a frame, less is faster", low=0),
        charts.Axis(f"{title_of(which)}, {direction_of(which)}"),
    )
    spoken = "; ".join(
        f"{each.name} {each.x[0]:.1f} ms and {number(each.y[0], which)}" for each in series
    )
    return [
        Drawing(
            "tradeoff", title, charts.draw_points("tradeoff", series, *axes), f"{title}: {spoken}."
        )
    ]
