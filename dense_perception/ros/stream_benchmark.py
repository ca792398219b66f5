"""``dense-perception stream-benchmark``: a camera, depth_node and a listener in three processes.

The listener subscribes to depth and cloud. Added latency is the time at which the middleware
received an answer minus the picture's stamp minus the model's own time (the stage ``infer``), so it
is what the node and the transport add. What turning the answer into a Python message costs the
listener on top is shown apart: a listener in C++ does not pay it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dense_perception.ros.domain import local_environment, reserved_domain
from dense_perception.ros.processes import ChildProcess, interrupt_on_signals, resident_mb
from dense_perception.ros.transport import transport_environment

if TYPE_CHECKING:
    from dense_perception.ros.stream_listener import StreamListener

HELP = "measure depth_node on a live stream between processes"
EXAMPLES = """examples:
  dense-perception stream-benchmark
  dense-perception stream-benchmark --model dpt_tiny_indoor --seconds 300 --json"""

_WARM_UP_S = 5.0


@dataclass(frozen=True)
class TopicResult:
    """Milliseconds from stamp to receipt; ``added_*`` without the model's own time.

    ``callback_*``: to the listener's Python callback.
    """

    answered: int
    answered_percent: float
    median_ms: float
    p95_ms: float
    added_median_ms: float
    added_p95_ms: float
    callback_median_ms: float
    callback_added_median_ms: float


@dataclass(frozen=True)
class StreamResult:
    """``memory_*``: resident megabytes of the node's process after the warm-up and at the end."""

    model: str
    backend: str
    stream: str
    sent: int
    start_to_active_s: float
    model_median_ms: float
    depth: TopicResult
    points: TopicResult
    stages_ms: dict[str, float]
    node_cpu_percent: float
    memory_start_mb: float
    memory_end_mb: float
    last_error: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="dpt_tiny_indoor", help="name or ONNX file")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to stream")
    parser.add_argument("--rate", type=float, default=30.0, help="pictures per second")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument(
        "--parameter",
        nargs="+",
        default=[],
        metavar="NAME:=VALUE",
        help="parameters of the node",
    )
    parser.add_argument(
        "--transport-profile",
        default=None,
        metavar="XML",
        help="Fast DDS profile; default the package's, '' for none",
    )
    parser.add_argument("--json", action="store_true")


def main(args: argparse.Namespace) -> int:
    """Returns 0, or 1 if less than 99 % of the pictures were answered."""
    result = run(args)
    if args.json:
        print(json.dumps(asdict(result), indent=2))
    else:
        print(as_text(result))
    return int(min(result.depth.answered_percent, result.points.answered_percent) < 99)


def run(args: argparse.Namespace) -> StreamResult:
    """Start the processes, stream, and end them.

    :raises BackendError: if one of them does not come up.
    """
    # The ROS 2 wheels restart the interpreter at this import: there must be no child by then.
    import rclpy  # noqa: F401

    interrupt_on_signals()
    with reserved_domain() as domain, tempfile.TemporaryDirectory() as folder:
        environment = {
            **local_environment(domain),
            **transport_environment(args.transport_profile),
        }
        os.environ.update(environment)
        node_arguments = ["--ros-args", "-p", f"model:={args.model}"]
        for each in args.parameter:
            node_arguments += ["-p", each]
        started = time.monotonic()
        with ChildProcess(
            "dense_perception.ros.depth_node",
            node_arguments,
            log=Path(folder) / "node.log",
            environment=environment,
        ) as node:
            node.wait_for_text("waiting for images", 60, failure="cannot configure")
            start_to_active_s = time.monotonic() - started
            return _stream(args, node, start_to_active_s, Path(folder), environment)


def _stream(
    args: argparse.Namespace,
    node: ChildProcess,
    start_to_active_s: float,
    folder: Path,
    environment: dict[str, str],
) -> StreamResult:
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    from dense_perception.ros.allocator import keep_freed_memory
    from dense_perception.ros.stream_listener import StreamListener

    keep_freed_memory()
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    listener = StreamListener(rclpy.create_node("stream_listener", start_parameter_services=False))
    try:
        listener.wait_until_matched()
        source_arguments = [
            f"--{name}={getattr(args, name)}" for name in ("width", "height", "rate", "seconds")
        ]
        with ChildProcess(
            "dense_perception.ros.stream_source",
            source_arguments,
            log=folder / "source.log",
            environment=environment,
        ) as source:
            source.wait_for_text("publishing", 30)
            begun = time.monotonic()
            warm_up_s = min(_WARM_UP_S, args.seconds / 2)
            listener.spin_until(begun + warm_up_s)
            memory_start, cpu_start = resident_mb(node.pid), _cpu_s(node.pid)
            listener.spin_until(begun + args.seconds)
            cpu_percent = 100 * (_cpu_s(node.pid) - cpu_start) / (args.seconds - warm_up_s)
            listener.spin_until(time.monotonic() + 1.5)
            source.wait(10)
        return _result(
            args,
            listener,
            start_to_active_s=start_to_active_s,
            cpu_percent=cpu_percent,
            memory=(memory_start, resident_mb(node.pid)),
        )
    finally:
        listener.node.destroy_node()
        rclpy.try_shutdown()


def _result(
    args: argparse.Namespace,
    listener: StreamListener,
    *,
    start_to_active_s: float,
    cpu_percent: float,
    memory: tuple[float, float],
) -> StreamResult:
    sent = round(args.rate * args.seconds)
    values = listener.diagnostics
    # The node's median is over its last 300 frames, the latencies are over the whole stream.
    model_ms = float(np.median(listener.model_ms or [np.nan]))
    ending = " median (ms)"
    stages = {
        key.removeprefix("latency ").removesuffix(ending): float(value)
        for key, value in values.items()
        if key.startswith("latency ") and key.endswith(ending)
    }
    return StreamResult(
        model=values.get("model", args.model),
        backend=values.get("backend chosen because", ""),
        stream=f"{args.width}x{args.height} rgb8 at {args.rate:g} Hz for {args.seconds:g} s",
        sent=sent,
        start_to_active_s=start_to_active_s,
        model_median_ms=model_ms,
        depth=_topic(listener.arrivals["depth"], sent, model_ms),
        points=_topic(listener.arrivals["points"], sent, model_ms),
        stages_ms=stages,
        node_cpu_percent=cpu_percent,
        memory_start_mb=memory[0],
        memory_end_mb=memory[1],
        last_error=values.get("last error", ""),
    )


def _topic(arrivals: dict[int, tuple[int, int]], sent: int, model_ms: float) -> TopicResult:
    received_ms = [(received - stamp) / 1e6 for stamp, (received, _) in arrivals.items()] or [
        np.nan
    ]
    called_ms = [(called - stamp) / 1e6 for stamp, (_, called) in arrivals.items()] or [np.nan]
    median, p95 = float(np.median(received_ms)), float(np.percentile(received_ms, 95))
    called = float(np.median(called_ms))
    return TopicResult(
        answered=len(arrivals),
        answered_percent=100 * len(arrivals) / sent,
        median_ms=median,
        p95_ms=p95,
        added_median_ms=median - model_ms,
        added_p95_ms=p95 - model_ms,
        callback_median_ms=called,
        callback_added_median_ms=called - model_ms,
    )


def as_text(result: StreamResult) -> str:
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


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _command_line(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=HELP)
    add_arguments(parser)
    return main(parser.parse_args(arguments))


if __name__ == "__main__":
    raise SystemExit(_command_line())
