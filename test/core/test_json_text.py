"""JSON that any program reads, from one writer."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest

from dense_perception.core.json_text import json_text, parse_json

PACKAGE = Path(__file__).parents[2] / "dense_perception"


def test_what_json_has_no_word_for_is_null() -> None:
    value = {"a": float("nan"), "b": [np.float32("inf"), np.int64(3)], "c": np.array([1.5, np.nan])}
    assert json.loads(json_text(value)) == {"a": None, "b": [None, 3], "c": [1.5, None]}
    with pytest.raises(TypeError):
        json_text({"a": object()})


def test_deep_nesting_is_no_json() -> None:
    """Python's reader raises a RecursionError, which nobody expects of a text."""
    for text in ("[" * 100_000, '{"a":' * 100_000, b"\xff"):
        with pytest.raises(ValueError, match=r"nested too deeply|utf-8"):
            parse_json(text)


def test_what_others_wrote_is_read_in_one_place() -> None:
    """Python's own reader is called on what this process or its child wrote, and nowhere else."""
    own = ("benchmarks/", "ros/demo.py", "core/json_text.py")
    readers = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("json.load", "json.loads")
        and not (node.args and ast.unparse(node.args[0]).startswith("json_text("))
    }
    assert {name for name in readers if not name.startswith(own)} == set()


def test_nothing_else_writes_json() -> None:
    """Python's writer makes bare NaN of what is not finite; log.jsonl and --json had it."""
    writers = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr in ("dump", "dumps")
        and isinstance(node.value, ast.Name)
        and node.value.id == "json"
    }
    assert writers == {"core/json_text.py"}
