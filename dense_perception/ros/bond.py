"""A bond with nav2_lifecycle_manager: heartbeats that say that an active node is alive.

The package ``bond`` defines the message alone; bondcpp and bondpy are not needed.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.publisher import Publisher

from dense_perception.core.errors import InputError
from dense_perception.ros.topics import message_class

if TYPE_CHECKING:
    from bond.msg import Status

TOPIC = "bond"
"""In the node's namespace, as nav2_lifecycle_manager has it."""

# As the nodes of Nav2 announce it; the manager goes by its own bond_timeout.
_TIMEOUT_S = 4.0
_DEPTH = 10


class Bond:
    """Heartbeats each ``period_s`` under the node's name, until :meth:`close`, which says goodbye.

    A manager that ends the bond is answered, and hears nothing any more.

    :raises InputError: where the package ``bond`` is not installed.
    """

    def __init__(self, node: Node, period_s: float) -> None:
        try:
            kind = message_class("bond/Status")
        except InputError as error:
            raise InputError(
                "bond is not installed: nav2_lifecycle_manager cannot watch this node; sudo apt "
                "install ros-$ROS_DISTRO-bond, or set its bond_timeout to 0.0"
            ) from error
        self._node = node
        self._period_s = period_s
        self._kind = kind
        self._instance = uuid.uuid4().hex
        self._is_alive = True
        self._publisher: Publisher[Status] = node.create_publisher(kind, TOPIC, _DEPTH)
        self._subscription = node.create_subscription(kind, TOPIC, self._on_status, _DEPTH)
        # On the steady clock: a simulation that stands still is no dead node.
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(period_s, self._beat, clock=clock)

    def close(self) -> None:
        """Say that the node rests, which a manager takes for no failure."""
        if self._is_alive:
            self._send(is_active=False)
        self._is_alive = False
        self._node.destroy_timer(self._timer)
        self._node.destroy_subscription(self._subscription)
        self._node.destroy_publisher(self._publisher)

    def _beat(self) -> None:
        if self._is_alive:
            self._send(is_active=True)

    def _on_status(self, status: Status) -> None:
        is_sister = status.id == self._node.get_name() and status.instance_id != self._instance
        if is_sister and not status.active and self._is_alive:
            self._is_alive = False
            self._send(is_active=False)

    def _send(self, *, is_active: bool) -> None:
        status = self._kind(
            id=self._node.get_name(),
            instance_id=self._instance,
            active=is_active,
            heartbeat_timeout=_TIMEOUT_S,
            heartbeat_period=self._period_s,
        )
        status.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(status)
