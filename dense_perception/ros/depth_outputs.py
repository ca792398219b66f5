"""Depth: the image and its camera_info, the organised cloud, and a colourised preview."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
from sensor_msgs.msg import PointCloud2

from dense_perception.core.card import ModelCard
from dense_perception.core.prediction import DepthKind, DepthMap
from dense_perception.imaging.colorize import DepthColorizer
from dense_perception.imaging.label_maps import relabel
from dense_perception.ros import topics
from dense_perception.ros.convert import (
    CloudWriter,
    camera_info_message,
    depth_message,
    image_message,
)
from dense_perception.ros.map_outputs import Relabeller
from dense_perception.ros.outputs import Answer, OutputGroup
from dense_perception.ros.params import (
    CloudParameters,
    DepthParameters,
    ScaleParameters,
    SegmentationParameters,
)

Cloud = TypeVar("Cloud", bound=CloudParameters, contravariant=True)


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


class LabelledPointOutputs(PointOutputs[SegmentationParameters]):
    """``~/points`` with the label of each pixel, where the model gives labels too."""

    def begin(self) -> None:
        super().begin()
        self._relabeller = Relabeller()

    @classmethod
    def specs(
        cls, card: ModelCard, settings: SegmentationParameters
    ) -> tuple[topics.TopicSpec, ...]:
        specs = super().specs(card, settings)
        if card.segmentation is None or not settings.points_label:
            return specs
        return tuple(replace(spec, made_from=(*spec.made_from, "labels")) for spec in specs)

    def _labels(self, answer: Answer, settings: SegmentationParameters) -> np.ndarray | None:
        labels = answer.prediction.labels
        if labels is None or not settings.points_label:
            return None
        return relabel(labels.values_hw, self._relabeller(labels.labels, settings))


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
