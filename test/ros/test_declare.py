"""Parameters on a real node, changed through its own service's callback."""

from __future__ import annotations

from collections.abc import Callable, Iterator

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

    def use(new: DepthParameters, take: Callable[[], None]) -> None:
        if new.max_depth_m == 7.0:
            raise MemoryError("no room for the new model")
        take()

    declared = DeclaredParameters(
        node, DepthParameters, lambda: True, use, lambda: used.append(declared.current.max_depth_m)
    )
    (refused,) = node.set_parameters([Parameter("max_depth_m", value=7.0)])
    assert not refused.successful
    assert "MemoryError: no room for the new model" in refused.reason
    assert declared.current.max_depth_m == node.get_parameter("max_depth_m").value == 1e6
    (taken,) = node.set_parameters([Parameter("max_depth_m", value=8.0)])
    assert taken.successful
    assert used == [8.0]
