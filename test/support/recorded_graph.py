"""A ROS graph without ROS: what is opened, published and closed is kept, messages are put in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.qos import QoSProfile

from dense_perception.ros.diagnostics import NodeLog
from dense_perception.ros.node_graph import Offer


class RecordedPublisher:
    """``subscribers`` is how many the publisher believes it has."""

    def __init__(self, kind: type, topic: str, profile: QoSProfile) -> None:
        self.kind, self.topic, self.profile = kind, topic, profile
        self.subscribers = 0
        self.messages: list[Any] = []

    def publish(self, message: Any) -> None:
        assert isinstance(message, self.kind)
        self.messages.append(message)

    def get_subscription_count(self) -> int:
        return self.subscribers


class RecordedSubscription:
    def __init__(self, kind: type, topic: str, callback: Callable[[Any], None]) -> None:
        self.kind, self.topic_name, self.callback = kind, f"/{topic.lstrip('/')}", callback
        self.topic = topic


class RecordedGraph:
    """A :class:`~dense_perception.ros.node_graph.Graph`.

    ``open`` maps names to what is open now.
    """

    def __init__(self) -> None:
        self.open: dict[str, Any] = {}
        self.opened: list[str] = []
        self.remappings: dict[str, str] = {}
        self.offered: dict[str, list[Offer]] = {}

    def resolve(self, topic: str, *, remapped: bool = True) -> str:
        full = f"/{topic.lstrip('/')}"
        return self.remappings.get(full, full) if remapped else full

    def offers(self, topic: str) -> list[Offer]:
        return self.offered.get(topic, [])

    def publish(self, kind: type, topic: str, profile: QoSProfile) -> RecordedPublisher:
        return self._keep(RecordedPublisher(kind, topic, profile))

    def subscribe(
        self,
        kind: type,
        topic: str,
        callback: Callable[[Any], None],
        profile: QoSProfile,
        *,
        is_image: bool = False,
    ) -> RecordedSubscription:
        return self._keep(RecordedSubscription(kind, topic, callback))

    def close(self, *topics: Any) -> None:
        for topic in topics:
            assert self.open.pop(topic.topic) is topic

    def listen(self, *topics: str) -> None:
        """Exactly these published topics have a subscriber."""
        for name, each in self.open.items():
            if isinstance(each, RecordedPublisher):
                each.subscribers = int(name in topics)
        assert set(topics) <= set(self.open)

    def put(self, topic: str, message: Any) -> None:
        """What the executor does when a message has come."""
        subscription = self.open[topic]
        assert isinstance(message, subscription.kind)
        subscription.callback(message)

    def sent(self, topic: str) -> list[Any]:
        return list(self.open[topic].messages)

    def _keep(self, topic: Any) -> Any:
        assert topic.topic not in self.open, f"{topic.topic} is open already"
        self.open[topic.topic] = topic
        self.opened.append(topic.topic)
        return topic


class RecordedLog:
    """The logger below a :class:`NodeLog`; ``lines`` are what came through, by level."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def info(self, text: str) -> None:
        self.lines.append(("info", text))

    def warning(self, text: str) -> None:
        self.lines.append(("warning", text))

    def error(self, text: str) -> None:
        self.lines.append(("error", text))


def recorded_log(is_running: Callable[[], bool] = lambda: True) -> tuple[NodeLog, RecordedLog]:
    logger = RecordedLog()
    return NodeLog(logger, is_running), logger  # type: ignore[arg-type]
