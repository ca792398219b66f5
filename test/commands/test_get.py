"""A published model in one step, from a mirror's ONNX file or checkpoint."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from dense_perception import cli
from dense_perception.commands import get
from dense_perception.core.card import ModelCard
from dense_perception.core.card_specs import CheckpointSource, OnnxSource
from dense_perception.core.errors import ModelNotFoundError
from dense_perception.core.registry import exported_dir, find_model
from dense_perception.runtime.perceiver import Perceiver
from test.support.foreign_graphs import write_plain
from test.support.tiny_families import prepared


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelCard:
    """Known by its card alone; a mirror's folder has its checkpoint and its ONNX file."""
    mirror, models = tmp_path / "mirror", tmp_path / "models"
    mirror.mkdir()
    models.mkdir()
    described, _ = prepared("dpt_depth", tmp_path)
    shutil.move(tmp_path / "checkpoint.pth", mirror / "weights.pth")
    write_plain(mirror / "network.onnx", classes=1, ending="relu", size=(56, 84), stride=1)
    source = CheckpointSource(
        "https://example.org/weights.pth",
        "weights.pth",
        onnx=OnnxSource("https://example.org/network.onnx", "network.onnx", like="dpt"),
    )
    found = replace(
        described,
        source=source,
        cost={"parameters": 1_000_000, "export_cpu_s": 60, "export_peak_gb": 4000},
        licence={"code": "MIT", "weights": "CC-BY-NC-4.0", "commercial": False},
    )
    (models / f"{found.name}.yaml").write_text(yaml.safe_dump(found.to_dict()))
    monkeypatch.setenv("DENSE_PERCEPTION_MODELS", str(models))
    monkeypatch.setenv("DENSE_PERCEPTION_MIRROR", str(mirror))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return found


def test_a_card_keeps_where_its_onnx_file_is(card: ModelCard) -> None:
    again = ModelCard.from_dict(json.loads(json.dumps(card.to_dict())), "again")
    assert again.source == card.source


@pytest.mark.parametrize(
    "onnx",
    [[], {"url": "ftp://x/y.onnx", "file": "y.onnx"}, {"url": "https://x/y", "file": "y.pth"}],
)
def test_a_wrong_onnx_source_is_refused(
    card: ModelCard, onnx: object, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = card.to_dict()
    data["source"]["onnx"] = onnx
    (tmp_path / f"models/{card.name}.yaml").write_text(yaml.safe_dump(data))
    assert cli.main(["get", card.name]) == 2
    assert "source.onnx" in capsys.readouterr().err


def test_the_published_onnx_file_is_imported_under_the_cards_name(
    card: ModelCard, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["get", card.name, "--dry-run"]) == 0
    said = capsys.readouterr()
    assert f"network.onnx from {tmp_path / 'mirror'}, about 4 MB" in said.out
    assert cli.main(["get", card.name, "--dry-run", "--mirror", ""]) == 0
    assert "https://example.org/network.onnx, about 4 MB" in capsys.readouterr().out
    assert "no PyTorch" in said.out
    assert "may not be used commercially" in said.err
    assert not exported_dir().exists()
    with pytest.raises(ModelNotFoundError, match=f"run `dense-perception get {card.name}`"):
        find_model(card.name)

    assert cli.main(["get", card.name]) == 0
    model = find_model(card.name)
    assert model.source == exported_dir() / f"{card.name}.yaml"
    assert model.card.licence["weights"] == "CC-BY-NC-4.0"
    with Perceiver.load(card.name, backend="onnxruntime") as perceiver:
        answer = perceiver(np.zeros((56, 84, 3), np.uint8))
        assert answer.depth is not None
    capsys.readouterr()
    assert cli.main(["get", card.name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ready"] is True
    assert cli.main(["get", card.name, "--precision", "int8"]) == 2
    assert "is there in fp32" in capsys.readouterr().err


def test_a_page_instead_of_the_file_is_not_kept(
    card: ModelCard, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor a part of it: no digest is published, and what is seen first is believed from then on."""
    published = tmp_path / "mirror/network.onnx"
    whole = published.read_bytes()
    for content, said in (
        (b"<html>Log in</html>", "is no ONNX file that can be used"),
        (whole[:-20], "past the end of the file"),
    ):
        published.write_bytes(content)
        assert cli.main(["get", card.name]) == 2
        told = capsys.readouterr().err
        assert said in told
        assert "remove it and fetch network.onnx again" in told
    published.write_bytes(whole)
    assert cli.main(["get", card.name]) == 0


def test_without_an_onnx_file_the_checkpoint_is_exported(
    card: ModelCard, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["get", card.name, "--from", "checkpoint"]) == 0
    said = capsys.readouterr()
    assert "about 60 s of processor time and 4000 GB of memory" in said.out
    assert "WARNING: the export takes about 4000 GB of memory" in said.err
    assert find_model(card.name).card.family == "dpt"


def test_what_cannot_end_well_is_said_before_the_download(
    card: ModelCard,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(get, "find_spec", lambda name: None)
    assert cli.main(["get", card.name, "--from", "checkpoint"]) == 2
    assert "pip install 'dense_perception[export]'" in capsys.readouterr().err
    assert not (tmp_path / "cache/dense_perception/checkpoints").exists()
    assert cli.main(["get", "dpt_tiny_indoor"]) == 0
    assert "is ready" in capsys.readouterr().out
    assert cli.main(["get", "dpt_tinny_indoor"]) == 2
    assert "did you mean dpt_tiny_indoor" in capsys.readouterr().err


def test_a_file_name_of_two_models_is_not_taken_for_either(
    card: ModelCard, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    other = replace(card, name="another_model")
    (tmp_path / "models/another_model.yaml").write_text(yaml.safe_dump(other.to_dict()))
    assert cli.main(["get", card.name, "--from", "checkpoint"]) == 2
    assert f"no file {card.name}/weights.pth" in capsys.readouterr().err
