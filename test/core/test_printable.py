"""What files say may go to a terminal: harmless and short."""

from __future__ import annotations

import pytest

from dense_perception.core.errors import InputError
from dense_perception.core.printable import printable, short


def test_what_a_terminal_obeys_is_written_out() -> None:
    assert printable("\x1b[2Jhello\x07\x9b\u202e") == r"\x1b[2Jhello\x07\x9b\u202e"
    assert printable("two\nlines\tgröße 深度") == "two\nlines\tgröße 深度"
    assert printable("two\nlines", keep="") == r"two\nlines"
    assert printable("\ud800") == r"\ud800"


def test_errors_quote_files_harmlessly() -> None:
    assert str(InputError("topic \x1b]0;owned\x07")) == r"topic \x1b]0;owned\x07"


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("x" * 10**6, id="text"),
        pytest.param([[1] * 1000] * 1000, id="lists"),
        pytest.param(16**9999, id="number"),
        pytest.param({i: {i: {i: {i: i}}} for i in range(99)}, id="mappings"),
    ],
)
def test_a_value_in_a_message_is_short(value: object) -> None:
    assert len(short(value)) < 600
    assert "\n" not in short(value)
