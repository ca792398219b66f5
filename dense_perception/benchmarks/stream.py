"""A camera, depth_node and a listener in three processes: how old answers are when they arrive.

The listener subscribes to depth and cloud. Added latency is the time at which the middleware
received an answer minus the picture's stamp minus the model's own time (the stage ``infer``), so it
is what the node and the transport add. What turning the answer into a Python message costs the
listener on top is shown apart: a listener in C++ does not pay it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import Image, PointCloud2

from dense_perception.benchmarks.session import WARM_UP_S, StreamOptions, open_session, stages_ms
from dense_perception.ros.processes import cpu_s, resident_mb


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


def measure_stream(options: StreamOptions) -> StreamResult:
    """Start the processes, stream, and end them.

    :raises BackendError: if one of them does not come up.
    """
    with open_session(options.transport_profile) as (session, listener):
        started = time.monotonic()
        node = session.node("depth_node", [f"model:={options.model}", *options.parameters])
        start_to_active_s = time.monotonic() - started
        listener.note("depth", Image, "/depth_node/depth/image")
        listener.note("points", PointCloud2, "/depth_node/points")
        listener.wait_until_matched(["/depth_node/points", "/diagnostics"])
        source = session.source(options, options.seconds)
        listener.wait_for_images([source])
        warm_up_s = min(WARM_UP_S, options.seconds / 2)
        listener.spin(warm_up_s, "warming up")
        memory_start_mb, cpu_start_s = resident_mb(node.pid), cpu_s(node.pid)
        measured_s = options.seconds - warm_up_s
        listener.spin(measured_s, "streaming")
        cpu_percent = 100 * (cpu_s(node.pid) - cpu_start_s) / measured_s
        listener.spin(1.5)
        source.wait(10)
        report = listener.reports.get("/depth_node: perception", {})
        sent = round(options.rate * options.seconds)
        # The node's median is over its last 300 frames, the latencies are over the whole stream.
        model_ms = float(np.median(listener.model_ms or [np.nan]))
        return StreamResult(
            model=report.get("model", options.model),
            backend=report.get("backend chosen because", ""),
            stream=f"{options} for {options.seconds:g} s",
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
