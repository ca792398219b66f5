"""One plain frame passes through few files, counted from the calls of a real node."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_FILES = 18


BELOW_THE_NODE = (
    *("batch", "camera", "convert", "diagnostics", "map_outputs"),
    *("model_loading", "outputs", "scale_input", "topics", "transforms", "video_input"),
)


@pytest.mark.parametrize("name", BELOW_THE_NODE)
def test_below_the_node_nobody_holds_the_node(name: str) -> None:
    """What they need of it is handed to them: a graph, a log, the settings of the batch."""
    tree = ast.parse((ROOT / "dense_perception" / "ros" / f"{name}.py").read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {
        a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names
    }
    assert not modules & {
        *("rclpy", "rclpy.node", "rclpy.lifecycle", "dense_perception.ros.perception_node"),
    }
    assert "node" not in {arg.arg for arg in ast.walk(tree) if isinstance(arg, ast.arg)}


@pytest.mark.ros
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
