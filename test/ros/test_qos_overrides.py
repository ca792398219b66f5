"""Overrides of QoS by parameters, without a process: which are taken, refused and left over."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import cast

import pytest
from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSProfile

from dense_perception.core.errors import InputError
from dense_perception.ros.qos_overrides import QosOverrides, own_profile

IMAGE = "qos_overrides./camera/image_raw.subscription."
CLOUD = "qos_overrides./depth_node/points.publisher."


def overrides(values: Mapping[str, object]) -> QosOverrides:
    """Of a node that was started with these parameters."""
    given = {name: SimpleNamespace(value=value) for name, value in values.items()}
    return QosOverrides(cast(Node, SimpleNamespace(_parameter_overrides=given)))


def test_a_topic_takes_its_own_and_the_rest_is_left_over() -> None:
    given = overrides(
        {
            f"{IMAGE}reliability": "reliable",
            f"{IMAGE}depth": 1,
            f"{CLOUD}lifespan": 10**9,
            "qos_overrides./camera/image.subscription.depth": 7,
            "threads": 2,
        }
    )
    assert given.options("/other", "publisher") is None
    assert given.options("/camera/image_raw", "publisher") is None, "the other side"
    taken = given.options("/camera/image_raw", "subscription")
    assert taken is not None
    assert set(taken.policy_kinds) == {QoSPolicyKind.RELIABILITY, QoSPolicyKind.DEPTH}
    assert given.unmet() == [
        "qos_overrides./camera/image.subscription.depth",
        f"{CLOUD}lifespan",
    ]
    assert given.options("/depth_node/points", "publisher") is not None
    assert given.unmet() == ["qos_overrides./camera/image.subscription.depth"]


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        (f"{IMAGE}reliability", "Reliable", "is 'Reliable', expected one of reliable, best_effort"),
        (f"{IMAGE}durability", 1, "is 1, expected one of volatile, transient_local"),
        (f"{IMAGE}depth", "5", "is '5', expected a whole number, 0 or more"),
        (f"{IMAGE}depth", -1, "is -1, expected a whole number"),
        (f"{IMAGE}depth", True, "is True, expected a whole number"),
        (f"{IMAGE}deadline", 0.5, "is 0.5, expected a time in nanoseconds"),
        (f"{IMAGE}lifespan", 5, "is no QoS policy, expected one of reliability, durability"),
        (f"{IMAGE}queue_size", 5, "is no QoS policy"),
        ("qos_overrides.image.subscription.depth", 5, "names no topic and side, expected"),
        ("qos_overrides./image.subscriber.depth", 5, "names no topic and side, expected"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(name: str, value: object, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        overrides({name: value})
    assert str(caught.value).startswith(f"parameter {name} ")


def test_without_knowledge_of_the_overrides_rclpy_decides() -> None:
    given = QosOverrides(cast(Node, SimpleNamespace()))
    taken = given.options("/camera/image_raw", "subscription")
    assert taken is not None
    assert QoSPolicyKind.RELIABILITY in taken.policy_kinds
    assert given.unmet() == []


def test_a_profile_that_others_use_is_not_changed() -> None:
    shared = QoSProfile(depth=5)
    own = own_profile(shared)
    assert own == shared
    own.depth = 1
    assert shared.depth == 5
