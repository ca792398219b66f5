"""What could not be read, without a line for each of a thousand frames."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dense_perception.core.printable import printable

_NUMBER = re.compile(r"\d+")


class Problems:
    """Collects lines; those that differ in numbers alone are counted, not repeated."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, int]] = {}

    def note(self, problem: str) -> None:
        """One that is said once, however often it comes."""
        self._found.setdefault(problem, (printable(problem), 1))

    def extend(self, problems: Iterable[str]) -> None:
        for problem in problems:
            self.note(problem)

    def at(self, where: str, error: object) -> None:
        """One frame that could not be used."""
        key = f"at {_NUMBER.sub('#', str(error))}"
        line, count = self._found.get(key, (printable(f"{where}: {error}"), 0))
        self._found[key] = (line, count + 1)

    def add(self, line: str, count: int) -> None:
        """A kind of problem that came ``count`` times elsewhere, as :attr:`counted` gives it."""
        key = f"at {_NUMBER.sub('#', line)}"
        first, so_far = self._found.get(key, (line, 0))
        self._found[key] = (first, so_far + count)

    @property
    def counted(self) -> list[tuple[str, int]]:
        """The first line of each kind of problem, and how often it came."""
        return list(self._found.values())

    @property
    def lines(self) -> list[str]:
        """One line for each kind of problem, in the order they came."""
        return [
            line if count == 1 else f"{line} ({count - 1} more like this)"
            for line, count in self._found.values()
        ]

    def __bool__(self) -> bool:
        return bool(self._found)
