"""One plain frame passes through few files, counted from the calls of a real node."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ros

ROOT = Path(__file__).parents[2]
MOST_FILES = 18


def test_a_frame_is_read_straight_down(ros_environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "test.support.corridor"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    files = report["files"]
    print(f"\n{len(files)} files, {sum(files.values())} lines: {', '.join(files)}")
    # What the frame certainly goes through, or the count would be of something else.
    functions = set(report["functions"])
    assert {
        "ros/perception_node.py:_on_image",
        "ros/batch.py:answer_batch",
        "runtime/perceiver.py:perceive",
        "ros/outputs.py:send",
        "ros/convert.py:depth_message",
        "imaging/points.py:write_points",
    } <= functions
    assert len(files) <= MOST_FILES
