"""The one table of ``python -m pytest -m gpu``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = ("build s", "median ms", "GPU MB", "error", "x TensorRT", "x roofline")
WANTED = "wanted: ONNX Runtime at most 1.5 times TensorRT, DPT-Base in fp16 at most 2 the roofline"


def summary(results: Sequence[Mapping[str, Any]], gpu: str) -> str:
    """One line a cell; ``error`` is the mean over the range, of labels the share that agrees.

    ``x`` columns are the latency over TensorRT's of the same precision, and over the roofline.
    """
    lines = [f"{gpu}; random weights but for the shipped models; {WANTED}"]
    for result in results:
        lines += ["", f"{result['model']}, {result['network']}"]
        lines.append(f"{'':24}" + "".join(f"{title:>12}" for title in COLUMNS))
        rows = result["rows"]
        of_tensorrt = {
            row["name"].partition("/")[2]: row.get("median_ms")
            for row in rows
            if row["name"].startswith("tensorrt/")
        }
        for row in rows:
            if "error" in row:
                lines.append(f"{row['name']:24}  {row['error']}")
                continue
            precision = row["name"].partition("/")[2]
            lines.append(f"{row['name']:24}" + "".join(_cells(row, precision, result, of_tensorrt)))
            if row.get("problem"):
                lines.append(f"{'':24}  {row['problem']}")
    return "\n".join(lines)


def _cells(
    row: Mapping[str, Any],
    precision: str,
    result: Mapping[str, Any],
    of_tensorrt: Mapping[str, float | None],
) -> list[str]:
    median_ms = row["median_ms"]
    error = (
        f"{row['agreement']:.4f}" if "agreement" in row else _form(row.get("mean_of_range"), ".1e")
    )
    return [
        f"{text:>12}"
        for text in (
            _form(row["build_s"], ".1f"),
            _form(median_ms, ".2f"),
            _form(row.get("gpu_mb"), ".0f"),
            error,
            _ratio(median_ms, of_tensorrt.get(precision)),
            _ratio(median_ms, result["bound_ms"].get(precision)),
        )
    ]


def _ratio(value: float, of: float | None) -> str:
    return _form(value / of if of else None, ".2f")


def _form(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
