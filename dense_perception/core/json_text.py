"""The one writer of JSON, which any program reads, and the one reader of what others wrote."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

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


def parse_json(text: str | bytes) -> Any:  # noqa: ANN401  # JSON can be anything
    """The content of a JSON text from a file or a message.

    :raises ValueError: if it is no JSON, no UTF-8, or nested too deeply for Python's reader.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _plain(value: object) -> object:
    kind = type(value)
    if kind is float:  # by far the most
        return value if math.isfinite(value) else None  # type: ignore[arg-type]
    if kind is str or kind is int:
        return value
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
