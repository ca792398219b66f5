"""Texts and values from files that nobody vouches for, as they may go to a terminal or a log."""

from __future__ import annotations

import reprlib
import unicodedata

# Control characters, and those that turn the direction of what follows or are not to be seen.
_UNPRINTABLE = ("Cc", "Cf", "Cs")


def printable(text: str, *, keep: str = "\n\t") -> str:
    r"""``text`` with control characters written out, as ``\x1b``: a terminal obeys them.

    :param keep: characters that stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char
        if char in keep or unicodedata.category(char) not in _UNPRINTABLE
        else char.encode("unicode_escape", "backslashreplace").decode()
        for char in text
    )


def counted(count: float, thing: str) -> str:
    """``1 frame``, ``1,024 frames``, ``2 classes``."""
    ending = "es" if thing.endswith(("s", "x", "ch", "sh")) else "s"
    return f"{count:,.0f} {thing}{'' if count == 1 else ending}"


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring, self.maxother, self.maxlong = 120, 120, 40
        self.maxlist = self.maxtuple = self.maxset = 12
        self.maxdict, self.maxlevel = 6, 3

    def repr_int(self, x: int, level: int) -> str:
        try:
            return super().repr_int(x, level)
        except ValueError:  # Python writes out no number of more than 4,300 digits
            return "a number of thousands of digits"


def short(value: object) -> str:
    """``repr(value)`` for a message: a line at most, however large the value is."""
    return _SHORT.repr(value)


_SHORT = _Short()
