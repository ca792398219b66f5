"""``dense-perception benchmark outputs``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from dense_perception.commands.arguments import add_stream, stream
from dense_perception.commands.output import show

if TYPE_CHECKING:
    from dense_perception.benchmarks.outputs import OutputsResult

HELP = "measure the processor time of each output of multitask_node beyond the model"
EXAMPLES = """examples:
  dense-perception benchmark outputs
  dense-perception benchmark outputs --seconds 15 --rate 30 --json

Needs the `onnx` package, to write the model that gives the recorded answer. The exit code is 1 if
all outputs together cost more than --budget-ms."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_stream(parser, model="mult_tiny_indoor", seconds=8, rate=15)
    parser.add_argument(
        "--budget-ms", type=float, default=10.0, help="limit for all outputs (default: 10)"
    )


def main(options: argparse.Namespace) -> int:
    """Returns 0, or 1 if all outputs together cost more than ``--budget-ms``."""
    from dense_perception.benchmarks.outputs import measure_outputs

    result = measure_outputs(stream(options))
    show(result, table, options.json)
    return int(result.all_outputs.beyond_ms > options.budget_ms)


def table(result: OutputsResult) -> str:
    """The table for a terminal."""
    lines = [
        f"multitask_node, {result.model} recorded, {result.stream}, {result.seconds_each:g} s each",
        f"{'subscribed':<26}{'CPU a frame':>13}{'beyond nobody':>16}{'answered':>10}",
        f"{'nobody':<26}{result.nobody_ms:>10.2f} ms",
    ]
    for cost in (*result.outputs, result.all_outputs):
        lines.append(
            f"{cost.output:<26}{cost.cpu_ms:>10.2f} ms{cost.beyond_ms:>13.2f} ms"
            f"{cost.answered_percent:>8.1f} %"
        )
    return "\n".join(lines)
