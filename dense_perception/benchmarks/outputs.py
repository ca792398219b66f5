"""``dense-perception benchmark outputs``: the processor time of each output of multitask_node.

A camera, the node and a listener in three processes. The node runs a model whose one answer was
recorded beforehand, so what is left is what the node itself does: receiving, converting, enlarging,
making and sending messages. The processor time of all its threads is divided by the frames, with
nobody subscribed, with each output alone, and with all of them.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from dense_perception.benchmarks.recorded_model import record_answer
from dense_perception.benchmarks.session import (
    add_stream_arguments,
    open_session,
    stream_name,
)
from dense_perception.ros.processes import ChildProcess, cpu_s

if TYPE_CHECKING:
    from dense_perception.benchmarks.listener import Listener
    from dense_perception.core.card import ModelCard
    from dense_perception.ros.topics import TopicSpec

HELP = "measure the processor time of each output of multitask_node beyond the model"
EXAMPLES = """examples:
  dense-perception benchmark outputs
  dense-perception benchmark outputs --seconds 15 --rate 30 --json

Needs the `onnx` package, to write the model that gives the recorded answer. The exit code is 1 if
all outputs together cost more than --budget-ms."""

_NODE = "/multitask_node"
_SETTLE_S = 1.5


@dataclass(frozen=True)
class OutputCost:
    """``cpu_ms``: of all threads of the node, a frame; ``beyond_ms``: more than with nobody
    subscribed, so the picture's conversion and the enlarging of what the output needs are in it.
    """

    output: str
    cpu_ms: float
    beyond_ms: float
    answered_percent: float


@dataclass(frozen=True)
class OutputsResult:
    model: str
    stream: str
    seconds_each: float
    nobody_ms: float
    outputs: list[OutputCost]
    all_outputs: OutputCost


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_stream_arguments(parser, model="mult_tiny_indoor", seconds=8, rate=15)
    parser.add_argument(
        "--budget-ms", type=float, default=10.0, help="limit for all outputs (default: 10)"
    )


def main(args: argparse.Namespace) -> int:
    """Returns 0, or 1 if all outputs together cost more than ``--budget-ms``."""
    result = run(args)
    print(json.dumps(asdict(result), indent=2) if args.json else as_text(result))
    return int(result.all_outputs.beyond_ms > args.budget_ms)


def run(args: argparse.Namespace) -> OutputsResult:
    """Start the processes, measure each set of subscriptions for ``--seconds``, and end them.

    :raises DensePerceptionError: if the model cannot be recorded or a process does not come up.
    """
    with open_session(args.transport_profile) as (session, listener):
        from dense_perception.benchmarks.source import pictures

        path = session.folder / "recorded.onnx"
        card = record_answer(args.model, path, pictures(args.width, args.height)[0])
        fixed = [f"model:={path}", "backend:=onnxruntime", "threads:=1"]
        node = session.node("multitask_node", [*fixed, *args.parameter])
        specs = topics_of(card)
        runs = [[], *([spec] for spec in specs), list(specs)]
        session.source(args, len(runs) * (args.seconds + _SETTLE_S) + 60)
        costs = [_measure(args, listener, node, subscribed) for subscribed in runs]
    nobody_ms = costs[0][0]
    names = ["nobody", *(spec.name for spec in specs), "all"]
    outputs = [
        OutputCost(name, cpu_ms, cpu_ms - nobody_ms, answered)
        for name, (cpu_ms, answered) in zip(names, costs, strict=True)
    ]
    return OutputsResult(
        model=card.name,
        stream=stream_name(args),
        seconds_each=args.seconds,
        nobody_ms=nobody_ms,
        outputs=outputs[1:-1],
        all_outputs=outputs[-1],
    )


def topics_of(card: ModelCard) -> tuple[TopicSpec, ...]:
    """What multitask_node publishes for each frame with its default parameters."""
    from dense_perception.ros.multitask_node import output_groups
    from dense_perception.ros.params import MultitaskParameters

    specs = (spec for group in output_groups() for spec in group.specs(card, MultitaskParameters()))
    return tuple(spec for spec in specs if spec.made_from)


def _measure(
    args: argparse.Namespace, listener: Listener, node: ChildProcess, specs: list[TopicSpec]
) -> tuple[float, float]:
    """Milliseconds a frame with these subscriptions, and the least percentage that was answered."""
    from dense_perception.ros.topics import message_type

    listener.arrivals.clear()
    subscriptions = [
        listener.note(spec.name, message_type(spec), f"{_NODE}/{spec.name}") for spec in specs
    ]
    listener.wait_for(
        lambda: all(listener.arrivals[spec.name] for spec in specs), "the first answers"
    )
    listener.spin(min(_SETTLE_S, args.seconds))
    begun_s, cpu_begun_s, begun_ns = time.monotonic(), cpu_s(node.pid), time.time_ns()
    label = "nobody" if not specs else specs[0].name if len(specs) == 1 else "all outputs"
    listener.spin(args.seconds, label)
    cpu_used_s, frames = cpu_s(node.pid) - cpu_begun_s, args.rate * (time.monotonic() - begun_s)
    ended_ns = time.time_ns()
    for subscription in subscriptions:
        listener.node.destroy_subscription(subscription)
    answered = [
        sum(
            begun_ns <= received < ended_ns for received, _ in listener.arrivals[spec.name].values()
        )
        for spec in specs
    ]
    return 1e3 * cpu_used_s / frames, 100 * min(answered, default=0) / frames


def as_text(result: OutputsResult) -> str:
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
