"""``dense-perception benchmark plan``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from dense_perception.commands.arguments import add_json
from dense_perception.commands.output import show

if TYPE_CHECKING:
    from dense_perception.benchmarks.plan import PlanResult

HELP = "Predict latency and memory on a device from its published peak rates (roofline)."
EXAMPLES = """\
examples:
  dense-perception benchmark plan dpt_tiny_indoor
  dense-perception benchmark plan depth_anything_v2_small --device orin-nano orin-nx
  dense-perception benchmark plan --device orin-nano --fps 30
  dense-perception benchmark plan dpt_large_midas --device cpu --json
  dense-perception benchmark plan dpt_tiny_indoor --device orin-nx --tensorrt 8.6

No weights are needed. `bound` is the roofline (see docs/planning.md); `planned` divides it by
--efficiency. `measured` is this machine, where the model's files are here. With --fps, the given
model (or every known one) at its own and smaller sizes, and whether `planned` keeps that rate.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = "orin-nano, orin-nx, agx-orin, thor, rtx4090, h100, cpu"
    parser.add_argument("model", nargs="?", help="a model's name, card or file (default: all)")
    parser.add_argument(
        "--device", nargs="+", metavar="D", help=f"some of {names} (default: all of them)"
    )
    parser.add_argument(
        "--fps", type=float, metavar="N", help="which sizes keep N frames a second?"
    )
    parser.add_argument(
        "--efficiency",
        type=float,
        default=0.4,
        help="share of the roofline to plan with (default 0.4)",
    )
    parser.add_argument(
        "--tensorrt",
        choices=("8.5", "8.6"),
        help="say what this version takes of the model's files (JetPack 5.1, 6.0)",
    )
    parser.add_argument("--no-measure", action="store_true", help="measure nothing here")
    add_json(parser)


def main(options: argparse.Namespace) -> int:
    """Returns 0, or 1 if a model had to be passed over."""
    from dense_perception.benchmarks.plan import plan_models

    result = plan_models(
        options.model,
        devices=options.device,
        fps=options.fps,
        efficiency=options.efficiency,
        measure=not options.no_measure,
        tensorrt=options.tensorrt or "",
    )
    show(result, table, options.json)
    return int(bool(result["passed_over"]))


def table(result: PlanResult) -> str:
    """The table for a terminal."""
    head = (
        f"{'model':36}{'size':>10} {'device':<10}{'':6}{'GFLOP':>8}{'bound ms':>10}"
        f"{'planned':>9}{'per s':>8}{'MB':>8}{'measured':>10}"
    )
    lines = [head + ("  fast enough" if any("fits" in row for row in result["rows"]) else "")]
    for row in result["rows"]:
        measured = f"{row['measured_ms']:.2f}" if "measured_ms" in row else "-"
        line = (
            f"{row['model']:36}{row['size']:>10} {row['device']:<10}{row['precision']:6}"
            f"{row['gflop']:>8.1f}{row['bound_ms']:>10.2f}{row['planned_ms']:>9.1f}"
            f"{row['fps']:>8.1f}{row['memory_mb']:>8.0f}{measured:>10}"
        )
        lines.append(line + ("  yes" if row.get("fits") else ""))
    lines.append(f"planned at {result['efficiency']:g} of the roofline; peak rates:")
    lines += [f"  {name}: {source}" for name, source in result["devices"].items()]
    if result["tensorrt"]:
        lines += ["TensorRT 8, by its sources:", *(f"  {line}" for line in result["tensorrt"])]
    lines += [f"passed over: {problem}" for problem in result["passed_over"]]
    return "\n".join(lines)
