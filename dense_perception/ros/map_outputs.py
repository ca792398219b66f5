"""The further maps of a multitask model: normals, edges, keypoints, reshading."""

from __future__ import annotations

from functools import partial
from typing import Any

from dense_perception.core.card import ModelCard
from dense_perception.ros import topics
from dense_perception.ros.convert import image_message
from dense_perception.ros.outputs import Answer, OutputGroup


class MapOutputs(OutputGroup):
    """``~/normals``, ``~/normals/color``, ``~/edges``, ``~/keypoints`` and ``~/reshading``."""

    @classmethod
    def specs(cls, card: ModelCard, parameters: Any) -> tuple[topics.TopicSpec, ...]:
        return tuple(spec for spec in topics.MAP_TOPICS if set(spec.made_from) <= set(card.outputs))

    def publish(self, answer: Answer) -> None:
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
