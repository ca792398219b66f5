"""Quality of service: profiles from parameters, and what to say when two sides do not match."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSProfile,
    ReliabilityPolicy,
)

_NAME_DELAY_S = 1.0
_RELIABILITY = {
    "best_effort": ReliabilityPolicy.BEST_EFFORT,
    "reliable": ReliabilityPolicy.RELIABLE,
}


def image_input(reliability: str) -> QoSProfile:
    """Newest first: two frames, so that one may arrive while the other is being taken."""
    return _profile(reliability, depth=2)


def output(reliability: str) -> QoSProfile:
    """For every publisher and for camera_info subscriptions: five messages, volatile."""
    return _profile(reliability, depth=5)


def latched() -> QoSProfile:
    """For what late subscribers must know too: the last message, reliable, transient local."""
    return _profile("reliable", depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def _profile(
    reliability: str, depth: int, durability: DurabilityPolicy = DurabilityPolicy.VOLATILE
) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=_RELIABILITY[reliability],
        durability=durability,
    )


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
        self._timer: Any = None

    def __call__(self, _event: Any) -> None:
        """The callback for an ``incompatible_qos`` event."""
        if self._timer is None:
            clock = Clock(clock_type=ClockType.STEADY_TIME)
            self._timer = self._node.create_timer(_NAME_DELAY_S, self._warn, clock=clock)

    def _warn(self) -> None:
        self._node.destroy_timer(self._timer)
        self._timer = None
        self._node.get_logger().warning(self._explain())


def _peers(infos: list[Any]) -> str:
    """Each endpoint as ``/node (reliable, volatile)``."""
    named = [f"{_name(info)} ({describe(info.qos_profile)})" for info in infos]
    return ", ".join(sorted(named)) or "none any more"


def _name(info: Any) -> str:
    if "UNKNOWN" in info.node_name:
        return "a node without a name"
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"
