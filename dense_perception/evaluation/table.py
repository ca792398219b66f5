"""A report as a table for eyes."""

from __future__ import annotations

from dense_perception.evaluation.document import FigureValue, Report
from dense_perception.evaluation.figures import KINDS, figure, in_order
from dense_perception.evaluation.page.wording import how_much, reach

_MAIN = (
    "depth.metric.absrel",
    "depth.metric.rmse",
    "depth.metric.d1",
    "depth.scaled.absrel",
    "depth.aligned.absrel",
    "depth.aligned.d1",
    "depth.scale",
    "depth.normals.mean_deg",
    "depth.boundary.f1",
    "depth.coverage",
    "labels.miou",
    "labels.accuracy",
    *(f"{kind}.{name}" for kind in KINDS for name in ("ap", "ap50")),
    "panoptic.pq",
    "panoptic.things.pq",
    "panoptic.stuff.pq",
    "panoptic.sq",
    "panoptic.rq",
    "normals.mean_deg",
    "edges.l1",
    "keypoints.l1",
    "confidence.ece",
    "temporal.scale_jitter",
    "temporal.flicker",
)
_WIDEST = 26
_TIME = "own time [ms]"


def report_table(report: Report) -> str:
    """The verdict, and the main figures with their intervals, a column for each contestant."""
    names = [each["name"] for each in report["contestants"]]
    shown = [
        name
        for name in in_order(set(_MAIN))
        if any(name in report["figures"].get(each, {}) for each in names)
    ]
    lines = [verdict["text"] for verdict in report["verdict"]]
    lines += ["", how_much(report["data"]), ""]
    widths = [max(24, min(_WIDEST, len(name)) + 2) for name in names]
    heads = [_cut(name).rjust(width) for name, width in zip(names, widths, strict=True)]
    rows = {name: f"{name} [{figure(name).unit}]" if figure(name).unit else name for name in shown}
    left = 2 + max([len(_TIME), *map(len, rows.values())])
    lines.append(" " * left + "".join(heads))
    for name in shown:
        cells = [_cell(report["figures"].get(each, {}).get(name)) for each in names]
        texts = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        lines.append(f"{rows[name]:{left}}" + "".join(texts))
    for change in report["changes"]:
        if change["verdict"] != "same":
            lines.append(
                f"{change['verdict']} than before: {change['contestant']} {change['figure']} "
                f"{change['before']:.4g} -> {change['after']:.4g}"
            )
    costs = [each["latency_ms"] for each in report["contestants"]]
    texts = ["-" if ms is None else f"{ms['median']:.1f}" for ms in costs]
    cells = [text.rjust(width) for text, width in zip(texts, widths, strict=True)]
    lines.append(f"{_TIME:{left}}" + "".join(cells))
    shared = max((ms.get("workers", 1) for ms in costs if ms is not None), default=1)
    if shared > 1:
        lines.append(
            f"own times are of {shared} workers that shared the cores: measure with --workers 1"
        )
    lines += ["", reach(report["method"])]
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def _cell(found: FigureValue | None) -> str:
    if found is None or found["value"] is None:
        return "-"
    if found["low"] is None or found["high"] is None:
        return f"{found['value']:.3f}"
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def _cut(name: str) -> str:
    return name if len(name) <= _WIDEST else f"{name[: _WIDEST - 3]}..."
