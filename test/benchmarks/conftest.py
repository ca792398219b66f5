"""Message packages that the benchmarks' nodes need and the ROS 2 wheels lack."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from test.support.ros_interfaces import importable


@pytest.fixture(scope="module")
def vision_msgs() -> Iterator[None]:
    with importable("vision_msgs"):
        yield
