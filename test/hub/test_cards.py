"""The registry's cards: complete, true to the networks they build, and honest about licences."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dense_perception import cli
from dense_perception.core.card import ModelCard
from dense_perception.core.labels import LABEL_SETS
from dense_perception.nets import zoo

MODELS = Path(__file__).parents[2] / "models"
PUBLISHED = sorted(
    path.stem for path in MODELS.glob("*.yaml") if "\nsource:" in path.read_text(encoding="utf-8")
)
COMER = sorted(path.stem for path in MODELS.glob("vit_comer_*.yaml"))


def card_of(name: str) -> ModelCard:
    return ModelCard.from_yaml(MODELS / f"{name}.yaml")


def test_every_official_checkpoint_has_a_card() -> None:
    sizes, kinds = ("small", "base", "large"), ("", "_hypersim", "_vkitti")
    assert {
        "dpt_large_midas",
        "dpt_hybrid_midas",
        "dpt_hybrid_nyu",
        "dpt_hybrid_kitti",
        "dpt_large_ade20k",
        "dpt_hybrid_ade20k",
        *(f"depth_anything_v2_{size}{kind}" for size in sizes for kind in kinds),
        "segmenter_tiny_mask_ade20k",
        "segmenter_small_mask_ade20k",
        "segmenter_base_mask_ade20k",
        "segmenter_base_patch8_linear_ade20k",
        "segmenter_large_mask_ade20k",
        "segmenter_base_deit_linear_ade20k",
        "segmenter_base_deit_mask_ade20k",
        "segmenter_large_mask_pascal_context",
        "segmenter_large_mask_cityscapes",
        "segmenter_large_linear_cityscapes",
    } <= set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_card_builds_its_network(name: str) -> None:
    card = card_of(name)
    assert card.name == name
    with torch.device("meta"):
        module = zoo.build(card.network)
    zoo.normalisation(card.network)
    assert sum(p.numel() for p in module.parameters()) == card.cost["parameters"]
    assert card.cost["gflops"] > 0
    if card.segmentation is not None:
        assert module.config.classes == len(LABEL_SETS[card.segmentation.labels].labels)
        assert module.depth_kind is None
        window = card.segmentation.window
        size = (window, window) if window else (card.input.height, card.input.width)
    elif card.instances is None:
        assert card.depth is not None
        assert module.depth_kind is card.depth.kind
        size = (card.input.height, card.input.width)
    if card.instances is not None:
        assert module.config.things == len(card.instances.label_set.labels)
        assert module.config.count == card.instances.count
    if card.family != "mask2former":  # whose networks take any size
        assert (module.config.height, module.config.width) == size
    assert {"code", "weights", "commercial"} <= set(card.licence)
    assert "paper" in card.provenance
    assert ModelCard.from_dict(card.to_dict(), "round trip") == card


@pytest.mark.parametrize("name", COMER)
def test_a_card_without_hosted_weights_builds_its_network(name: str) -> None:
    card = card_of(name)
    with torch.device("meta"):
        module = zoo.build(card.network)
    assert sum(p.numel() for p in module.parameters()) == card.cost["parameters"]
    assert card.segmentation is not None
    assert module.config.classes == len(LABEL_SETS[card.segmentation.labels].labels)


@pytest.mark.parametrize("name", PUBLISHED)
def test_torch_hub_names_agree_with_their_hash(name: str) -> None:
    source = card_of(name).source
    assert source is not None
    assert source.url.endswith(source.file)
    if "/intel-isl/DPT/" in source.url:
        assert source.file.endswith(f"-{source.sha256}.pt")


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("DENSE_PERCEPTION_MIRROR", raising=False)
    return tmp_path / "dense_perception"


def test_models_lists_what_can_be_fetched(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "models", "--json")
    rows = {row["name"]: row for row in json.loads(out)["models"]}
    row = rows["depth_anything_v2_large"]
    assert row["family"] == "depth_anything"
    assert row["task"] == "depth"
    assert row["size"] == [518, 518]
    assert row["parameters"] == pytest.approx(335e6, rel=0.01)
    assert row["gflops"] > 0
    assert row["licence"] == "Apache-2.0"
    assert row["weights_licence"] == "CC-BY-NC-4.0"
    assert row["source"].startswith("https://huggingface.co/depth-anything/")
    assert row["on_disk"] == "no"
    (cache / "checkpoints/depth_anything_v2_large").mkdir(parents=True)
    (cache / "checkpoints/depth_anything_v2_large/depth_anything_v2_vitl.pth").touch()
    _, out, _ = run(capsys, "models", "--json")
    rows = {row["name"]: row for row in json.loads(out)["models"]}
    assert rows["depth_anything_v2_large"]["on_disk"] == "fetched"
    _, out, _ = run(capsys, "models")
    assert "CC-BY-NC-4.0" in out


def test_fetch_from_a_folder(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror = tmp_path / "usb"
    mirror.mkdir()
    (mirror / "depth_anything_v2_vitb.pth").write_bytes(b"weights")
    words = ("fetch", "depth_anything_v2_base", "--mirror", str(mirror))
    code, out, err = run(capsys, *words)
    assert code == 0
    assert "may not be used commercially (licence CC-BY-NC-4.0)" in err
    assert "next: dense-perception export depth_anything_v2_base" in out
    path = cache / "checkpoints/depth_anything_v2_base/depth_anything_v2_vitb.pth"
    assert path.read_bytes() == b"weights"
    code, out, _ = run(capsys, *words, "--json")
    assert json.loads(out)["path"] == str(path)
    assert json.loads(out)["commercial"] is False


def test_fetch_checks_the_published_hash(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dpt_hybrid_nyu-2ce69ec7.pt").write_bytes(b"not these weights")
    code, _, err = run(capsys, "fetch", "dpt_hybrid_nyu", "--mirror", str(tmp_path))
    assert code == 2
    assert "published is 2ce69ec7" in err
    assert not list(cache.rglob("*.pt"))


def test_fetch_of_an_unknown_model(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "fetch", "depth_anything_small")
    assert code == 2
    assert "did you mean depth_anything_v2_small" in err


def test_weights_that_nobody_hosts(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "fetch", "vit_comer_small_upernet_ade20k")
    assert code == 2
    assert "cannot be fetched: shared by the authors through a password-protected service" in err
    code, out, _ = run(capsys, "models", "--json")
    row = {row["name"]: row for row in json.loads(out)["models"]}["vit_comer_small_upernet_ade20k"]
    assert not row["obtainable"]
    assert row["problem"] == ""


def test_running_what_was_not_fetched_says_how(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "picture.png"
    cv2.imwrite(str(picture), np.zeros((4, 4, 3), np.uint8))
    words = ("run", "dpt_large_midas", "--input", str(picture), "--output", str(tmp_path / "out"))
    code, _, err = run(capsys, *words)
    assert code == 2
    assert "dense-perception get dpt_large_midas" in err
