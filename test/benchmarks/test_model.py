"""The benchmark's fairness and its table; no assertion about speed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dense_perception import cli
from dense_perception.benchmarks.model import take_turns
from test.support.artefacts import write_red_artefact


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "red_depth.onnx"
    write_red_artefact(path)
    return str(path)


def test_contestants_take_turns() -> None:
    calls: list[str] = []
    times = take_turns({name: lambda n=name: calls.append(n) for name in "ab"}, 12)
    assert {name: len(values) for name, values in times.items()} == {"a": 12, "b": 12}
    timed = "".join(calls[4:])  # after the warm-up
    assert timed == "aaaaabbbbb" * 2 + "aabb"


def test_every_backend_and_precision_is_measured(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["benchmark", "model", model, "--runs", "3", "--threads", "1", "--image-size", "128x96"]
    assert cli.main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    *each, chosen = [row["name"] for row in report["rows"]]
    assert set(each) == {"onnxruntime/fp32", "openvino/fp32"}
    assert chosen in {f"auto ({name})" for name in each}
    assert min(row["ratio"] for row in report["rows"]) == 1
    for row in report["rows"]:
        assert row["runs"] == 3
        assert row["fps"] == pytest.approx(1000 / row["median_ms"], rel=0.2)
    assert cli.main(words) == 0
    assert "openvino/fp32" in capsys.readouterr().out


@pytest.mark.parametrize("size", ["640", "0x480", "axb", "640x"])
def test_wrong_image_size(model: str, capsys: pytest.CaptureFixture[str], size: str) -> None:
    assert cli.main(["benchmark", "model", model, "--image-size", size]) == 2
    assert "640x480" in capsys.readouterr().err


def test_nothing_runs(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["benchmark", "model", model, "--device", "abacus"]) == 2
    assert "abacus" in capsys.readouterr().err


@pytest.mark.slow
def test_yardstick_answers_at_its_input_size() -> None:
    from dense_perception.nets.transformers_reference import hybrid_dpt

    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    call = hybrid_dpt(64, 1, dim=48, layers=4, heads=4, features=16)
    depth = call(image)
    assert depth.shape == (64, 64)
    assert np.isfinite(depth).all()
