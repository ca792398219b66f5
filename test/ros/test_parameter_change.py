"""Parameters that change in a configured node: all at once, and between two batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import rclpy
from rclpy.context import Context
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from dense_perception.core.errors import BackendError
from dense_perception.ros.depth_outputs import DepthOutputs, PointOutputs
from dense_perception.ros.params import DepthParameters
from dense_perception.ros.perception_node import PerceptionNode

pytestmark = pytest.mark.ros

Node = PerceptionNode[DepthParameters]


@pytest.fixture
def node(domain: int, ros_environment: dict[str, str], red_model: Path) -> Iterator[Node]:
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    created: Node = PerceptionNode(
        "changing",
        DepthParameters,
        (DepthOutputs, PointOutputs),
        context=context,
        parameter_overrides=[
            Parameter("model", value=str(red_model)),
            Parameter("backend", value="onnxruntime"),
        ],
    )
    assert created.trigger_configure() == TransitionCallbackReturn.SUCCESS
    yield created
    created.close()
    created.destroy_node()
    rclpy.shutdown(context=context)


def watch(node: Node, monkeypatch: pytest.MonkeyPatch, name: str) -> list[Any]:
    """The parameter's value each time the worker may go on after a change."""
    seen: list[Any] = []
    original = node._model.between_batches

    @contextmanager
    def watched() -> Iterator[None]:
        with original():
            yield
            seen.append(getattr(node.parameters, name))

    monkeypatch.setattr(node._model, "between_batches", watched)
    return seen


@pytest.mark.parametrize(
    ("name", "value"), [("max_depth_m", 7.0), ("output_size", "network"), ("threads", 1)]
)
def test_the_next_batch_sees_the_new_value(
    node: Node, monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    seen = watch(node, monkeypatch, name)
    (result,) = node.set_parameters([Parameter(name, value=value)])
    assert result.successful, result.reason
    assert seen == [value]


def test_a_change_that_finds_the_worker_busy_is_refused_as_a_whole(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def busy() -> Iterator[None]:
        raise BackendError("the worker is still busy")
        yield

    monkeypatch.setattr(node._model, "between_batches", busy)
    for name, value in (("max_depth_m", 7.0), ("threads", 1)):
        before = getattr(node.parameters, name)
        (result,) = node.set_parameters([Parameter(name, value=value)])
        assert not result.successful
        assert "still busy" in result.reason
        assert getattr(node.parameters, name) == node.get_parameter(name).value == before
