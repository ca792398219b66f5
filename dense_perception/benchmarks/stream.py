"""``dense-perception benchmark stream``: a camera, depth_node and a listener in three processes.

The listener subscribes to depth and cloud. Added latency is the time at which the middleware
received an answer minus the picture's stamp minus the model's own time (the stage ``infer``), so it
is what the node and the transport add. What turning the answer into a Python message costs the
listener on top is shown apart: a listener in C++ does not pay it.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass

import numpy as np

from dense_perception.benchmarks.session import (
    WARM_UP_S,
    add_stream_arguments,
    open_session,
    stream_name,
)
from dense_perception.ros.processes import cpu_s, resident_mb

HELP = "measure depth_node on a live stream between processes"
EXAMPLES = """examples:
  dense-perception benchmark stream
  dense-perception benchmark stream --model dpt_tiny_indoor --seconds 300 --json"""


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
    add_stream_arguments(parser, model="dpt_tiny_indoor", seconds=60, rate=30)


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
    with open_session(args.transport_profile) as (session, listener):
        from sensor_msgs.msg import Image, PointCloud2

        from dense_perception.benchmarks.listener import stages_ms

        started = time.monotonic()
        node = session.node("depth_node", [f"model:={args.model}", *args.parameter])
        start_to_active_s = time.monotonic() - started
        listener.note("depth", Image, "/depth_node/depth/image")
        listener.note("points", PointCloud2, "/depth_node/points")
        listener.wait_until_matched(["/depth_node/points", "/diagnostics"])
        source = session.source(args, args.seconds)
        listener.wait_for_pictures([source])
        warm_up_s = min(WARM_UP_S, args.seconds / 2)
        listener.spin(warm_up_s, "warming up")
        memory_start_mb, cpu_start_s = resident_mb(node.pid), cpu_s(node.pid)
        measured_s = args.seconds - warm_up_s
        listener.spin(measured_s, "streaming")
        cpu_percent = 100 * (cpu_s(node.pid) - cpu_start_s) / measured_s
        listener.spin(1.5)
        source.wait(10)
        report = listener.reports.get("/depth_node: perception", {})
        sent = round(args.rate * args.seconds)
        # The node's median is over its last 300 frames, the latencies are over the whole stream.
        model_ms = float(np.median(listener.model_ms or [np.nan]))
        return StreamResult(
            model=report.get("model", args.model),
            backend=report.get("backend chosen because", ""),
            stream=f"{stream_name(args)} for {args.seconds:g} s",
            sent=sent,
            start_to_active_s=start_to_active_s,
            model_median_ms=model_ms,
            depth=_topic(listener.arrivals["depth"], sent, model_ms),
            points=_topic(listener.arrivals["points"], sent, model_ms),
            stages_ms=stages_ms(report),
            node_cpu_percent=cpu_percent,
            memory_start_mb=memory_start_mb,
            memory_end_mb=resident_mb(node.pid),
            last_error=report.get("last error", ""),
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
