"""The one writer of JSON: what it writes, any program reads."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path

import numpy as np


def json_text(
    value: object, indent: int | None = None, *, sort_keys: bool = False, compact: bool = False
) -> str:
    """``value`` as JSON: dataclasses as objects, paths as texts, NaN and infinity as null.

    Python's own writer makes a bare ``NaN`` of them, which is no JSON. ``compact`` is without
    blanks.

    :raises TypeError: for anything that JSON has no word for.
    """
    separators = (",", ":") if compact else None
    return json.dumps(
        _plain(value), indent=indent, sort_keys=sort_keys, separators=separators, allow_nan=False
    )


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in fields(value)}
    return value
