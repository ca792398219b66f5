"""Where a node meets the ROS graph: QoS profiles, topics opened and closed, sides that differ.

Whatever lives below a node is given a :class:`Graph` and not the node.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSProfile,
    ReliabilityPolicy,
)
from rclpy.timer import Timer
from rclpy.topic_endpoint_info import TopicEndpointInfo

from dense_perception.ros.qos_overrides import QosOverrides, own_profile

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

Message = TypeVar("Message")

_NAME_DELAY_S = 1.0
_RELIABILITY = {
    "best_effort": ReliabilityPolicy.BEST_EFFORT,
    "reliable": ReliabilityPolicy.RELIABLE,
}


class Publisher(Protocol):
    """What is used of an rclpy publisher."""

    def publish(self, message: Any, /) -> None: ...

    def get_subscription_count(self) -> int: ...


class Subscription(Protocol):
    """What is used of an rclpy subscription."""

    @property
    def topic_name(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Offer:
    """A publisher that the graph knows: its node's full name, its type and how it publishes."""

    node: str
    kind: str
    is_latched: bool = False


class Graph(Protocol):
    """Opens and closes topics for the parts of a node."""

    def resolve(self, topic: str, *, remapped: bool = True) -> str:
        """The full name of a topic, with or without the remappings of the node."""

    def offers(self, topic: str) -> list[Offer]:
        """Who publishes a topic, by its full name."""

    def publish(self, kind: type, topic: str, profile: QoSProfile) -> Publisher:
        """A new publisher of messages of the class ``kind``; ``~/`` is the node's name.

        :raises InputError: for a wrong ``qos_overrides`` parameter of the topic.
        """

    def subscribe(
        self,
        kind: type[Message],
        topic: str,
        callback: Callable[[Message], None],
        profile: QoSProfile,
        *,
        is_image: bool = False,
    ) -> Subscription:
        """A new subscription; of an image, publishers that do not match are named in the log.

        :raises InputError: for a wrong ``qos_overrides`` parameter of the topic.
        """

    def close(self, *topics: Publisher | Subscription) -> None:
        """Close what this graph opened."""


def image_profile(reliability: str) -> QoSProfile:
    """Newest first: two frames, so that one may arrive while the other is being taken."""
    return _profile(reliability, depth=2)


def video_profile(reliability: str) -> QoSProfile:
    """A second of packets: each one is needed to decode the next."""
    return _profile(reliability, depth=30)


def output_profile(reliability: str) -> QoSProfile:
    """For every publisher and for camera_info subscriptions: five messages, volatile."""
    return _profile(reliability, depth=5)


def latched_profile(depth: int = 1) -> QoSProfile:
    """For what late subscribers must know too: the last messages, reliable, transient local."""
    return _profile("reliable", depth, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def _profile(
    reliability: str, depth: int, durability: DurabilityPolicy = DurabilityPolicy.VOLATILE
) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=_RELIABILITY[reliability],
        durability=durability,
    )


