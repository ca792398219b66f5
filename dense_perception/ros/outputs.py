"""The publishers of one camera's outputs, and what each group of outputs has to offer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rclpy.lifecycle import LifecyclePublisher
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from dense_perception.core.camera import Frame
from dense_perception.core.card import ModelCard
from dense_perception.core.prediction import Prediction
from dense_perception.ros import qos
from dense_perception.ros.topics import TopicSpec

if TYPE_CHECKING:
    from dense_perception.ros.perception_node import PerceptionNode

try:
    from rclpy.event_handler import PublisherEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks


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

    def __init__(self, node: PerceptionNode[Any], camera: str) -> None:
        self._node = node
        self._prefix = f"~/{camera}/" if camera else "~/"
        self._publishers: dict[str, tuple[TopicSpec, LifecyclePublisher]] = {}

    def keep(self, specs: Iterable[TopicSpec]) -> None:
        """Publish exactly these topics; publishers that are there already stay as they are."""
        wanted = {spec.name: spec for spec in specs}
        for name in self._publishers.keys() - wanted.keys():
            self._node.destroy_lifecycle_publisher(self._publishers.pop(name)[1])
        for name, spec in wanted.items():
            publisher = self._publishers[name][1] if name in self._publishers else None
            self._publishers[name] = (spec, publisher or self._create(spec))

    def wanted(self) -> frozenset[str]:
        """The entries of a Prediction that the subscribed topics are made from."""
        return frozenset(
            entry
            for spec, publisher in self._publishers.values()
            if spec.made_from and publisher.get_subscription_count() > 0
            for entry in spec.made_from
        )

    def send(self, spec: TopicSpec, make: Callable[[], Any]) -> None:
        """Publish what ``make`` gives if the topic is published and somebody wants it.

        A latched topic also takes messages while nobody subscribes.
        """
        if spec.name not in self._publishers:
            return
        publisher = self._publishers[spec.name][1]
        if spec.latched or publisher.get_subscription_count() > 0:
            publisher.publish(make())

    def close(self) -> None:
        self.keep(())

    def _create(self, spec: TopicSpec) -> LifecyclePublisher:
        topic = self._prefix + spec.name
        resolved = self._node.resolve_topic_name(topic)
        reliability = self._node.parameters.output_reliability
        profile = qos.latched() if spec.latched else qos.output(reliability)

        def explain() -> str:
            return qos.explain_output_mismatch(self._node, resolved, profile)

        publisher: LifecyclePublisher = self._node.create_lifecycle_publisher(
            message_type(spec),
            topic,
            profile,
            event_callbacks=PublisherEventCallbacks(
                incompatible_qos=qos.MismatchReport(self._node, explain)
            ),
        )
        if self._node.state == "active":
            # It came too late for the transition itself; the state is not looked at.
            publisher.on_activate(None)  # type: ignore[arg-type]
        return publisher


class OutputGroup(ABC):
    """Some topics that belong together; made anew for each model and camera."""

    def __init__(
        self, node: PerceptionNode[Any], publishers: OutputTopics, card: ModelCard
    ) -> None:
        self._node = node
        self._topics = publishers
        self._card = card
        self.begin()

    def begin(self) -> None:  # noqa: B027 - most groups have nothing to keep
        """Make what is kept from frame to frame."""

    @classmethod
    @abstractmethod
    def specs(cls, card: ModelCard, parameters: Any) -> tuple[TopicSpec, ...]:
        """The topics that this model can fill.

        :raises InputError: if the parameters do not fit the model.
        """

    def announce(self) -> None:  # noqa: B027 - most groups have nothing to say
        """Publish what does not belong to a frame; at activation and after changes."""

    @abstractmethod
    def publish(self, answer: Answer) -> None:
        """Publish what somebody subscribes to; called by the worker thread."""


def message_type(spec: TopicSpec) -> type:
    """The class of a topic's messages.

    :raises ImportError: if its package is not installed.
    """
    package, _, name = spec.type.partition("/")
    kind: type = getattr(import_module(f"{package}.msg"), name)
    return kind


def is_installed(spec: TopicSpec) -> bool:
    """Whether the package of the topic's type is there and usable."""
    try:
        message_type(spec)
    except (ImportError, AttributeError):
        return False
    return True
