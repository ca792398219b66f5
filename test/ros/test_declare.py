"""Parameters on a real node, changed through its own service's callback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter

from dense_perception.ros.declare import DeclaredParameters
from dense_perception.ros.params import DepthParameters

pytestmark = pytest.mark.ros


@pytest.fixture
def node(domain: int, ros_environment: dict[str, str]) -> Iterator[Node]:
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    created = rclpy.create_node("declared", context=context)
    yield created
    created.destroy_node()
    rclpy.shutdown(context=context)


def test_whatever_goes_wrong_is_a_refusal_and_changes_nothing(node: Node) -> None:
    used: list[float] = []

    def use(new: DepthParameters) -> None:
        if new.max_depth_m == 7.0:
            raise MemoryError("no room for the new model")
        used.append(new.max_depth_m)

    declared = DeclaredParameters(node, DepthParameters, lambda: True, use)
    (refused,) = node.set_parameters([Parameter("max_depth_m", value=7.0)])
    assert not refused.successful
    assert "MemoryError: no room for the new model" in refused.reason
    assert declared.current.max_depth_m == node.get_parameter("max_depth_m").value == 1e6
    (taken,) = node.set_parameters([Parameter("max_depth_m", value=8.0)])
    assert taken.successful
    assert used == [declared.current.max_depth_m] == [8.0]


def test_what_is_put_back_is_what_ros_shows_and_nobody_is_asked(node: Node) -> None:
    used: list[DepthParameters] = []
    declared = DeclaredParameters(node, DepthParameters, lambda: True, used.append)
    before = declared.current
    node.set_parameters([Parameter("model", value="other"), Parameter("threads", value=3)])
    assert len(used) == 2
    declared.put_back(before)
    assert len(used) == 2
    assert declared.current == before
    shown = [node.get_parameter(name).value for name in ("model", "threads")]
    assert shown == [before.model, before.threads] == ["dpt_tiny_indoor", 0]
