"""``dense-perception benchmark stream``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from dense_perception.commands.arguments import add_stream, stream
from dense_perception.commands.output import show

if TYPE_CHECKING:
    from dense_perception.benchmarks.stream import StreamResult

HELP = "measure depth_node on a live stream between processes"
EXAMPLES = """examples:
  dense-perception benchmark stream
  dense-perception benchmark stream --model dpt_tiny_indoor --seconds 300 --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_stream(parser, model="dpt_tiny_indoor", seconds=60, rate=30)


def main(options: argparse.Namespace) -> int:
    """Returns 0, or 1 if less than 99 % of the images were answered."""
    from dense_perception.benchmarks.stream import measure_stream

    result = measure_stream(stream(options))
    show(result, table, options.json)
    return int(min(result.depth.answered_percent, result.points.answered_percent) < 99)


def table(result: StreamResult) -> str:
    """The table for a terminal."""
    lines = [
        f"model             {result.model}",
        f"backend           {result.backend}",
        f"stream            {result.stream}",
        f"start to active   {result.start_to_active_s:.2f} s",
        f"model's own time  {result.model_median_ms:.1f} ms (median)",
    ]
    for name, topic in (("depth", result.depth), ("cloud", result.points)):
        lines.append(
            f"{name:<18}{topic.answered_percent:.1f} % answered, {topic.median_ms:.1f} ms old on "
            f"arrival (p95 {topic.p95_ms:.1f}), added {topic.added_median_ms:.1f} ms "
            f"(p95 {topic.added_p95_ms:.1f}), in a Python callback "
            f"{topic.callback_added_median_ms:.1f} ms"
        )
    stages = ", ".join(f"{name} {value:.1f}" for name, value in result.stages_ms.items())
    lines += [
        f"stages (ms)       {stages}",
        f"node CPU          {result.node_cpu_percent:.0f} %",
        f"node memory       {result.memory_start_mb:.0f} MB, at the end {result.memory_end_mb:.0f}",
    ]
    if result.last_error:
        lines.append(f"last error        {result.last_error}")
    return "\n".join(lines)
