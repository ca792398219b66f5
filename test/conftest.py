"""Loads rclpy before anything else runs.

The ROS 2 wheels restart the interpreter on their first import to set the library path. Under
pytest's capture the restarted run would print into a deleted file, so it happens here, with the
capture suspended.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest


def pytest_configure(config: pytest.Config) -> None:
    guard = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"
    if guard in os.environ or find_spec("ros_wheels_bootstrapper") is None:
        return
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.suspend_global_capture(in_=True)
    try:
        import ros_wheels_bootstrapper  # noqa: F401
    finally:
        if capture is not None:
            capture.resume_global_capture()
