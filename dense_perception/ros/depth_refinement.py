"""What happens to one camera's depth between the model and the publishers: scale, calm, limits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from rclpy.node import Node

from dense_perception.core.camera import Frame
from dense_perception.core.prediction import DepthKind, DepthMap, Prediction
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
        if depth is None:
            return prediction
        if strength > 0:
            depth = self._stabiliser.apply(frame, depth, strength)
        # Here and not in the outputs, which would each do it again.
        depth = limited(depth, parameters.min_depth_m, parameters.max_depth_m)
        return prediction if depth is prediction.depth else replace(prediction, depth=depth)

    def close(self) -> None:
        """Unsubscribe; safe to repeat."""
        if self._scale is not None:
            self._scale.close()


def limited(depth: DepthMap, min_m: float, max_m: float) -> DepthMap:
    """Metric depth with all outside ``min_m`` to ``max_m`` invalid; other kinds as they are.

    The map itself where nothing is outside, else a fresh one.
    """
    if depth.kind is not DepthKind.METRIC:
        return depth
    values_hw = depth.values_hw
    low, high = float(np.float32(min_m)), float(np.float32(max_m))
    # A NaN makes both comparisons false. Most frames end here, in a third of the time.
    if values_hw.min() >= low and values_hw.max() <= high:
        return depth
    result_hw = np.full_like(values_hw, np.nan)
    cv2.copyTo(values_hw, cv2.inRange(values_hw, low, high), result_hw)
    return replace(depth, values_hw=result_hw)
