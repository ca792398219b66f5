"""One camera of a node: what becomes of the frame that is being answered when it is muted."""

from __future__ import annotations

import numpy as np
import pytest
import rclpy
from rclpy.context import Context
from rclpy.parameter import Parameter

from dense_perception.core.camera import Frame, Intrinsics
from dense_perception.core.prediction import DepthMap, Prediction
from dense_perception.ros.camera import Camera
from dense_perception.ros.depth_outputs import DepthOutputs
from dense_perception.ros.params import DepthParameters
from dense_perception.ros.perception_node import PerceptionNode
from test.support.artefacts import red_card

pytestmark = pytest.mark.ros


def test_the_frame_at_hand_is_scaled_though_the_camera_was_muted(
    domain: int, ros_environment: dict[str, str]
) -> None:
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    node: PerceptionNode[DepthParameters] = PerceptionNode(
        "muted",
        DepthParameters,
        (DepthOutputs,),
        context=context,
        parameter_overrides=[
            Parameter("scale_source", value="factor"),
            Parameter("scale_factor", value=2.5),
        ],
    )
    try:
        card = red_card()
        camera = Camera(node, "")
        camera.offer((DepthOutputs,), DepthOutputs.specs(card, node.parameters), card)
        camera.listen(lambda name, message: None)
        frame = Frame(np.zeros((48, 64, 3), np.uint8))
        prediction = Prediction(
            64,
            48,
            Intrinsics.from_fov(64, 48, 60.0),
            depth=DepthMap(np.full((48, 64), 2.0, np.float32)),
        )
        for _ in range(2):
            depth = camera.refined(frame, prediction).depth
            assert depth is not None
            np.testing.assert_allclose(depth.metres(), 5.0)
            camera.mute()
        camera.close()
    finally:
        node.close()
        node.destroy_node()
        rclpy.shutdown(context=context)
