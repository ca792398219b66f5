"""The maps beside depth: labels and their confidence, normals, edges, keypoints, reshading."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from builtin_interfaces.msg import Time

from dense_perception.core.card import ModelCard
from dense_perception.core.labels import LabelSet
from dense_perception.core.relabel import Relabelling, relabelling
from dense_perception.imaging.label_maps import overlay, relabel
from dense_perception.ros import topics
from dense_perception.ros.convert import image_message
from dense_perception.ros.outputs import Answer, OutputGroup, PointOutputs
from dense_perception.ros.params import SegmentationParameters

if TYPE_CHECKING:
    from vision_msgs.msg import LabelInfo


class Relabeller:
    """The :class:`Relabelling` of the settings, built when they change."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._mapping: Relabelling | None = None

    def __call__(self, labels: LabelSet, settings: SegmentationParameters) -> Relabelling:
        """
        :raises InputError: if the settings do not fit the label set.
        """
        key = (labels.name, settings.label_groups, settings.first_label, settings.void_label)
        if self._mapping is None or key != self._key:
            self._mapping = relabelling(
                labels,
                settings.label_groups,
                first_label=settings.first_label,
                void_label=settings.void_label,
            )
            self._key = key
        return self._mapping


class SegmentationOutputs(OutputGroup[SegmentationParameters]):
    """``~/segmentation/...`` of a model that gives labels."""

    def begin(self) -> None:
        self._relabeller = Relabeller()

    @classmethod
    def specs(
        cls, card: ModelCard, settings: SegmentationParameters
    ) -> tuple[topics.TopicSpec, ...]:
        if card.segmentation is None:
            return ()
        Relabeller()(card.segmentation.label_set, settings)
        return tuple(
            spec
            for spec in topics.SEGMENTATION_TOPICS
            if spec is not topics.LABEL_INFO or topics.is_installed(spec)
        )

    def announce(self, settings: SegmentationParameters, now: Time) -> None:
        if self._card.segmentation is None:
            return
        if not topics.is_installed(topics.LABEL_INFO):
            self._log.warn_once(
                "vision_msgs is not installed: ~/segmentation/label_info is not published; "
                "sudo apt install ros-$ROS_DISTRO-vision-msgs"
            )
            return
        mapping = self._relabeller(self._card.segmentation.label_set, settings)
        self._topics.send(topics.LABEL_INFO, lambda: label_info_message(mapping, now))

    def publish(self, answer: Answer, settings: SegmentationParameters) -> None:
        labels, header, send = answer.prediction.labels, answer.header, self._topics.send
        if labels is None:
            return
        mapping = self._relabeller(labels.labels, settings)
        encoding = "mono8" if mapping.table.itemsize == 1 else "mono16"
        opacity = settings.overlay_opacity
        send(
            topics.LABELS,
            lambda: image_message(relabel(labels.values_hw, mapping), header, encoding),
        )
        send(topics.CONFIDENCE, lambda: image_message(labels.confidence_hw, header, "mono8"))
        send(
            topics.OVERLAY,
            lambda: image_message(
                overlay(answer.frame.rgb_hwc, labels.values_hw, mapping, opacity), header, "rgb8"
            ),
        )


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


class MapOutputs(OutputGroup[object]):
    """``~/normals``, ``~/normals/color``, ``~/edges``, ``~/keypoints`` and ``~/reshading``."""

    @classmethod
    def specs(cls, card: ModelCard, settings: object) -> tuple[topics.TopicSpec, ...]:
        return tuple(spec for spec in topics.MAP_TOPICS if set(spec.made_from) <= set(card.outputs))

    def publish(self, answer: Answer, settings: object) -> None:
        prediction, header, send = answer.prediction, answer.header, self._topics.send
        normals = prediction.normals
        if normals is not None:
            send(topics.NORMALS, lambda: image_message(normals.values_hwc, header, "32FC3"))
            send(topics.NORMALS_COLOR, lambda: image_message(normals.colored(), header, "rgb8"))
        for spec, gray in (
            (topics.EDGES, prediction.edges),
            (topics.KEYPOINTS, prediction.keypoints),
            (topics.RESHADING, prediction.reshading),
        ):
            if gray is not None:
                send(spec, partial(image_message, gray.values_hw, header, "mono8"))


def label_info_message(mapping: Relabelling, stamp: Time) -> LabelInfo:
    """Names every label that is published, the void label among them as ``void``.

    The threshold is 0: every label is published whatever its confidence.
    """
    from vision_msgs.msg import LabelInfo, VisionClass

    named = {**mapping.names, mapping.void: "void"}
    message = LabelInfo(
        class_map=[
            VisionClass(class_id=label, class_name=name) for label, name in sorted(named.items())
        ],
        threshold=0.0,
    )
    message.header.stamp = stamp
    return message
