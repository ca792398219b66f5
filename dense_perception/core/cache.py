"""The per-user cache directory: whatever lies in it may vanish or be damaged at any time."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dense_perception.core.files import atomic_write

_FOLDER = "dense_perception"


def cache_dir() -> Path:
    """``$XDG_CACHE_HOME/dense_perception``, else ``~/.cache/dense_perception``; not created."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = base if os.path.isabs(base) else os.path.expanduser("~/.cache")
    # Where nobody has a home "~" stays: a path that cannot be written, not one under "./~".
    return Path(root if os.path.isabs(root) else os.devnull) / _FOLDER


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from the cache; empty where it is missing or damaged."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def write_json(path: Path, data: Mapping[str, Any]) -> bool:
    """Replace a cache file in one step; ``False`` where the disk does not allow it.

    A read-only or full home must not stop a robot, so a failure is only reported.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as stream:
            stream.write(json.dumps(data, indent=1).encode())
    except OSError:
        return False
    return True
