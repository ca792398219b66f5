"""Does the semantic layer of Nav2 accept what multitask_node publishes?

A camera, the node and this consumer, three processes. The consumer does what the layer does before
it marks anything: sensor-data QoS, mask, confidence and cloud synchronised approximately within
100 ms, LabelInfo first where vision_msgs is installed, an organised cloud as wide and high as the
mask. It asks for more: one header, and in the cloud the mask's labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sensor_msgs.msg import Image, PointCloud2

from dense_perception.benchmarks.session import StreamOptions, open_session, stages_ms
from dense_perception.core.errors import BackendError
from dense_perception.imaging.messages import stamp_ns
from dense_perception.ros import topics
from dense_perception.ros.node_graph import latched_profile
from dense_perception.ros.processes import cpu_s, resident_mb
from dense_perception.ros.topics import is_installed, message_type

_NODE = "/multitask_node"
_SLOP_NS = 100_000_000
_CHECKED_EVERY = 16  # pixels, when labels are compared


@dataclass(frozen=True)
class Nav2Result:
    """``answered``: frames the node says it answered. ``refused``: sets by what was wrong."""

    model: str
    stream: str
    sent: int
    answered: int
    accepted: int
    accepted_percent: float
    refused: dict[str, int]
    label_info: str
    stages_ms: dict[str, float]
    node_cpu_percent: float
    node_memory_mb: float
    last_error: str


class Nav2Consumer:
    """Judges synchronised sets; ``accepted`` holds the stamps of those the layer would use.

    ``needs_label_info``: nothing is accepted before :meth:`take_label_info` was called.
    """

    def __init__(self, needs_label_info: bool) -> None:
        self.accepted: set[int] = set()
        self.refused: Counter[str] = Counter()
        self._label_info_missing = needs_label_info

    def take_label_info(self, _message: Any) -> None:
        self._label_info_missing = False

    def take(self, answers: dict[str, Any]) -> None:
        """``answers``: ``labels``, ``confidence`` and ``points`` that lie within the slop."""
        problem = "no LabelInfo yet" if self._label_info_missing else _problem(**answers)
        if problem:
            self.refused[problem] += 1
        else:
            self.accepted.add(stamp_ns(answers["labels"].header))


def _problem(labels: Any, confidence: Any, points: Any) -> str:
    """What is wrong with a set; empty if nothing is."""
    sizes = [(message.width, message.height) for message in (labels, confidence, points)]
    if len(set(sizes)) > 1:
        return f"mask, confidence and cloud are of the sizes {sizes}"
    if not labels.header == confidence.header == points.header:
        return "mask, confidence and cloud differ in their headers"
    if labels.encoding not in ("mono8", "mono16") or confidence.encoding != "mono8":
        return f"mask is {labels.encoding}, confidence {confidence.encoding}"
    fields = {field.name: field.offset for field in points.fields}
    missing = {"x", "y", "z", "label"} - set(fields)
    if missing:
        return f"the cloud has no field {', '.join(sorted(missing))}"
    height, width = labels.height, labels.width
    mask_hw = np.frombuffer(labels.data, np.uint8 if labels.encoding == "mono8" else np.uint16)
    if mask_hw.size != height * width or len(points.data) != height * points.row_step:
        return "data is shorter than the size says"
    words = np.frombuffer(points.data, np.uint32).reshape(height, width, -1)
    some = np.s_[::_CHECKED_EVERY, ::_CHECKED_EVERY]
    in_cloud = words[..., fields["label"] // 4][some]
    if not np.array_equal(in_cloud, mask_hw.reshape(height, width)[some]):
        return "the cloud's labels are not the mask's"
    return ""


def measure_nav2(options: StreamOptions) -> Nav2Result:
    """Start the processes, stream, and end them.

    :raises BackendError: if one of them does not come up, or the node does not tell what it did.
    """
    with open_session(options.transport_profile) as (session, listener):
        node = session.node("multitask_node", [f"model:={options.model}", *options.parameters])
        has_label_info = is_installed(topics.LABEL_INFO)
        consumer = Nav2Consumer(has_label_info)
        inputs = {
            "labels": (Image, topics.LABELS.name),
            "confidence": (Image, topics.CONFIDENCE.name),
            "points": (PointCloud2, topics.POINTS.name),
        }
        matching = ApproximateSynchroniser(tuple(inputs), _SLOP_NS, consumer.take)
        for name, (kind, topic) in inputs.items():
            listener.subscribe(
                kind, f"{_NODE}/{topic}", lambda message, name=name: matching.add(name, message)
            )
        if has_label_info:
            listener.subscribe(
                message_type(topics.LABEL_INFO),
                f"{_NODE}/{topics.LABEL_INFO.name}",
                consumer.take_label_info,
                latched_profile(),
            )
        listener.wait_until_matched([f"{_NODE}/{topic}" for _, topic in inputs.values()])
        source = session.source(options, options.seconds)
        listener.wait_for_images([source])
        cpu_start_s = cpu_s(node.pid)
        listener.spin(options.seconds, "streaming")
        cpu_percent = 100 * (cpu_s(node.pid) - cpu_start_s) / options.seconds
        source.wait(10)
        listener.spin(2.5)  # the last answers, and a report that counts them
        report = listener.reports.get(f"{_NODE}: perception")
        if report is None:
            raise BackendError("the node sent no diagnostics, expected one message a second")
        answered = int(report["frames answered"])
        return Nav2Result(
            model=report["model"],
            stream=f"{options} for {options.seconds:g} s",
            sent=round(options.rate * options.seconds),
            answered=answered,
            accepted=len(consumer.accepted),
            accepted_percent=100 * len(consumer.accepted) / answered if answered else 0.0,
            refused=dict(consumer.refused),
            label_info="required" if has_label_info else "not checked, vision_msgs is missing",
            stages_ms=stages_ms(report),
            node_cpu_percent=cpu_percent,
            node_memory_mb=resident_mb(node.pid),
            last_error=report["last error"],
        )


class ApproximateSynchroniser:
    """Calls ``matched`` with a message of each topic, once their stamps lie within ``slop_ns``.

    As the approximate policy of message_filters.

    Each message is used at most once, and none that is older than one already used. ``depth``
    messages of each topic wait for their partners; the oldest is lost when another comes.
    """

    def __init__(
        self,
        topics: Sequence[str],
        slop_ns: int,
        matched: Callable[[dict[str, Any]], None],
        depth: int = 10,
    ) -> None:
        self._slop_ns = slop_ns
        self._matched = matched
        self._depth = depth
        self._waiting: dict[str, dict[int, Any]] = {topic: {} for topic in topics}

    def add(self, topic: str, message: Any) -> None:
        """Take a message; calls ``matched`` if it completes a set."""
        pivot_ns = stamp_ns(message.header)
        waiting = self._waiting[topic]
        waiting[pivot_ns] = message
        if len(waiting) > self._depth:
            del waiting[min(waiting)]
        if not all(self._waiting.values()):
            return
        chosen = {
            name: min(stamps, key=lambda stamp: abs(stamp - pivot_ns))
            for name, stamps in self._waiting.items()
        }
        if max(chosen.values()) - min(chosen.values()) > self._slop_ns:
            return
        complete = {name: self._waiting[name][stamp] for name, stamp in chosen.items()}
        for name, stamp in chosen.items():
            self._waiting[name] = {
                later: kept for later, kept in self._waiting[name].items() if later > stamp
            }
        self._matched(complete)
