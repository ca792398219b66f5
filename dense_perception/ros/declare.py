"""Declares a parameter class on a node, and keeps it in step with ``ros2 param set``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from dense_perception.core.errors import DensePerceptionError
from dense_perception.ros import parameter_table as params
from dense_perception.ros.parameter_table import Changes, Parameters, ParameterSpec


class DeclaredParameters(Generic[Parameters]):
    """A node's parameters; ``current`` is replaced as a whole when one is set.

    ``is_configured`` says whether parameters that are read at configure are already in use.
    ``use`` gets new values before they become ``current``, and may raise to refuse them.

    :raises InputError: if the node was started with a wrong value.
    """

    def __init__(
        self,
        node: Node,
        kind: type[Parameters],
        is_configured: Callable[[], bool],
        use: Callable[[Parameters], None],
    ) -> None:
        # rclpy checks overrides too, but says less about them; without the private attribute its
        # own message remains.
        overrides: dict[str, Parameter] = getattr(node, "_parameter_overrides", {})
        given = {name: override.value for name, override in overrides.items()}
        params.from_overrides(kind, given)
        for name, close in params.unknown_names(kind, given):
            hint = f"did you mean {close}?" if close else "it has no effect"
            node.get_logger().warning(f"{name} is not a parameter of this node: {hint}")
        for spec in params.table(kind):
            node.declare_parameter(spec.name, _ros_value(spec.default), descriptor(spec))
        self._node = node
        self._is_configured = is_configured
        self._use = use
        values = {spec.name: node.get_parameter(spec.name).value for spec in params.table(kind)}
        self.current: Parameters = params.from_overrides(kind, values)
        node.add_on_set_parameters_callback(self._on_set)

    def put_back(self, settings: Parameters) -> None:
        """Make ``settings`` the current ones, also for ``ros2 param get``; ``use`` is not asked."""
        before, self.current = self.current, settings
        for spec in params.table(type(settings)):
            value = getattr(settings, spec.name)
            if value != getattr(before, spec.name):
                self._node.set_parameters([Parameter(spec.name, value=_ros_value(value))])

    def _on_set(self, changes: list[Parameter]) -> SetParametersResult:
        values = {change.name: change.value for change in changes}
        try:
            new = params.changed(self.current, values, configured=self._is_configured())
            if new != self.current:
                self._use(new)
                self.current = new
        except DensePerceptionError as error:
            return SetParametersResult(successful=False, reason=str(error))
        except Exception as error:  # it would end the process: rclpy lets it through the executor
            reason = f"{type(error).__name__}: {error}"
            return SetParametersResult(successful=False, reason=f"unexpected {reason}")
        return SetParametersResult(successful=True)


def _ros_value(value: object) -> object:
    """ROS takes an empty list for one of bytes."""
    return (list(value) or [""]) if isinstance(value, tuple) else value


def descriptor(spec: ParameterSpec) -> ParameterDescriptor:
    """What ``ros2 param describe`` and the graphical tools show."""
    message = ParameterDescriptor(
        name=spec.name,
        description=f"{spec.description} Changes {spec.changes.value}.",
        additional_constraints=spec.constraint,
        read_only=spec.changes is Changes.AT_START,
    )
    if spec.low is not None and spec.high is not None:
        if spec.type is int:
            message.integer_range = [
                IntegerRange(from_value=int(spec.low), to_value=int(spec.high), step=1)
            ]
        else:
            message.floating_point_range = [
                FloatingPointRange(from_value=float(spec.low), to_value=float(spec.high))
            ]
    return message
