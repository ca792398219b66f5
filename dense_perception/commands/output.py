"""How every command prints: JSON that any program reads, and problems on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TypeVar

from dense_perception.core.json_text import json_text
from dense_perception.core.printable import printable

_T = TypeVar("_T")


def print_json(value: object, indent: int | None = None) -> None:
    """Print it as JSON, at once, so that a reader sees each line when it is made."""
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
