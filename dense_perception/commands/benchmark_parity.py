"""``dense-perception benchmark parity``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dense_perception.commands.arguments import add_device, add_json, add_model
from dense_perception.commands.output import show

if TYPE_CHECKING:
    from dense_perception.benchmarks.parity import ParityResult

HELP = "Compare every precision in every installed backend with fp32: error, size, speed, memory."
EXAMPLES = """\
examples:
  dense-perception benchmark parity dpt_tiny_indoor
  dense-perception benchmark parity dpt_tiny_indoor --frames recording/ --picture parity.png
  dense-perception benchmark parity models/my_model.yaml --frames photos/ --json

Each cell is measured in a process of its own, with an empty cache, so that build time and peak
memory are its own. The reference is ONNX Runtime in fp32 on the same frames, on the CPU where the
device is a GPU: the card's reference frames, or --frames. max and mean are shares of the
reference's range; AbsRel and d1 are taken with the reference as the truth, agreement is the share
of equal labels. If --frames is a bag with depth, the aligned AbsRel and d1 against that depth
follow.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--frames", metavar="FOLDER|VIDEO|BAG", help="compare on these")
    parser.add_argument("--topic", help="a bag's colour topic (default: the only one)")
    parser.add_argument("--limit", type=int, default=24, metavar="N", help="of them (default 24)")
    parser.add_argument("--runs", type=int, default=40, help="timed runs of a cell (default 40)")
    add_device(parser)
    parser.add_argument("--picture", type=Path, metavar="PNG", help="draw the table there")
    add_json(parser)


def main(options: argparse.Namespace) -> int:
    """Returns 0, or 1 if a cell could not be measured."""
    from dense_perception.benchmarks.parity import measure_parity

    result = measure_parity(
        options.model,
        source=options.frames,
        limit=options.limit,
        runs=options.runs,
        device=options.device,
        threads=options.threads,
        picture=options.picture,
        topic=options.topic,
    )
    show(result, table, options.json)
    return int(any("error" in row for row in result["rows"]))


def table(result: ParityResult) -> str:
    """The table for a terminal."""
    rows: list[dict[str, Any]] = [
        {**row, **{f"true_{key}": value for key, value in row.get("truth", {}).items()}}
        for row in result["rows"]
    ]
    columns = [
        ("file_mb", "MB", ".1f"),
        ("build_s", "build s", ".2f"),
        ("median_ms", "median ms", ".1f"),
        ("p95_ms", "p95 ms", ".1f"),
        ("peak_mb", "peak MB", ".0f"),
        ("gpu_mb", "GPU MB", ".0f"),
        ("max_of_range", "max", ".5f"),
        ("mean_of_range", "mean", ".5f"),
        ("abs_rel", "AbsRel", ".4f"),
        ("d1", "d1", ".4f"),
        ("agreement", "agreement", ".4f"),
    ]
    columns += [
        ("true_aligned_abs_rel", "bag AbsRel", ".4f"),
        ("true_aligned_d1", "bag d1", ".4f"),
    ]
    shown = [column for column in columns if any(column[0] in row for row in rows)]
    lines = [
        f"{result['model']}: {result['network']}, {result['frames']} frames "
        f"({result['of']}), against {result['reference']}, {result['cpu']}",
        f"{'':22}" + "".join(f"{title:>11}" for _, title, _ in shown),
    ]
    for row in rows:
        if "error" in row:
            lines.append(f"{row['name']:22} {row['error']}")
            continue
        cells = [format(row[key], form) if key in row else "-" for key, _, form in shown]
        lines.append(f"{row['name']:22}" + "".join(f"{cell:>11}" for cell in cells))
    return "\n".join(lines)
