"""Labels: the mask, its confidence, the names of the labels, and the tinted picture."""

from __future__ import annotations

from typing import Any

from dense_perception.core.card import ModelCard
from dense_perception.core.labels import LABEL_SETS, LabelSet
from dense_perception.core.relabel import Relabelling, relabelling
from dense_perception.imaging.labels import overlay, relabel
from dense_perception.ros import topics
from dense_perception.ros.convert import image_message
from dense_perception.ros.outputs import (
    Answer,
    OutputGroup,
    is_installed,
    message_type,
)


class Relabeller:
    """The :class:`Relabelling` of the parameters now in force, built when they change."""

    def __init__(self) -> None:
        self._key: Any = None
        self._mapping: Relabelling | None = None

    def __call__(self, labels: LabelSet, wish: Any) -> Relabelling:
        """
        :raises InputError: if the parameters do not fit the label set.
        """
        key = (labels.name, wish.label_groups, wish.first_label, wish.void_label)
        if self._mapping is None or key != self._key:
            self._mapping = relabelling(
                labels,
                wish.label_groups,
                first_label=wish.first_label,
                void_label=wish.void_label,
            )
            self._key = key
        return self._mapping


class SegmentationOutputs(OutputGroup):
    """``~/segmentation/...`` of a model that gives labels."""

    def begin(self) -> None:
        self._relabeller = Relabeller()

    @classmethod
    def specs(cls, card: ModelCard, parameters: Any) -> tuple[topics.TopicSpec, ...]:
        if card.segmentation is None:
            return ()
        Relabeller()(LABEL_SETS[card.segmentation.labels], parameters)
        return tuple(
            spec
            for spec in topics.SEGMENTATION_TOPICS
            if spec is not topics.LABEL_INFO or is_installed(spec)
        )

    def announce(self) -> None:
        if self._card.segmentation is None:
            return
        if not is_installed(topics.LABEL_INFO):
            self._node.say_once(
                "vision_msgs is not installed: ~/segmentation/label_info is not published; "
                "sudo apt install ros-$ROS_DISTRO-vision-msgs"
            )
            return
        mapping = self._relabeller(
            LABEL_SETS[self._card.segmentation.labels], self._node.parameters
        )
        self._topics.send(topics.LABEL_INFO, lambda: self._label_info(mapping))

    def publish(self, answer: Answer) -> None:
        labels, header, send = answer.prediction.labels, answer.header, self._topics.send
        if labels is None:
            return
        wish = self._node.parameters
        mapping = self._relabeller(labels.labels, wish)
        encoding = "mono8" if mapping.table.itemsize == 1 else "mono16"
        send(
            topics.LABELS,
            lambda: image_message(relabel(labels.values_hw, mapping), header, encoding),
        )
        send(topics.CONFIDENCE, lambda: image_message(labels.confidence_hw, header, "mono8"))
        send(
            topics.OVERLAY,
            lambda: image_message(
                overlay(answer.frame.rgb_hwc, labels.values_hw, mapping, wish.overlay_opacity),
                header,
                "rgb8",
            ),
        )

    def _label_info(self, mapping: Relabelling) -> Any:
        message = label_info_message(mapping, message_type(topics.LABEL_INFO))
        message.header.stamp = self._node.get_clock().now().to_msg()
        return message


def label_info_message(mapping: Relabelling, kind: type) -> Any:
    """A ``vision_msgs/LabelInfo`` (``kind``) that names every label that is published.

    The void label is among them, as ``void``. The threshold is 0: every label is published
    whatever its confidence.
    """
    from vision_msgs.msg import VisionClass

    named = {**mapping.names, mapping.void: "void"}
    return kind(
        class_map=[
            VisionClass(class_id=label, class_name=name) for label, name in sorted(named.items())
        ],
        threshold=0.0,
    )
