"""How every command prints: JSON that any program reads, and texts that no terminal obeys.

Names of files, topics and frames, and what cards say, come from others: :func:`say` and
:func:`complain` write out the control characters in them. Nothing else in ``commands/`` prints.
"""

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


def say(text: str, *, keep: str = "\n\t") -> None:
    """Print a text with its control characters written out, but for those in ``keep``."""
    print(printable(text, keep=keep))


def complain(text: str) -> None:
    """:func:`say` on stderr."""
    print(printable(text), file=sys.stderr)


def show(result: _T, table: Callable[[_T], str], as_json: bool) -> None:
    """Print a result, as JSON or as the text that ``table`` makes of it."""
    if as_json:
        print_json(result, indent=2)
    else:
        say(table(result))


def print_problems(problems: Iterable[str]) -> None:
    """What went wrong on the way, a line each on stderr."""
    for problem in problems:
        complain(f"dense-perception: {problem}")
