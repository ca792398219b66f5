"""Layouts of RViz and Foxglove for a result bag: the picture, and a row for each contestant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from dense_perception.core.json_text import json_text
from dense_perception.core.storage import atomic_write_text

RVIZ_FILE, FOXGLOVE_FILE = "evaluation.rviz", "evaluation_foxglove.json"
_IMAGE = "/image/compressed"


def write_layouts(folder: Path, pictures: Sequence[str]) -> None:
    """Write both for the pictures' topics, given without their leading slashes.

    :raises OSError: if they cannot be written.
    """
    topics = [_IMAGE, *(f"/{topic}" for topic in pictures)]
    atomic_write_text(folder / RVIZ_FILE, yaml.safe_dump(_rviz(topics), sort_keys=False))
    atomic_write_text(folder / FOXGLOVE_FILE, json_text(_foxglove(topics), indent=1) + "\n")


def _rviz(topics: Sequence[str]) -> dict[str, Any]:
    displays = [
        {
            "Class": "rviz_default_plugins/Image",
            "Name": topic.strip("/").removesuffix("/compressed"),
            "Enabled": True,
            "Topic": {
                "Value": topic,
                "Depth": 5,
                "History Policy": "Keep Last",
                "Reliability Policy": "Reliable",
                "Durability Policy": "Volatile",
            },
        }
        for topic in topics
    ]
    return {
        "Panels": [{"Class": "rviz_common/Displays", "Name": "Displays"}],
        "Visualization Manager": {
            "Class": "",
            "Global Options": {"Fixed Frame": "camera_optical", "Frame Rate": 30},
            "Displays": displays,
            "Tools": [{"Class": "rviz_default_plugins/MoveCamera"}],
        },
    }


def _foxglove(topics: Sequence[str]) -> dict[str, Any]:
    panels = {f"Image!{index}": {"imageMode": {"imageTopic": topic}, "cameraState": {},
                                 "topics": {}, "layers": {}}
              for index, topic in enumerate(topics)}  # fmt: skip
    return {
        "configById": panels,
        "globalVariables": {},
        "userNodes": {},
        "playbackConfig": {"speed": 1},
        "layout": _tiled(list(panels), "row"),
    }


def _tiled(panels: Sequence[str], direction: str) -> str | dict[str, object]:
    """Halves of halves, beside and below each other in turn."""
    if len(panels) == 1:
        return panels[0]
    half, other = len(panels) // 2, "column" if direction == "row" else "row"
    return {
        "direction": direction,
        "splitPercentage": 50,
        "first": _tiled(panels[:half], other),
        "second": _tiled(panels[half:], other),
    }
