"""``dense-perception demo``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dense_perception.commands.arguments import add_json
from dense_perception.commands.output import complain, show

if TYPE_CHECKING:
    from dense_perception.ros.demo import DemoReport

HELP = "play a small bag through depth_node in real ROS 2 processes, and show the answers"
EXAMPLES = """examples:
  dense-perception demo --output out/demo
  dense-perception demo --bag my_bag --model dpt_tiny_indoor --output out/mine

Writes pictures/ (camera, depth and legend side by side), bag/ (a rosbag2 MCAP bag with input and
answers) and logs/. The exit code is 1 if a frame was not answered."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, required=True, help="folder for the answers")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier demo there")
    parser.add_argument("--bag", type=Path, help="default: the one in the package")
    parser.add_argument("--model", default="dpt_tiny_indoor", help="name or ONNX file")
    parser.add_argument(
        "--rate",
        type=float,
        default=0.5,
        help="speed of the player; by default slow, so that a small machine answers every frame",
    )
    parser.add_argument("--topic", help="image topic, where the bag has several")
    add_json(parser)


def main(options: argparse.Namespace) -> int:
    """Returns 0, or 1 if a frame was not answered."""
    from dense_perception.ros.demo import EMBEDDED_BAG, DemoOptions, run_demo

    report = run_demo(
        DemoOptions(
            output=options.output,
            overwrite=options.overwrite,
            bag=options.bag or EMBEDDED_BAG,
            model=options.model,
            rate=options.rate,
            topic=options.topic,
        )
    )
    show(report, table, options.json)
    for problem in report.problems:
        complain(problem)
    return int(report.answered < report.frames_in or bool(report.problems))


def table(report: DemoReport) -> str:
    """The table for a terminal."""
    rows = {
        "frames in": str(report.frames_in),
        "answered": str(report.answered),
        "latency": f"{report.latency_median_ms:.1f} ms median, {report.latency_p95_ms:.1f} ms p95",
        "model": report.model,
        "backend": report.backend.partition(";")[0],  # what was passed over is in the node's log
        "node memory": f"{report.node_memory_mb:.0f} MB",
        "pictures": report.pictures,
        "result bag": report.bag,
    }
    return "\n".join(f"{name:<14}{value}" for name, value in rows.items())
