"""JSON that any program reads, whatever a command puts into it."""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dense_perception.commands import output
from dense_perception.commands.output import complain, json_text, print_problems, say, show
from dense_perception.core.prediction import DepthKind

COMMANDS = Path(output.__file__).parent


@dataclass(frozen=True)
class Inner:
    gap_ms: float


@dataclass(frozen=True)
class Outer:
    path: Path
    rows: tuple[Inner, ...]


def test_what_json_has_no_number_for_is_null() -> None:
    found = Outer(Path("a/b"), (Inner(float("nan")), Inner(2.5)))
    assert json.loads(json_text(found)) == {
        "path": "a/b",
        "rows": [{"gap_ms": None}, {"gap_ms": 2.5}],
    }
    text = json_text({"worst": float("-inf"), 3: [np.float32("inf"), np.int64(4)]})
    assert json.loads(text) == {"worst": None, "3": [None, 4]}
    assert json.loads(json_text([DepthKind.METRIC, np.arange(2)])) == ["metric", [0, 1]]
    with pytest.raises(TypeError):
        json_text(object())


def test_a_result_is_shown_either_way(capsys: pytest.CaptureFixture[str]) -> None:
    show({"answered": 3}, lambda result: f"{result['answered']} frames", False)
    show({"answered": 3}, lambda result: f"{result['answered']} frames", True)
    text, _, data = capsys.readouterr().out.partition("\n")
    assert text == "3 frames"
    assert json.loads(data) == {"answered": 3}


def test_no_command_prints_by_itself() -> None:
    """What is printed comes from others: one place writes out what a terminal obeys."""
    printing = {
        path.name
        for path in COMMANDS.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    }
    assert printing <= {"output.py", "reference.py"}  # the latter prints names of its own pages


def test_a_terminal_obeys_nothing_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "a\x1b[2J\x07\u202e.png"
    say(evil)
    complain(evil)
    print_problems([f"{evil}: the picture is damaged"])
    show(evil, str, False)
    show({"file": evil}, str, True)
    out, err = capsys.readouterr()
    assert not set("\x1b\x07\u202e") & {*out, *err}
    assert json.loads(out.splitlines()[-2].partition(":")[2]) == evil
