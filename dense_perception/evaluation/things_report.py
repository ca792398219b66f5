"""What an evaluation of things found, as a table for eyes and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dense_perception.core.errors import InputError
from dense_perception.core.json_text import json_text, parse_json
from dense_perception.core.printable import counted
from dense_perception.core.storage import atomic_write_text, read_file
from dense_perception.evaluation.page.write import FILE, page_environment, why_missing
from dense_perception.evaluation.things import ThingsReport

_AP = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "recall")
_AP_NAMES = ("AP", "AP50", "AP75", "small", "medium", "large", "recall")
_PQ_NAMES = ("PQ", "SQ", "RQ", "classes")
JSON = "report.json"
_MOST_BYTES = 64 << 20


def rows(report: ThingsReport) -> list[tuple[str, tuple[str, ...], list[float]]]:
    """Each line of the table: what it is of, the names of its figures, the figures."""
    found: list[tuple[str, tuple[str, ...], list[float]]] = []
    for name, precision in (("boxes", report.boxes), ("masks", report.masks)):
        if precision is not None:
            found.append((name, _AP_NAMES, [getattr(precision, key) for key in _AP]))
    if report.panoptic is not None:
        for name in ("all", "things", "stuff"):
            each = getattr(report.panoptic, name)
            found.append((name, _PQ_NAMES, [each.pq, each.sq, each.rq, each.classes]))
    return found


def by_class(report: ThingsReport) -> dict[str, float]:
    """AP of masks, else of boxes, or PQ of each class that occurs."""
    if report.panoptic is not None:
        return report.panoptic.by_class
    precision = report.masks or report.boxes
    return {} if precision is None else precision.by_class


def things_table(reports: Sequence[ThingsReport]) -> str:
    """The figures of each model, and its best and worst classes."""
    return "\n\n".join(_table(report) for report in reports)


def _table(report: ThingsReport) -> str:
    lines = [f"{report.model}, {counted(report.pictures, 'picture')}", ""]
    named: tuple[str, ...] = ()
    for name, names, values in rows(report):
        if names != named:
            lines.append(" " * 8 + "".join(f"{each:>9}" for each in names))
            named = names
        shown = [
            f"{v:9.0f}" if n == "classes" else _share(v) for n, v in zip(names, values, strict=True)
        ]
        lines.append(f"{name:8}" + "".join(shown))
    ranked = sorted(by_class(report).items(), key=lambda item: item[1])
    if len(ranked) > 1:
        worst = ", ".join(f"{name} {value:.2f}" for name, value in ranked[:3])
        best = ", ".join(f"{name} {value:.2f}" for name, value in ranked[:-4:-1])
        lines += ["", f"best classes    {best}", f"worst classes   {worst}"]
    return "\n".join(lines)


def _share(value: float) -> str:
    return f"{value:9.4f}" if value == value else f"{'-':>9}"


def refuse_others_report(folder: Path) -> None:
    """
    :raises InputError: if the folder holds a report, or a part of one, that is none of things.
    """
    taken = [name for name in (JSON, FILE, "frames.csv", "parts") if (folder / name).exists()]
    if not taken:
        return
    try:
        found = parse_json(read_file(folder / JSON, _MOST_BYTES))
        if isinstance(found, dict) and set(found) == {"truth", "models"}:
            return
    except (InputError, ValueError):
        pass
    raise InputError(
        f"{folder} has {', '.join(taken)} of something else, which this report would replace or "
        "stand beside: choose another folder with --out"
    )


def write_report(reports: Sequence[ThingsReport], truth: str, folder: Path) -> list[Path]:
    """``report.json``, and ``report.html`` where Jinja is installed; the files that were written.

    :raises InputError: if the folder or a file cannot be written.
    """
    summary = {"truth": truth, "models": [things_summary(report) for report in reports]}
    texts = {JSON: json_text(summary, 1)}
    if not why_missing():
        texts[FILE] = (
            page_environment()
            .get_template("things.html.j2")
            .render(truth=truth, models=[(each, rows(each), by_class(each)) for each in reports])
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            atomic_write_text(folder / name, text)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}") from error
    return [folder / name for name in texts]


def things_summary(report: ThingsReport) -> dict[str, object]:
    """Plain data: figures as shares of 0 to 1."""
    return {
        "model": report.model,
        "pictures": report.pictures,
        "boxes": report.boxes,
        "masks": report.masks,
        "panoptic": report.panoptic,
        "problems": list(report.problems),
    }
