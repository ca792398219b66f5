"""What one camera publishes: its topics, what a group of outputs is, and the groups of depth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from dense_perception.core.camera import Frame
from dense_perception.core.card import ModelCard
from dense_perception.core.prediction import DepthKind, DepthMap, Prediction
from dense_perception.imaging.colorize import DepthColorizer
from dense_perception.ros import topics
from dense_perception.ros.convert import (
    CloudWriter,
    camera_info_message,
    compressed_message,
    depth_message,
    image_message,
)
from dense_perception.ros.diagnostics import NodeLog
from dense_perception.ros.node_graph import Graph, Publisher, latched_profile, output_profile
from dense_perception.ros.params import CloudParameters, DepthParameters, ScaleParameters
from dense_perception.ros.topics import TopicSpec, message_type, packed_topic, with_packed

Settings = TypeVar("Settings", contravariant=True)
Cloud = TypeVar("Cloud", bound=CloudParameters, contravariant=True)


@dataclass(frozen=True, slots=True)
class Answer:
    """What outputs are made from; ``info`` is the calibration in use, ``None`` without one."""

    frame: Frame
    prediction: Prediction
    header: Header
    info: CameraInfo | None


class OutputTopics:
    """The publishers of one camera, by the names of their declarations.

    Messages go only to topics that somebody subscribes to. ``camera`` is empty for the only one.
    """

    def __init__(self, graph: Graph, camera: str) -> None:
        self._graph = graph
        self._prefix = f"~/{camera}/" if camera else "~/"
        self._publishers: dict[str, tuple[TopicSpec, Publisher]] = {}
        self._declared: set[str] = set()
        self._jpeg_quality = 0

    def keep(self, specs: Iterable[TopicSpec], reliability: str, jpeg_quality: int = 80) -> None:
        """Publish exactly these topics and their compressed ones.

        Publishers that are there already stay as they are.
        """
        self._jpeg_quality = jpeg_quality
        wanted = {spec.name: spec for spec in with_packed(specs)}
        self._declared |= wanted.keys()
        for name in self._publishers.keys() - wanted.keys():
            self._graph.close(self._publishers.pop(name)[1])
        for name, spec in wanted.items():
            publisher = self._publishers[name][1] if name in self._publishers else None
            if publisher is None:
                profile = latched_profile() if spec.latched else output_profile(reliability)
                topic = self._prefix + spec.name
                publisher = self._graph.publish(message_type(spec), topic, profile)
            self._publishers[name] = (spec, publisher)

    def wanted(self) -> frozenset[str]:
        """The entries of a Prediction that the subscribed topics are made from."""
        return frozenset(
            entry
            for spec, publisher in self._publishers.values()
            if spec.made_from and publisher.get_subscription_count() > 0
            for entry in spec.made_from
        )

    def send(self, spec: TopicSpec, make: Callable[[], object]) -> None:
        """Publish what ``make`` gives if the topic is published and somebody wants it.

        A latched topic also takes messages while nobody subscribes.

        :raises LookupError: for a topic that was never declared, so that no output is lost in
            silence.
        """
        if spec.name not in self._declared:
            raise LookupError(f"~/{spec.name} is sent but not among the group's specs")
        if spec.name not in self._publishers:
            return
        publisher = self._publishers[spec.name][1]
        is_wanted = spec.latched or publisher.get_subscription_count() > 0
        packed = self._packed(spec)
        if packed is None and not is_wanted:
            return
        message = make()
        if is_wanted:
            publisher.publish(message)
        if packed is not None and isinstance(message, Image):
            packed.publish(compressed_message(message, spec.packed, self._jpeg_quality))

    def _packed(self, spec: TopicSpec) -> Publisher | None:
        """Of the compressed topic beside it, if somebody wants that."""
        packed = packed_topic(spec)
        if packed is None or packed.name not in self._publishers:
            return None
        publisher = self._publishers[packed.name][1]
        return publisher if publisher.get_subscription_count() > 0 else None

    def close(self) -> None:
        """Close every publisher."""
        self.keep((), "reliable")


class OutputGroup(ABC, Generic[Settings]):
    """Some topics that belong together; made anew for each model and camera.

    What a group keeps from frame to frame it makes in ``begin``. ``Settings`` are the parameters
    it reads, which every node that publishes the group has.
    """

    def __init__(self, topics: OutputTopics, card: ModelCard, log: NodeLog) -> None:
        self._topics = topics
        self._card = card
        self._log = log
        self.begin()

    def begin(self) -> None:
        """Make what is kept from frame to frame."""

    @classmethod
    @abstractmethod
    def specs(cls, card: ModelCard, settings: Settings) -> tuple[TopicSpec, ...]:
        """The topics that this model can fill.

        :raises InputError: if the settings do not fit the model.
        """

    def announce(self, settings: Settings, now: Time) -> None:
        """Publish what does not belong to a frame; at activation and after changes."""

    @abstractmethod
    def publish(self, answer: Answer, settings: Settings) -> None:
        """Publish what somebody subscribes to; called by the worker thread."""


class DepthOutputs(OutputGroup[DepthParameters]):
    """Metric depth goes to ``~/depth/image``, relative depth, which is not in metres, to
    ``~/depth/relative``. A scale source makes the second the first, frame by frame. Both have
    ``~/depth/camera_info``.
    """

    @classmethod
    def specs(cls, card: ModelCard, settings: DepthParameters) -> tuple[topics.TopicSpec, ...]:
        if card.depth is None:
            return ()
        images = []
        if becomes_metric(card, settings):
            images.append(topics.DEPTH_IMAGE)
        if card.depth.kind is not DepthKind.METRIC:
            images.append(topics.DEPTH_RELATIVE)
        return *images, topics.DEPTH_CAMERA_INFO

    def publish(self, answer: Answer, settings: DepthParameters) -> None:
        depth, header, send = answer.prediction.depth, answer.header, self._topics.send
        if depth is None:
            return
        if depth.kind is DepthKind.METRIC:
            encoding = settings.depth_encoding
            send(topics.DEPTH_IMAGE, lambda: depth_message(depth.values_hw, header, encoding))
        else:
            send(topics.DEPTH_RELATIVE, lambda: image_message(depth.values_hw, header, "32FC1"))
        send(
            topics.DEPTH_CAMERA_INFO,
            lambda: camera_info_message(answer.info, answer.prediction.intrinsics, header),
        )


class PointOutputs(OutputGroup[Cloud]):
    """``~/points`` of a metric model."""

    def begin(self) -> None:
        self._clouds = CloudWriter()

    @classmethod
    def specs(cls, card: ModelCard, settings: Cloud) -> tuple[topics.TopicSpec, ...]:
        return (topics.POINTS,) if becomes_metric(card, settings) else ()

    def publish(self, answer: Answer, settings: Cloud) -> None:
        depth = answer.prediction.depth
        if depth is not None and depth.kind is DepthKind.METRIC:
            self._topics.send(topics.POINTS, lambda: self._cloud(depth, answer, settings))

    def _cloud(self, depth: DepthMap, answer: Answer, settings: Cloud) -> PointCloud2:
        return self._clouds.cloud(
            depth.values_hw,
            answer.prediction.intrinsics,
            answer.header,
            rgb_hwc=answer.frame.rgb_hwc if settings.points_rgb else None,
            labels_hw=self._labels(answer, settings),
        )

    def _labels(self, _answer: Answer, _settings: Cloud) -> np.ndarray | None:
        """The published label of each pixel, where the cloud has labels."""
        return None


class DepthPreview(OutputGroup[ScaleParameters]):
    """``~/depth/color``: a group of its own, so that no machine-readable output waits for it."""

    def begin(self) -> None:
        self._colorize = DepthColorizer()

    @classmethod
    def specs(cls, card: ModelCard, settings: ScaleParameters) -> tuple[topics.TopicSpec, ...]:
        return () if card.depth is None else (topics.DEPTH_COLOR,)

    def publish(self, answer: Answer, settings: ScaleParameters) -> None:
        depth = answer.prediction.depth
        if depth is not None:
            self._topics.send(
                topics.DEPTH_COLOR,
                lambda: image_message(self._preview(depth), answer.header, "rgb8"),
            )

    def _preview(self, depth: DepthMap) -> np.ndarray:
        values_hw = depth.values_hw
        if depth.kind is DepthKind.RELATIVE_INVERSE:
            with np.errstate(divide="ignore", invalid="ignore"):
                values_hw = np.where(values_hw > 0, 1 / values_hw, np.float32(np.nan))
        return self._colorize(values_hw)


def becomes_metric(card: ModelCard, settings: ScaleParameters) -> bool:
    """Whether the model's depth is metric, or a scale source makes it so."""
    if card.depth is None:
        return False
    return card.depth.kind is DepthKind.METRIC or settings.scale_source != "none"
