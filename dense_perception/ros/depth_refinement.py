"""What happens to one camera's depth between the model and the publishers: scale, then calm."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rclpy.node import Node

from dense_perception.core.frame import Frame
from dense_perception.core.prediction import Prediction
from dense_perception.ros.scale_input import ScaleInput
from dense_perception.runtime.stabilise import DepthStabiliser


class DepthRefinement:
    """Made anew at each activation. ``problem`` says what the scale lacks; empty is nothing."""

    def __init__(self, node: Node, camera: str, source: str) -> None:
        self.problem = ""
        self._scale = ScaleInput(node, camera, source) if source != "none" else None
        self._stabiliser = DepthStabiliser()

    def apply(self, frame: Frame, prediction: Prediction, parameters: Any) -> Prediction:
        """The refined prediction; called by the worker thread."""
        if self._scale is not None:
            prediction = self._scale.apply(frame, prediction, parameters)
            self.problem = self._scale.status if self._scale.is_unknown else ""
        depth, strength = prediction.depth, parameters.temporal_smoothing
        if depth is None or strength <= 0:
            return prediction
        return replace(prediction, depth=self._stabiliser.apply(frame, depth, strength))

    def close(self) -> None:
        """Unsubscribe; safe to repeat."""
        if self._scale is not None:
            self._scale.close()
