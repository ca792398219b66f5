"""One camera: its image topic, its optional camera_info, and messages to frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from dense_perception.core.camera import Frame, intrinsics_from_info
from dense_perception.core.errors import InputError
from dense_perception.media.bag_images import is_rectified
from dense_perception.ros import qos
from dense_perception.ros.convert import rgb_from_compressed, rgb_from_image, stamp_ns

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks


@dataclass(frozen=True, slots=True)
class CameraFrame:
    """A converted image: ``info`` is the calibration in use, ``None`` where there is none.

    ``info_problem`` says why a camera_info that came is not used; empty where none came.
    """

    frame: Frame
    info: CameraInfo | None
    info_problem: str


class CameraInput:
    """Subscribes to ``image`` (or ``image/compressed``) and ``camera_info``, below ``camera``.

    ``camera`` is the name of one of several cameras, empty for the only one.
    ``on_image`` gets each image message as it comes, in the executor's thread. Nothing waits for
    camera_info: the newest one is used, if there is one.
    """

    def __init__(
        self,
        node: Node,
        camera: str,
        transport: str,
        reliability: str,
        on_image: Callable[[Any], None],
    ) -> None:
        self._node = node
        self._info: CameraInfo | None = None
        compressed = transport == "compressed"
        prefix = f"{camera}/" if camera else ""
        self._profile = qos.image_input(reliability)
        self._image = node.create_subscription(
            CompressedImage if compressed else Image,
            prefix + ("image/compressed" if compressed else "image"),
            on_image,
            self._profile,
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=qos.MismatchReport(node, self._explain_mismatch)
            ),
        )
        self._topic = str(self._image.topic_name)
        self._camera_info = node.create_subscription(
            CameraInfo, f"{prefix}camera_info", self._on_info, qos.output("best_effort")
        )

    @property
    def topic(self) -> str:
        """The resolved name of the image topic."""
        return self._topic

    def frame(self, message: Image | CompressedImage, *, matrix: str) -> CameraFrame:
        """Convert an image message and find its intrinsics.

        ``matrix``: ``K``, ``P``, or ``auto`` to go by the topic's name.

        :raises InputError: if the image cannot be used. An unusable camera_info does not raise.
        """
        if isinstance(message, CompressedImage):
            rgb_hwc = rgb_from_compressed(message)
        else:
            rgb_hwc = rgb_from_image(message)
        info, intrinsics, problem = self._info, None, ""
        if info is not None:
            height, width = rgb_hwc.shape[:2]
            rectified = matrix == "P" or (matrix == "auto" and is_rectified(self._topic))
            try:
                intrinsics = intrinsics_from_info(info, width, height, rectified=rectified)
            except InputError as error:
                info, problem = None, str(error)
        header = message.header
        frame = Frame(rgb_hwc, stamp_ns(header), header.frame_id, intrinsics)
        return CameraFrame(frame, info, problem)

    def close(self) -> None:
        self._node.destroy_subscription(self._image)
        self._node.destroy_subscription(self._camera_info)

    def _on_info(self, message: CameraInfo) -> None:
        self._info = message

    def _explain_mismatch(self) -> str:
        return qos.explain_input_mismatch(self._node, self._topic, self._profile)
