"""What was found, thing by thing: detections, ids, panoptic labels, places, overlay, markers."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image

from dense_perception.core.card import ModelCard
from dense_perception.core.errors import InputError
from dense_perception.core.labels import LabelSet
from dense_perception.core.prediction import DepthKind, Instances
from dense_perception.imaging.instance_overlay import instance_overlay
from dense_perception.imaging.instance_places import Place, places
from dense_perception.imaging.label_maps import relabel
from dense_perception.ros import topics
from dense_perception.ros.convert import image_message
from dense_perception.ros.diagnostics import NodeLog
from dense_perception.ros.instance_messages import (
    detections_3d_message,
    detections_message,
    ids_message,
    markers_message,
    panoptic_message,
)
from dense_perception.ros.map_outputs import Relabeller
from dense_perception.ros.outputs import Answer, OutputGroup, becomes_metric
from dense_perception.ros.params import InstanceOptions
from dense_perception.ros.topics import TopicSpec
from dense_perception.runtime.tracking import Tracker


class InstanceOutputs(OutputGroup[InstanceOptions]):
    """``~/instances/...`` of a model that finds things.

    All topics of a frame are made from one selection, so ids and numbers agree.
    """

    def begin(self) -> None:
        self._relabeller = Relabeller()
        self._installed = {spec for spec in topics.INSTANCE_TOPICS if topics.is_installed(spec)}
        self._identities = _Identities(self._log)

    @classmethod
    def specs(cls, card: ModelCard, settings: InstanceOptions) -> tuple[TopicSpec, ...]:
        if card.instances is None:
            return ()
        _published_classes(card.instances.label_set, settings.instance_classes)
        in_space = becomes_metric(card, settings)
        offered = {
            topics.DETECTIONS: True,
            topics.DETECTIONS_3D: in_space,
            topics.INSTANCE_IDS: card.instances.has_ids,
            topics.PANOPTIC: card.instances.panoptic,
            topics.INSTANCE_OVERLAY: True,
            topics.INSTANCE_MARKERS: in_space,
        }
        return tuple(
            # Of a model without masks boxes alone are asked for.
            replace(spec, made_from=tuple(n for n in spec.made_from if n in card.outputs))
            for spec, is_offered in offered.items()
            if is_offered and topics.is_installed(spec)
        )

    def announce(self, settings: InstanceOptions, now: Time) -> None:
        if self._card.instances is None:
            return
        detections = (topics.DETECTIONS, topics.DETECTIONS_3D)
        for package, specs in (
            ("vision_msgs", detections),
            ("visualization_msgs", (topics.INSTANCE_MARKERS,)),
        ):
            if not topics.is_installed(specs[0]):
                named = " and ".join(f"~/{spec.name}" for spec in specs)
                self._log.warn_once(
                    f"{package} is not installed: {named} are not published; "
                    f"sudo apt install ros-$ROS_DISTRO-{package.replace('_', '-')}"
                )

    def publish(self, answer: Answer, settings: InstanceOptions) -> None:
        prediction, header, send = answer.prediction, answer.header, self._send
        if prediction.instances is None:
            return
        found = _chosen(prediction.instances, settings)
        found = self._identities(found, prediction.stamp_ns, settings)
        send(topics.DETECTIONS, lambda: detections_message(found, header))
        if found.ids_hw is not None:
            send(topics.INSTANCE_IDS, lambda: ids_message(found, header))
            self._send_panoptic(answer, found, settings)
        send(topics.INSTANCE_OVERLAY, lambda: _overlay(answer, found, settings.overlay_opacity))
        depth = prediction.depth
        if depth is None or depth.kind is not DepthKind.METRIC:
            return
        once = _Once(lambda: places(found, depth.values_hw, prediction.intrinsics))
        send(topics.DETECTIONS_3D, lambda: detections_3d_message(found, once(), header))
        send(topics.INSTANCE_MARKERS, lambda: markers_message(found, once(), header))

    def _send_panoptic(self, answer: Answer, found: Instances, settings: InstanceOptions) -> None:
        labels = answer.prediction.labels
        if labels is None or self._card.instances is None or not self._card.instances.panoptic:
            return
        labels_hw = relabel(labels.values_hw, self._relabeller(labels.labels, settings))
        header = answer.header
        self._send(topics.PANOPTIC, lambda: panoptic_message(labels_hw, found, header))

    def _send(self, spec: TopicSpec, make: Callable[[], object]) -> None:
        """What :meth:`announce` says is not published is left out."""
        if spec in self._installed:
            self._topics.send(spec, make)


class _Once:
    """Makes the places when the first message wants them."""

    def __init__(self, make: Callable[[], list[Place | None]]) -> None:
        self._make = make
        self._made: list[Place | None] | None = None

    def __call__(self) -> list[Place | None]:
        if self._made is None:
            self._made = self._make()
        return self._made


class _Identities:
    """The tracker, by the settings of each frame."""

    def __init__(self, log: NodeLog) -> None:
        self._log = log
        self._tracker: Tracker | None = None
        self._tried = False

    def __call__(self, found: Instances, stamp_ns: int, settings: InstanceOptions) -> Instances:
        """The things that are known by now; all of them where nothing is tracked."""
        if not settings.tracking:
            self._tracker, self._tried = None, False
            return found
        wanted = (settings.score_threshold, settings.track_patience_s)
        if not self._tried:
            self._tried = True
            try:
                self._tracker = Tracker(*wanted, self._log.warn_once)
            except InputError as error:
                self._log.warn_once(f"things keep no identity: {error}")
        if self._tracker is None:
            return found
        self._tracker.adjust(*wanted)
        return self._tracker.follow(found, stamp_ns)


def _chosen(found: Instances, settings: InstanceOptions) -> Instances:
    """The rows that the settings let through."""
    kept_n = found.scores_n >= settings.score_threshold
    if settings.instance_classes:
        labels = _published_classes(found.labels, settings.instance_classes)
        kept_n &= np.isin(found.classes_n, labels)
    kept_n &= np.cumsum(kept_n) <= settings.max_instances
    return found.selected(kept_n)


def _published_classes(labels: LabelSet, names: Sequence[str]) -> list[int]:
    """
    :raises InputError: for a class that the labels do not have.
    """
    numbers = {name.lower(): label for label, name in enumerate(labels.labels)}
    for name in names:
        if name.strip().lower() not in numbers:
            close = difflib.get_close_matches(name.strip().lower(), list(numbers), n=1)
            shown = f"{', '.join(labels.labels[:12])}{', ...' if labels.labels[12:] else ''}"
            hint = f"did you mean {close[0]!r}?" if close else f"its classes are {shown}"
            raise InputError(
                f"instance_classes has {name!r}, which the model's things are not called: {hint}"
            )
    return [numbers[name.strip().lower()] for name in names]


def _overlay(answer: Answer, found: Instances, opacity: float) -> Image:
    width, height = answer.prediction.width, answer.prediction.height
    drawn = instance_overlay(answer.frame.rgb_hwc, found, width, height, opacity)
    return image_message(drawn, answer.header, "rgb8")
