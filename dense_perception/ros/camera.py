"""One camera of a node: its subscriptions, its publishers, and the book of its frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from dense_perception.core.camera import Frame
from dense_perception.core.card import ModelCard
from dense_perception.core.prediction import Prediction
from dense_perception.ros.camera_input import CameraFrame, CameraInput
from dense_perception.ros.depth_refinement import DepthRefinement
from dense_perception.ros.diagnostics import FrameLog
from dense_perception.ros.outputs import Answer, OutputGroup, OutputTopics
from dense_perception.ros.topics import TopicSpec

if TYPE_CHECKING:
    from dense_perception.ros.perception_node import PerceptionNode

_LOG_PERIOD_S = 5.0


class Camera:
    """``name`` is empty for the only camera of a node.

    :meth:`offer` is called at configure and when the model changes, :meth:`listen` at activate;
    :meth:`mute` and :meth:`close` undo them.
    """

    def __init__(self, node: PerceptionNode[Any], name: str) -> None:
        self.name = name
        self.log = FrameLog()
        self.input: CameraInput | None = None
        self._node = node
        self._topics = OutputTopics(node, name)
        self._groups: list[OutputGroup] = []
        self._refinement: DepthRefinement | None = None
        self._gives: frozenset[str] = frozenset()

    def offer(
        self,
        groups: Sequence[type[OutputGroup]],
        specs: Sequence[TopicSpec],
        card: ModelCard,
    ) -> None:
        """Have publishers for ``specs``, filled by fresh groups."""
        self._gives = frozenset(card.outputs)
        self._topics.keep(specs)
        self._groups = [group(self._node, self._topics, card) for group in groups]

    def keep(self, specs: Sequence[TopicSpec]) -> None:
        """Have publishers for ``specs``, filled by the groups there are."""
        self._topics.keep(specs)

    def listen(self, on_image: Callable[[str, Any], None]) -> None:
        """Subscribe, also to what the scale comes from.

        ``on_image`` gets the camera's name and each message.
        """
        wish = self._node.parameters
        self._refinement = DepthRefinement(self._node, self.name, wish.scale_source)
        self.input = CameraInput(
            self._node,
            self.name,
            wish.image_transport,
            wish.input_reliability,
            lambda message: on_image(self.name, message),
        )

    def mute(self) -> None:
        """Unsubscribe; a frame that is being answered is still scaled as the others were."""
        if self.input is not None:
            self.input.close()
            self.input = None
        if self._refinement is not None:
            self._refinement.close()

    def close(self) -> None:
        """Unsubscribe and destroy the publishers."""
        self.mute()
        self._groups = []
        self._topics.close()

    def wanted(self) -> frozenset[str]:
        """The entries of a Prediction that somebody subscribes to, and what those need."""
        entries = self._topics.wanted()
        by_floor = self._node.parameters.scale_source == "camera_height"
        if by_floor and "depth" in entries and "labels" in self._gives:
            return entries | {"labels"}  # they tell the floor from a table
        return entries

    def announce(self) -> None:
        """Publish what does not belong to a frame."""
        for group in self._groups:
            group.announce()

    def publish(self, answer: Answer) -> None:
        """Publish one frame's outputs; called by the worker thread."""
        for group in self._groups:
            group.publish(answer)

    def frame(self, message: Any) -> CameraFrame | None:
        """Convert an image message; ``None`` if the camera was muted meanwhile.

        :raises InputError: if it cannot be used.
        """
        wish = self._node.parameters
        source = self.input
        if source is None:
            return None
        image = source.frame(message, matrix=wish.camera_matrix)
        assumed = wish.default_hfov_deg if image.info is None else None
        if self.log.calibration(assumed, image.info_problem):
            self._node.get_logger().warning(
                f"{self._label()}camera_info is not used: {image.info_problem}",
                throttle_duration_sec=_LOG_PERIOD_S,
            )
        return image

    def refined(self, frame: Frame, prediction: Prediction) -> Prediction:
        """The prediction with its depth scaled and stabilised, as the parameters wish."""
        refinement = self._refinement
        if refinement is None or prediction.depth is None:
            return prediction
        answer = refinement.apply(frame, prediction, self._node.parameters)
        self.log.scale_problem = refinement.problem
        return answer

    def failed(self, error: Exception) -> None:
        """Count and log a frame that could not be answered."""
        reason = self.log.failed(error)
        self._node.get_logger().error(
            f"{self._label()}frame not answered: {reason}", throttle_duration_sec=_LOG_PERIOD_S
        )

    def _label(self) -> str:
        return f"{self.name}: " if self.name else ""
