"""The other side of a node under test: publishes to it, listens to it, asks its services."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import DescribeParameters, SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

DEADLINE_S = 15.0


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = DEADLINE_S) -> Any:
    """The first true value of ``condition``; fails the test with ``what`` when the time is up."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s for {what}"
        time.sleep(0.005)
    return value


class Collector:
    """Messages of one topic in order of arrival."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.messages: list[Any] = []

    def wait(self, count: int = 1, timeout_s: float = DEADLINE_S) -> list[Any]:
        wait_until(
            lambda: len(self.messages) >= count,
            f"{count} messages on {self.topic}",
            timeout_s,
        )
        return self.messages

    def wait_for(self, condition: Callable[[Any], bool], timeout_s: float = DEADLINE_S) -> Any:
        """The first message that fulfils ``condition``."""
        found = wait_until(
            lambda: [message for message in list(self.messages) if condition(message)],
            f"a certain message on {self.topic}",
            timeout_s,
        )
        return found[0]

    def latest_with_stamp(self, seconds: int) -> Any:
        """The newest message of that stamp, ``None`` if there is none."""
        for message in reversed(list(self.messages)):
            if message.header.stamp.sec == seconds:
                return message
        return None


class Probe:
    """A node in its own context and domain, spun by a thread; a context manager."""

    def __init__(self, domain: int, target: str = "/depth_node") -> None:
        self.target = target
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node("probe", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._stopping = False
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()
        self._publishers: dict[str, Any] = {}

    def _spin(self) -> None:
        while not self._stopping:
            self._executor.spin_once(timeout_sec=0.05)

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def collect(
        self, kind: type, topic: str, reliable: bool = True, latched: bool = False
    ) -> Collector:
        """Subscribe; use :meth:`ask` or wait, as matching takes its time."""
        collector = Collector(topic)
        profile = qos_profile(reliable, latched)
        self.node.create_subscription(kind, topic, collector.messages.append, profile)
        return collector

    def ask(self, seconds: int, send: Callable[[], Any], *collectors: Collector) -> list[Any]:
        """Answers with that stamp on every collector; sends again while matching is under way."""

        def answers() -> list[Any]:
            found = [collector.latest_with_stamp(seconds) for collector in collectors]
            return found if all(found) else []

        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            send()
            again = time.monotonic() + 0.25
            while time.monotonic() < again:
                if found := answers():
                    return found
                time.sleep(0.002)
        missing = [c.topic for c in collectors if not c.latest_with_stamp(seconds)]
        raise AssertionError(f"no answer with the stamp {seconds} on {missing}")

    def publisher(self, kind: type, topic: str, reliable: bool = True, match: bool = True) -> Any:
        """One publisher per topic; waits until somebody subscribes."""
        if topic not in self._publishers:
            self._publishers[topic] = self.node.create_publisher(kind, topic, qos_profile(reliable))
        publisher = self._publishers[topic]
        if match:
            wait_until(publisher.get_subscription_count, f"a subscriber of {topic}")
        return publisher

    def send_image(self, message: Image) -> None:
        self.publisher(Image, "/image").publish(message)

    def send_info(self, message: CameraInfo) -> None:
        self.publisher(CameraInfo, "/camera_info").publish(message)

    def diagnostics(self) -> Collector:
        return self.collect(DiagnosticArray, "/diagnostics")

    def call(self, kind: type, service: str, request: Any) -> Any:
        client = self.node.create_client(kind, service)
        try:
            assert client.wait_for_service(DEADLINE_S), f"no service {service}"
            future = client.call_async(request)
            wait_until(future.done, f"an answer of {service}")
            return future.result()
        finally:
            self.node.destroy_client(client)

    def state(self) -> str:
        answer = self.call(GetState, f"{self.target}/get_state", GetState.Request())
        return str(answer.current_state.label)

    def change_state(self, label: str) -> bool:
        request = ChangeState.Request(transition=Transition(label=label))
        return bool(self.call(ChangeState, f"{self.target}/change_state", request).success)

    def reconfigure(self, **values: Any) -> None:
        """From active to unconfigured, set parameters there, and back to active."""
        for label in ("deactivate", "cleanup"):
            assert self.change_state(label), label
        for result in self.set_parameters(**values):
            assert result.successful, result.reason
        for label in ("configure", "activate"):
            assert self.change_state(label), label

    def set_parameters(self, **values: Any) -> list[SetParametersResult]:
        request = SetParameters.Request(
            parameters=[
                Parameter(name, value=value).to_parameter_msg() for name, value in values.items()
            ]
        )
        answer = self.call(SetParameters, f"{self.target}/set_parameters", request)
        return list(answer.results)

    def describe(self, *names: str) -> list[Any]:
        request = DescribeParameters.Request(names=list(names))
        answer = self.call(DescribeParameters, f"{self.target}/describe_parameters", request)
        return list(answer.descriptors)


def qos_profile(reliable: bool, latched: bool = False) -> QoSProfile:
    """``latched`` is transient local, volatile otherwise."""
    return QoSProfile(
        depth=10,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def header(seconds: int, frame_id: str = "camera_optical") -> Header:
    message = Header(frame_id=frame_id)
    message.stamp.sec, message.stamp.nanosec = seconds, 123_456_789
    return message


def random_rgb(width: int = 64, height: int = 48, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def values_of(array: DiagnosticArray) -> dict[str, str]:
    """The key-value pairs of the only status."""
    (status,) = array.status
    return {value.key: value.value for value in status.values}
