"""Layouts of RViz and Foxglove for a result bag: the picture, and a row for each contestant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from dense_perception.core.json_text import json_text
from dense_perception.core.storage import atomic_write_text

RVIZ_FILE, FOXGLOVE_FILE = "evaluation.rviz", "evaluation_foxglove.json"
_IMAGE = "/image/compressed"
_Panels: TypeAlias = "str | dict[str, object]"


def write_layouts(folder: Path, pictures: Sequence[str], frame_id: str) -> None:
    """Write both for the pictures' topics, given without their leading slashes, of that frame.

    :raises OSError: if they cannot be written.
    """
    topics = [_IMAGE, *(f"/{topic}" for topic in pictures)]
    atomic_write_text(folder / RVIZ_FILE, yaml.safe_dump(_rviz(topics, frame_id), sort_keys=False))
    atomic_write_text(folder / FOXGLOVE_FILE, json_text(_foxglove(topics), indent=1) + "\n")


def _rviz(topics: Sequence[str], frame_id: str) -> dict[str, Any]:
    displays = [
        {
            "Class": "rviz_default_plugins/Image",
            "Name": _name(topic),
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
            "Global Options": {"Fixed Frame": frame_id, "Frame Rate": 30},
            "Displays": displays,
            "Tools": [{"Class": "rviz_default_plugins/MoveCamera"}],
        },
    }


def _foxglove(topics: Sequence[str]) -> dict[str, Any]:
    panels: dict[str, dict[str, Any]] = {}
    rows: dict[str, list[str]] = {}
    for index, topic in enumerate(topics):
        key = f"Image!{index}"
        panels[key] = {"foxglovePanelTitle": _name(topic), "imageMode": {"imageTopic": topic}}
        who = topic.split("/")[1]
        rows.setdefault("truth" if topic == _IMAGE else who, []).append(key)
    return {
        "configById": panels,
        "globalVariables": {},
        "userNodes": {},
        "playbackConfig": {"speed": 1},
        "layout": _stacked([_stacked(row, "row") for row in rows.values()], "column"),
    }


def _name(topic: str) -> str:
    return topic.strip("/").removesuffix("/compressed")


def _stacked(parts: Sequence[_Panels], direction: str) -> _Panels:
    """Parts of the same size, beside or below each other; the format knows pairs only."""
    first, *others = parts
    if not others:
        return first
    return {
        "direction": direction,
        "splitPercentage": 100 / len(parts),
        "first": first,
        "second": _stacked(others, direction),
    }