class NodeGraph:
    """The :class:`Graph` of a lifecycle node.

    ``is_active`` says whether the node publishes now: a publisher that is opened then comes too
    late for the activation and is activated at once.
    """

    def __init__(self, node: LifecycleNode, is_active: Callable[[], bool]) -> None:
        self._node = node
        self._is_active = is_active
        self._overrides = QosOverrides(node)

    def unmet_overrides(self) -> Collection[str]:
        """Parameters ``qos_overrides...`` of topics that were not opened."""
        return self._overrides.unmet()

    def resolve(self, topic: str, *, remapped: bool = True) -> str:
        return str(self._node.resolve_topic_name(topic, only_expand=not remapped))

    def offers(self, topic: str) -> list[Offer]:
        return [
            Offer(
                _name(info),
                info.topic_type,
                info.qos_profile.durability is DurabilityPolicy.TRANSIENT_LOCAL,
            )
            for info in self._node.get_publishers_info_by_topic(topic)
        ]

    def publish(self, kind: type, topic: str, profile: QoSProfile) -> Publisher:
        node, resolved = self._node, self._node.resolve_topic_name(topic)
        own = own_profile(profile)

        def explain() -> str:
            return explain_output_mismatch(node, resolved, own)

        publisher: LifecyclePublisher[object] = node.create_lifecycle_publisher(
            kind,
            topic,
            own,
            event_callbacks=PublisherEventCallbacks(
                incompatible_qos=MismatchReport(node, explain),
            ),
            qos_overriding_options=self._overrides.options(resolved, "publisher"),
        )
        if self._is_active():
            publisher.on_activate(None)  # type: ignore[arg-type] # the state is not looked at
        return publisher

    def subscribe(
        self,
        kind: type[Message],
        topic: str,
        callback: Callable[[Message], None],
        profile: QoSProfile,
        *,
        is_image: bool = False,
    ) -> Subscription:
        node, resolved = self._node, self._node.resolve_topic_name(topic)
        own = own_profile(profile)

        def explain() -> str:
            return explain_input_mismatch(node, resolved, own)

        events = (
            SubscriptionEventCallbacks(incompatible_qos=MismatchReport(node, explain))
            if is_image
            else None
        )
        return node.create_subscription(
            kind,
            topic,
            callback,
            own,
            event_callbacks=events,
            qos_overriding_options=self._overrides.options(resolved, "subscription"),
        )

    def close(self, *topics: Publisher | Subscription) -> None:
        for topic in topics:
            if isinstance(topic, LifecyclePublisher):
                self._node.destroy_lifecycle_publisher(topic)
            else:
                self._node.destroy_subscription(topic)  # type: ignore[arg-type]


def describe(profile: QoSProfile) -> str:
    """``reliable, volatile`` and the like."""
    return f"{profile.reliability.name}, {profile.durability.name}".lower()


def explain_input_mismatch(node: Node, topic: str, own: QoSProfile) -> str:
    """Why a publisher of ``topic`` and this node's subscription do not meet, and the cure."""
    peers = _peers(node.get_publishers_info_by_topic(topic))
    return (
        f"no frames will come from a publisher of {topic}: this node subscribes {describe(own)}, "
        f"published are {peers}: set the parameter input_reliability to best_effort"
    )


def explain_output_mismatch(node: Node, topic: str, own: QoSProfile) -> str:
    """Why a subscriber of ``topic`` gets nothing from this node, and the cure."""
    peers = _peers(node.get_subscriptions_info_by_topic(topic))
    cure = (
        "set the parameter output_reliability to reliable"
        if own.reliability is ReliabilityPolicy.BEST_EFFORT
        else "subscribe volatile, as outputs are not kept for late subscribers"
    )
    return (
        f"a subscriber of {topic} gets nothing: this node publishes {describe(own)}, "
        f"subscribed are {peers}: {cure}"
    )


class MismatchReport:
    """Warns of a mismatch a second after it is seen, when the other node's name is known too."""

    def __init__(self, node: Node, explain: Callable[[], str]) -> None:
        self._node = node
        self._explain = explain
        self._timer: Timer | None = None

    def __call__(self, _event: object) -> None:
        """The callback for an ``incompatible_qos`` event."""
        if self._timer is None:
            clock = Clock(clock_type=ClockType.STEADY_TIME)
            self._timer = self._node.create_timer(_NAME_DELAY_S, self._warn, clock=clock)

    def _warn(self) -> None:
        assert self._timer is not None
        self._node.destroy_timer(self._timer)
        self._timer = None
        self._node.get_logger().warning(self._explain())


def _peers(infos: list[TopicEndpointInfo]) -> str:
    """Each endpoint as ``/node (reliable, volatile)``."""
    named = [f"{_name(info)} ({describe(info.qos_profile)})" for info in infos]
    return ", ".join(sorted(named)) or "none any more"


def _name(info: TopicEndpointInfo) -> str:
    if "UNKNOWN" in info.node_name:
        return "a node without a name"
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"
