"""Parameters ``qos_overrides./topic.subscription.reliability`` and the like, checked by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import copy
from typing import Literal, TypeAlias

from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions

from dense_perception.core.errors import InputError

Side: TypeAlias = Literal["publisher", "subscription"]

_PREFIX = "qos_overrides."
_NANOSECONDS = "a time in nanoseconds, 0 or more"
# Policy: the words it may have; none is a number.
_POLICIES: Mapping[str, tuple[str, ...]] = {
    "reliability": ("reliable", "best_effort"),
    "durability": ("volatile", "transient_local"),
    "history": ("keep_last", "keep_all"),
    "liveliness": ("automatic", "manual_by_topic"),
    "depth": (),
    "deadline": (),
    "lifespan": (),
    "liveliness_lease_duration": (),
}
_OF_PUBLISHERS = "lifespan"


class QosOverrides:
    """What the user of a node wants to be different about its topics.

    Parameters are declared for those topics alone that an override names: three for each of twenty
    topics would bury the node's own.
    """

    def __init__(self, node: Node) -> None:
        # Without rclpy's private attribute nothing is known, and rclpy declares and checks by
        # itself.
        overrides = getattr(node, "_parameter_overrides", None)
        self._given: dict[str, object] | None = None
        if overrides is not None:
            self._given = {
                name: override.value
                for name, override in overrides.items()
                if name.startswith(_PREFIX)
            }
        self._met: set[str] = set()

    def options(self, topic: str, side: Side) -> QoSOverridingOptions | None:
        """What to open a topic with, by its full name; ``None`` where nothing is overridden.

        :raises InputError: for a policy or a value that does not exist.
        """
        if self._given is None:
            return QoSOverridingOptions.with_default_policies()
        prefix = f"{_PREFIX}{topic}.{side}."
        names = [name for name in self._given if name.startswith(prefix)]
        for name in names:
            _check(name, name.removeprefix(prefix), self._given[name], side)
        self._met.update(names)
        if not names:
            return None
        return QoSOverridingOptions(
            [QoSPolicyKind[name.removeprefix(prefix).upper()] for name in names]
        )

    def unmet(self) -> Collection[str]:
        """Overrides of topics that were not opened."""
        return sorted(set(self._given or ()) - self._met)


def own_profile(profile: QoSProfile) -> QoSProfile:
    """A copy that rclpy may change: it puts overrides into the profile it is given."""
    return copy(profile)


def _check(name: str, policy: str, value: object, side: Side) -> None:
    """
    :raises InputError: if the policy or its value does not exist.
    """
    known = [each for each in _POLICIES if side == "publisher" or each != _OF_PUBLISHERS]
    if policy not in known:
        raise InputError(
            f"parameter {name} names no QoS policy, expected one of {', '.join(known)}"
        )
    words = _POLICIES[policy]
    if words:
        if value not in words:
            raise InputError(f"parameter {name} is {value!r}, expected one of {', '.join(words)}")
    elif type(value) is not int or value < 0:  # a bool is an int to isinstance
        expected = "a whole number, 0 or more" if policy == "depth" else _NANOSECONDS
        raise InputError(f"parameter {name} is {value!r}, expected {expected}")
