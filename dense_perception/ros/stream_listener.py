"""The listening side of the stream benchmark."""

from __future__ import annotations

import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2

from dense_perception.core.errors import BackendError
from dense_perception.ros.convert import stamp_ns


class StreamListener:
    """Notes when each answer came, by its stamp; also keeps the newest diagnostics."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self.arrivals: dict[str, dict[int, int]] = {"depth": {}, "points": {}}
        self.diagnostics: dict[str, str] = {}
        self._subscriptions: list[Any] = []
        sensor_data = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)

        def listen(kind: type, topic: str, callback: Any) -> None:
            subscription = node.create_subscription(kind, topic, callback, sensor_data)
            self._subscriptions.append(subscription)

        listen(Image, "/depth_node/depth/image", lambda message: self._note("depth", message))
        listen(PointCloud2, "/depth_node/points", lambda message: self._note("points", message))
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

    def _note(self, topic: str, message: Any) -> None:
        self.arrivals[topic][stamp_ns(message.header)] = time.time_ns()

    def _on_diagnostics(self, message: Any) -> None:
        values = {value.key: value.value for value in message.status[0].values}
        if values.get("latency infer median (ms)"):
            self.diagnostics = values
