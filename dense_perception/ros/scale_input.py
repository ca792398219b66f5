"""What a camera's scale comes from: subscriptions of the chosen source, and depths at pixels."""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, LaserScan, PointCloud2

from dense_perception.core.camera import Frame, Intrinsics
from dense_perception.core.errors import InputError
from dense_perception.core.prediction import Prediction
from dense_perception.imaging.messages import message_depth_m, stamp_ns
from dense_perception.imaging.point_messages import cloud_points, scan_points
from dense_perception.ros.diagnostics import NodeLog
from dense_perception.ros.node_graph import Graph, Subscription
from dense_perception.ros.params import ScaleParameters
from dense_perception.ros.transforms import TransformListener
from dense_perception.runtime.scale.known import MEASURED_SOURCES, KnownDepths
from dense_perception.runtime.scale.metric import MetricScale, ScaleSettings

Measurement: TypeAlias = Image | PointCloud2 | LaserScan

_KEPT = 4
_LARGEST_AGE_NS = 200_000_000
_KINDS = {"depth": Image, "points": PointCloud2, "scan": LaserScan}


class ScaleInput:
    """Makes one camera's predictions metric, as the parameters say.

    Subscribes ``scale/depth`` (below the camera's name, where it has one), ``scale/points`` or
    ``scale/scan``. Nothing waits for them: the message nearest to the image's stamp within 0.2 s is
    used. A message that cannot be used is named in ``status``, and the next one is taken.
    """

    def __init__(self, graph: Graph, log: NodeLog, camera: str, source: str) -> None:
        self._graph = graph
        self._scale = MetricScale()
        self._problem = ""
        self._messages: deque[Measurement] = deque(maxlen=_KEPT)
        self._transforms: TransformListener | None = None
        self._subscription: Subscription | None = None
        if source in MEASURED_SOURCES:
            own = source == "depth" and camera
            topic = f"{camera}/scale/depth" if own else f"scale/{source}"
            self._subscription = graph.subscribe(
                _KINDS[source], topic, self._on_message, qos_profile_sensor_data
            )
        if source in ("points", "scan"):
            try:
                self._transforms = TransformListener(graph)
            except InputError as error:
                log.warning(f"scale_source {source}: {error}")

    @property
    def is_unknown(self) -> bool:
        """Whether the last frame's scale was not known."""
        return self._scale.is_unknown

    @property
    def status(self) -> str:
        """A sentence about the last frame; empty without a source."""
        return f"{self._scale.status} ({self._problem})" if self._problem else self._scale.status

    def apply(self, frame: Frame, prediction: Prediction, settings: ScaleParameters) -> Prediction:
        """The prediction with metric depth where the scale is known; in the worker thread."""
        scale = ScaleSettings(
            settings.scale_source,
            settings.scale_factor,
            settings.camera_height_m,
            settings.camera_pitch_deg,
        )
        self._problem, known = "", None
        message = self._nearest(frame.stamp_ns)
        if message is not None:
            try:
                known = self._known(message, frame, prediction.intrinsics, settings.max_pixels)
            except InputError as error:
                self._problem = str(error)
        return self._scale.apply(frame, prediction, scale, known)

    def close(self) -> None:
        if self._subscription is not None:
            self._graph.close(self._subscription)
            self._subscription = None
        if self._transforms is not None:
            self._transforms.close()  # what it knows stays, for the frame at hand

    def _on_message(self, message: Measurement) -> None:
        self._messages.append(message)

    def _nearest(self, wanted_ns: int) -> Measurement | None:
        ages = [(abs(stamp_ns(each.header) - wanted_ns), each) for each in list(self._messages)]
        age, message = min(ages, key=lambda pair: pair[0], default=(0, None))
        return message if age <= _LARGEST_AGE_NS else None

    def _known(
        self, message: Measurement, frame: Frame, intrinsics: Intrinsics, max_pixels: int
    ) -> KnownDepths:
        if isinstance(message, Image):
            return KnownDepths.from_depth_image(message_depth_m(message, max_pixels))
        xyz = scan_points(message) if isinstance(message, LaserScan) else cloud_points(message)
        source = message.header.frame_id
        if source != frame.frame_id:
            if self._transforms is None:
                raise InputError(
                    f"the points are in {source!r} and the image in {frame.frame_id!r}, and "
                    "tf2_msgs is not installed: publish the points in the camera's frame"
                )
            buffer = self._transforms.buffer
            xyz = buffer.lookup(frame.frame_id, source, frame.stamp_ns / 1e9).apply(xyz)
        return KnownDepths.from_points(xyz, intrinsics)
