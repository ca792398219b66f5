"""Listens to /tf, where a source of scale asks for it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from rclpy.qos import QoSProfile

from dense_perception.core.errors import InputError
from dense_perception.imaging.transforms import TransformBuffer
from dense_perception.ros.node_graph import Graph, latched_profile

if TYPE_CHECKING:
    from tf2_msgs.msg import TFMessage


class TransformListener:
    """Fills ``buffer`` from /tf and /tf_static.

    :raises InputError: where tf2_msgs is not installed.
    """

    def __init__(self, graph: Graph) -> None:
        self.buffer = TransformBuffer()
        try:
            kind = import_module("tf2_msgs.msg").TFMessage
        except ImportError as error:
            raise InputError(
                "tf2_msgs is not installed, expected it with ROS 2: install it, or publish the "
                "points in the camera's own frame"
            ) from error
        self._graph = graph
        self._subscriptions = [
            graph.subscribe(kind, "/tf", self._on_moving, QoSProfile(depth=100)),
            graph.subscribe(kind, "/tf_static", self._on_static, latched_profile(depth=100)),
        ]

    def close(self) -> None:
        """Unsubscribe; safe to repeat."""
        self._graph.close(*self._subscriptions)
        self._subscriptions.clear()

    def _on_moving(self, message: TFMessage) -> None:
        for stamped in message.transforms:
            self.buffer.add(stamped, static=False)

    def _on_static(self, message: TFMessage) -> None:
        for stamped in message.transforms:
            self.buffer.add(stamped, static=True)
