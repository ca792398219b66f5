"""How every command prints: JSON that any program reads, and problems on stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dense_perception.core.printable import printable

_T = TypeVar("_T")


def json_text(value: object, indent: int | None = None) -> str:
    """``value`` as JSON: dataclasses as objects, paths as texts, NaN and infinity as null.

    :raises TypeError: for anything that JSON has no word for.
    """
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def print_json(value: object, indent: int | None = None) -> None:
    """Print :func:`json_text` at once, so that a reader sees each line when it is made."""
    print(json_text(value, indent), flush=True)


def show(result: _T, table: Callable[[_T], str], as_json: bool) -> None:
    """Print a result, as JSON or as the text that ``table`` makes of it."""
    if as_json:
        print_json(result, indent=2)
    else:
        print(printable(table(result)))


def print_problems(problems: Iterable[str]) -> None:
    """What went wrong on the way, a line each on stderr."""
    for problem in problems:
        print(f"dense-perception: {printable(problem)}", file=sys.stderr)


def _plain(value: Any) -> Any:
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
