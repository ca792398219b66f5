"""``dense-perception benchmark nav2``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from dense_perception.commands.arguments import add_stream, stream
from dense_perception.commands.output import show

if TYPE_CHECKING:
    from dense_perception.benchmarks.nav2 import Nav2Result

HELP = "count which of multitask_node's answers a consumer like Nav2's semantic layer accepts"
EXAMPLES = """examples:
  dense-perception benchmark nav2
  dense-perception benchmark nav2 --seconds 300 --rate 10 --json

The exit code is 1 if less than 99 % of the answered frames were accepted, or none was."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_stream(parser, model="mult_tiny_indoor", seconds=60, rate=15)


def main(options: argparse.Namespace) -> int:
    """Returns 0, or 1 if less than 99 % of the answered frames were accepted."""
    from dense_perception.benchmarks.nav2 import measure_nav2

    result = measure_nav2(stream(options))
    show(result, table, options.json)
    return int(not result.accepted_percent >= 99)


def table(result: Nav2Result) -> str:
    """The table for a terminal."""
    stages = ", ".join(f"{name} {value:.1f}" for name, value in result.stages_ms.items())
    lines = [
        f"model         {result.model}",
        f"stream        {result.stream}",
        f"LabelInfo     {result.label_info}",
        f"answered      {result.answered} of {result.sent} pictures",
        f"accepted      {result.accepted}, {result.accepted_percent:.2f} % of the answered",
        *(f"refused       {count}: {reason}" for reason, count in result.refused.items()),
        f"stages (ms)   {stages}",
        f"node          {result.node_cpu_percent:.0f} % CPU, {result.node_memory_mb:.0f} MB",
    ]
    if result.last_error:
        lines.append(f"last error    {result.last_error}")
    return "\n".join(lines)
