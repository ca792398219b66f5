"""``depth_node``: one camera's images to metric depth, a cloud and a picture for eyes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecyclePublisher
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from dense_perception.core.card import ModelCard
from dense_perception.core.errors import InputError
from dense_perception.core.prediction import DepthKind, DepthMap
from dense_perception.imaging.colorize import DepthColorizer
from dense_perception.imaging.points import organised_xyz, organised_xyzrgb
from dense_perception.ros import qos
from dense_perception.ros.convert import (
    camera_info_message,
    cloud_message,
    depth_message,
    image_message,
)
from dense_perception.ros.node_process import run_node
from dense_perception.ros.params import DepthParameters
from dense_perception.ros.perception_node import Answer, PerceptionNode

try:
    from rclpy.event_handler import PublisherEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks


class DepthOutputs:
    """The publishers of ``depth_node``; every message has exactly the header of its image.

    A metric model publishes ``~/depth/image`` with ``~/depth/camera_info``, and ``~/points``. A
    relative one publishes ``~/depth/relative`` instead: its numbers are no metres. Both publish
    ``~/depth/color``.
    """

    def __init__(self, node: PerceptionNode[DepthParameters], card: ModelCard) -> None:
        if card.depth is None:
            raise InputError(
                f"model {card.name} ({card.task}) gives no depth, expected a depth model: "
                "`dense-perception models` lists them"
            )
        self._node = node
        self._profile = qos.output(node.parameters.output_reliability)
        self._publishers: list[LifecyclePublisher] = []
        self._relative: LifecyclePublisher | None = None
        self._depth: LifecyclePublisher | None = None
        self._points: LifecyclePublisher | None = None
        if card.depth.kind is DepthKind.METRIC:
            self._depth = self._create(Image, "~/depth/image")
            self._points = self._create(PointCloud2, "~/points")
        else:
            self._relative = self._create(Image, "~/depth/relative")
        self._info = self._create(CameraInfo, "~/depth/camera_info")
        self._color = self._create(Image, "~/depth/color")
        self._colorize = DepthColorizer()

    def wanted(self) -> bool:
        return any(_has_subscriber(publisher) for publisher in self._publishers)

    def publish(self, answer: Answer) -> None:
        depth = answer.prediction.depth
        assert depth is not None
        header, wish = answer.header, self._node.parameters
        depth_hw = self._limited(depth)
        _send(self._depth, lambda: depth_message(depth_hw, header, wish.depth_encoding))
        _send(self._relative, lambda: image_message(depth_hw, header, "32FC1"))
        _send(
            self._info,
            lambda: camera_info_message(answer.info, answer.prediction.intrinsics, header),
        )
        _send(self._points, lambda: cloud_message(self._cloud(depth_hw, answer), header))
        _send(self._color, lambda: image_message(self._picture(depth_hw, depth), header, "rgb8"))

    def close(self) -> None:
        for publisher in self._publishers:
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()

    def _limited(self, depth: DepthMap) -> np.ndarray:
        """The map with everything outside the parameters' limits invalid."""
        values_hw = depth.values_hw
        wish = self._node.parameters
        if depth.kind is not DepthKind.METRIC:
            return values_hw
        low, high = np.float32(wish.min_depth_m), np.float32(wish.max_depth_m)
        inside = (values_hw >= low) & (values_hw <= high)
        return values_hw if inside.all() else np.where(inside, values_hw, np.float32(np.nan))

    def _cloud(self, depth_m: np.ndarray, answer: Answer) -> np.ndarray:
        intrinsics = answer.prediction.intrinsics
        if self._node.parameters.points_rgb:
            return organised_xyzrgb(depth_m, intrinsics, answer.frame.rgb_hwc)
        return organised_xyz(depth_m, intrinsics)

    def _picture(self, values_hw: np.ndarray, depth: DepthMap) -> np.ndarray:
        if depth.kind is DepthKind.RELATIVE_INVERSE:
            with np.errstate(divide="ignore", invalid="ignore"):
                values_hw = np.where(values_hw > 0, 1 / values_hw, np.float32(np.nan))
        return self._colorize(values_hw)

    def _create(self, kind: type, topic: str) -> LifecyclePublisher:
        resolved = self._node.resolve_topic_name(topic)

        def explain() -> str:
            return qos.explain_output_mismatch(self._node, resolved, self._profile)

        publisher: LifecyclePublisher = self._node.create_lifecycle_publisher(
            kind,
            topic,
            self._profile,
            event_callbacks=PublisherEventCallbacks(
                incompatible_qos=qos.MismatchReport(self._node, explain)
            ),
        )
        self._publishers.append(publisher)
        return publisher


def _has_subscriber(publisher: LifecyclePublisher) -> bool:
    return publisher.get_subscription_count() > 0


def _send(publisher: LifecyclePublisher | None, make: Callable[[], Any]) -> None:
    if publisher is not None and _has_subscriber(publisher):
        publisher.publish(make())


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is interrupted; the exit code is 0 then, 1 for wrong parameters."""
    return run_node(
        "depth_node",
        DepthParameters,
        lambda: PerceptionNode("depth_node", DepthParameters, DepthOutputs),
        arguments,
    )


if __name__ == "__main__":
    raise SystemExit(main())
