"""Declares a parameter class on a node, and keeps it in step with ``ros2 param set``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic

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
    ``use`` gets new values and what makes them ``current``, which it calls at the moment from which
    they count; it may raise a DensePerceptionError before that to refuse them. ``used`` is called
    afterwards.

    :raises InputError: if the node was started with a wrong value.
    """

    def __init__(
        self,
        node: Node,
        kind: type[Parameters],
        is_configured: Callable[[], bool],
        use: Callable[[Parameters, Callable[[], None]], None],
        used: Callable[[], None],
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
            # ROS takes an empty list for one of bytes.
            default = (list(spec.default) or [""]) if spec.type is tuple else spec.default
            node.declare_parameter(spec.name, default, descriptor(spec))
        self._is_configured = is_configured
        self._use, self._used = use, used
        values = {spec.name: node.get_parameter(spec.name).value for spec in params.table(kind)}
        self.current: Parameters = params.from_overrides(kind, values)
        node.add_on_set_parameters_callback(self._on_set)

    def _on_set(self, changes: list[Parameter]) -> SetParametersResult:
        values: dict[str, Any] = {change.name: change.value for change in changes}
        try:
            new = params.changed(self.current, values, configured=self._is_configured())
            if new == self.current:
                return SetParametersResult(successful=True)
            self._use(new, lambda: setattr(self, "current", new))
        except DensePerceptionError as error:
            return SetParametersResult(successful=False, reason=str(error))
        except Exception as error:  # it would end the process: rclpy lets it through the executor
            reason = f"{type(error).__name__}: {error}"
            return SetParametersResult(successful=False, reason=f"unexpected {reason}")
        self._used()
        return SetParametersResult(successful=True)


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
