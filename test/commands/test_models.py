"""``models`` with cards that anybody may have put there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from dense_perception import cli
from test.support.models import write_model

BAD = {
    "deep": "[" * 5_000,
    "keys": "schema: 1\n2: x\n",
    "empty": "",
    "bytes": "!!binary aGk=",
    "binary": "\x00\x01",
}


def test_bad_cards_are_lines_and_the_others_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "models"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DENSE_PERCEPTION_MODELS", str(folder))
    good = write_model(folder)
    card = yaml.safe_load(good.read_text())
    card["summary"] = "nice \x1b[31mred\nforged: line"
    card["provenance"] = {"day": "DAY"}
    good.write_text(yaml.safe_dump(card).replace("DAY", "2026-01-31"))
    for name, text in BAD.items():
        (folder / f"{name}.yaml").write_text(text)
    (folder / "folder.yaml").mkdir()
    assert cli.main(["models"]) == 1
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out
    assert r"red_depth: nice \x1b[31mred\nforged: line" in shown.out
    for name in (*BAD, "folder"):
        assert f"{name}: not usable" in shown.out
    assert cli.main(["models", "--json"]) == 1
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["models"]}
    assert not rows["red_depth"]["problem"]
    assert all(rows[name]["problem"] for name in BAD)


def test_a_home_of_nobody_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "~nobody_of_that_name/x.onnx", "--input", "x.png", "--output", "y"]
    assert cli.main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1
