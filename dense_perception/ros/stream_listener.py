"""The listening side of the stream benchmark."""

from __future__ import annotations

import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import Image, PointCloud2

from dense_perception.core.errors import BackendError
from dense_perception.ros.convert import stamp_ns


class StreamListener:
    """Notes when each answer came, by its stamp; also keeps the newest diagnostics.

    ``arrivals``: by topic and stamp, when the middleware received the answer and when it reached
    the callback as a Python message (which costs a cloud of 5 MB some milliseconds); nanoseconds.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self.arrivals: dict[str, dict[int, tuple[int, int]]] = {"depth": {}, "points": {}}
        self.diagnostics: dict[str, str] = {}
        self.model_ms: list[float] = []
        """The model's own time as each message on /diagnostics gives it."""
        self._subscriptions: list[Any] = []
        sensor_data = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)

        def listen(kind: type, topic: str, callback: Any) -> None:
            subscription = node.create_subscription(kind, topic, callback, sensor_data)
            self._subscriptions.append(subscription)

        listen(Image, "/depth_node/depth/image", self._noting("depth"))
        listen(PointCloud2, "/depth_node/points", self._noting("points"))
        listen(DiagnosticArray, "/diagnostics", self._on_diagnostics)

    def wait_until_matched(self) -> None:
        deadline = time.monotonic() + 15
        topics = ("/depth_node/points", "/diagnostics")
        while not all(self.node.count_publishers(topic) for topic in topics):
            if time.monotonic() > deadline:
                raise BackendError("the node's topics were not discovered within 15 s")
            self.spin_until(time.monotonic() + 0.05)
        self.spin_until(time.monotonic() + 1.0)

    def spin_until(self, deadline: float) -> None:
        while (rest := deadline - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=rest)

    def _noting(self, topic: str) -> Any:
        def with_info(message: Any, info: Any) -> None:
            called_ns = time.time_ns()
            times_ns = (info["received_timestamp"] or called_ns, called_ns)
            self.arrivals[topic][stamp_ns(message.header)] = times_ns

        def without_info(message: Any) -> None:  # Humble's rclpy tells no more
            with_info(message, {"received_timestamp": 0})

        return with_info if hasattr(Subscription, "CallbackType") else without_info

    def _on_diagnostics(self, message: Any) -> None:
        values = {value.key: value.value for value in message.status[0].values}
        if values.get("latency infer median (ms)"):
            self.diagnostics = values
            self.model_ms.append(float(values["latency infer median (ms)"]))
