"""Training from a published backbone: the whole way, from the authors' file to a model.pt."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from dense_perception import cli
from dense_perception.core.errors import TrainingError
from dense_perception.nets import zoo
from dense_perception.nets.backbones import BACKBONES, backbone_at, backbone_path
from dense_perception.nets.networks import trained_network
from dense_perception.training.initialisation import file_of
from test.support import official_layouts
from test.support.corpora import write_corpus
from test.support.randomise import randomise

SIZE = {"width": 64, "height": 64}
HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}
SWIN: dict[str, Any] = {"dim": 8, "depths": [1, 2, 1, 1], "heads": [1, 2, 2, 2], "window": 2}
MULT = {
    "family": "mult",
    "variant": "swin_tiny",
    **SWIN,
    "decoder_depths": [1, 1, 1, 1],
    "tasks": ["depth", "normals", "segmentation"],
    "classes": 3,
    "max_m": 10.0,
    **HALF,
}
DEPTH = {
    "family": "depth_anything",
    "variant": "v2_small",
    "height": 56,
    "width": 56,
    "dim": 24,
    "heads": 3,
    "taps": [0, 1, 2, 3],
    "channels": [8, 8, 8, 8],
    "features": 8,
    "max_depth_m": 10.0,
    **HALF,
}


def random_network(network: dict[str, Any], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    module = zoo.build(network).eval()
    randomise(module)
    return module


def swin_classifier() -> dict[str, Tensor]:
    """As Microsoft's ImageNet checkpoints: one norm, a classifier, the authors' names."""
    network = {"family": "upernet", "variant": "swin_tiny", **SWIN, "classes": 5, "channels": 8}
    weights = {
        key.removeprefix("backbone."): value
        for key, value in official_layouts.upernet(random_network(network, 1)).items()
        if key.startswith("backbone.")
    }
    weights = {k: v for k, v in weights.items() if not k.startswith(("norm0", "norm1", "norm2"))}
    weights = {k.replace("norm3.", "norm.", 1): v for k, v in weights.items()}
    return {**weights, "head.weight": torch.zeros(10, 64), "head.bias": torch.zeros(10)}


def train(
    tmp_path: Path,
    network: dict[str, Any],
    size: dict[str, int],
    frozen: str,
    *words: str,
    init: str = "default",
) -> int:
    corpus = write_corpus(tmp_path / "rooms", frames=6, labels=True)
    config = {
        "name": "tiny_test",
        "summary": "A test.",
        "network": network,
        "init": init,
        **size,
        "steps": 2,
        "rates": {frozen: 0},
        "stages": [{"until": 1.0, **size, "batch": 2}],
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    paths = ["--data", str(corpus), "--out", str(tmp_path / "run")]
    return cli.main(["train", str(tmp_path / "tiny.yaml"), *paths, "--threads", "1", *words])


def test_a_swin_from_imagenet_begins_a_multitask_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = swin_classifier()
    torch.save({"model": weights}, tmp_path / "swin_tiny.pth")
    words = ("--init", str(tmp_path / "swin_tiny.pth"), "--json")
    assert train(tmp_path, MULT, SIZE, "encoder", *words) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (begun,) = [record["text"] for record in records if record["kind"] == "initialisation"]
    assert "tensors loaded from names of Swin; 2 ignored: head.bias" in begun
    assert math.isfinite(records[-1]["abs_rel"])
    assert math.isfinite(records[-1]["miou"])
    network, card = trained_network(tmp_path / "run" / "model.pt")
    origin = card.provenance["initialisation"]
    assert (origin["from"], origin["part"]) == ("swin_tiny.pth", "encoder")
    assert len(origin["sha256"]) == 64
    assert not card.input.focal
    # The frozen encoder is what the authors' file holds.
    state = network.state_dict()
    for ours, theirs in (
        ("encoder.patch_embed.weight", "patch_embed.proj.weight"),
        ("encoder.stages.1.blocks.1.attention.qkv.weight", "layers.1.blocks.1.attn.qkv.weight"),
        ("encoder.norms.3.bias", "norm.bias"),
    ):
        assert torch.equal(state[ours], weights[theirs]), ours


def test_a_vision_transformer_begins_a_metric_depth_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = official_layouts.vit(random_network(DEPTH, 1))
    torch.save(weights, tmp_path / "vit.pth")
    size = {"width": 56, "height": 56}
    assert train(tmp_path, DEPTH, size, "transformer", "--init", str(tmp_path / "vit.pth")) == 0
    shown = capsys.readouterr()
    assert "tensors loaded from names of timm, DeiT, DINOv2 or BEiT" in shown.out + shown.err
    network, card = trained_network(tmp_path / "run" / "model.pt")
    assert card.provenance["initialisation"]["part"] == "transformer"
    assert not card.input.focal
    got = network.state_dict()["transformer.blocks.2.attention.qkv.weight"]
    assert torch.equal(got, weights["blocks.2.attn.qkv.weight"])


def test_a_whole_published_network_begins_a_run(tmp_path: Path) -> None:
    original = random_network(DEPTH, 1)
    torch.save(official_layouts.depth_anything(original), tmp_path / "whole.pth")
    size = {"width": 56, "height": 56}
    # All but the head is frozen: the decoder came from the file, too.
    words = ("--init", str(tmp_path / "whole.pth"))
    assert train(tmp_path, DEPTH, size, "decoder", *words) == 0
    network, card = trained_network(tmp_path / "run" / "model.pt")
    assert "part" not in card.provenance["initialisation"]
    assert card.provenance["initialisation"]["names"] == "Depth Anything V2"
    for key, value in original.decoder.state_dict().items():
        assert torch.equal(network.decoder.state_dict()[key], value), key


def test_a_backbone_by_name_is_fetched_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DENSE_PERCEPTION_MIRROR", str(tmp_path / "mirror"))
    source = BACKBONES["swin_tiny_imagenet"].source
    (tmp_path / "mirror").mkdir()
    weights = swin_classifier()
    torch.save({"model": weights}, tmp_path / "mirror" / source.file)
    assert train(tmp_path, MULT, SIZE, "encoder", init="swin_tiny_imagenet") == 0
    shown = capsys.readouterr()
    text = shown.out + shown.err
    assert f"fetching swin_tiny_imagenet (MIT) from {source.url}" in text
    assert "tensors loaded from names of Swin; 2 ignored: head.bias" in text
    assert "swin_tiny_imagenet was trained on pixels of mean [0.485, 0.456, 0.406]" in text
    network, card = trained_network(tmp_path / "run" / "model.pt")
    origin = card.provenance["initialisation"]
    assert (origin["backbone"], origin["licence"]) == ("swin_tiny_imagenet", "MIT")
    assert (origin["from"], origin["part"]) == (source.file, "encoder")
    got = network.state_dict()["encoder.patch_embed.weight"]
    assert torch.equal(got, weights["patch_embed.proj.weight"])
    # The publisher states no digest: another file in the place of the first one is refused.
    torch.save(
        {"model": swin_classifier(), "more": torch.ones(1)}, backbone_path("swin_tiny_imagenet")
    )
    assert cli.main(["fetch", "swin_tiny_imagenet"]) == 2
    assert "when it was first" in capsys.readouterr().err


def test_an_offline_machine_is_told_how_to_get_a_backbone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(TrainingError, match="dense-perception fetch dinov2_small"):
        file_of(Path("dinov2_small"))


@pytest.mark.parametrize("name", list(BACKBONES))
def test_every_name_has_one_file_and_where_it_is(name: str) -> None:
    source = BACKBONES[name].source
    assert source.url.startswith("https://")
    assert source.url.endswith(source.file)
    assert name.split("_")[0] in source.file
    assert backbone_at(backbone_path(name)) == name
    assert backbone_at(Path(source.file)) == ""
    assert not source.sha256 or source.sha256 in source.file


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"dim": 16}, "of another shape"),
        ({"taps": [0, 1, 2, 5]}, "missing"),
    ],
)
def test_what_does_not_fit_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], complaint: str
) -> None:
    torch.save(official_layouts.vit(random_network(DEPTH, 1)), tmp_path / "vit.pth")
    network = {**DEPTH, **change}
    if "dim" in change:
        network["heads"] = 2
    size = {"width": 56, "height": 56}
    words = ("--init", str(tmp_path / "vit.pth"))
    assert train(tmp_path, network, size, "transformer", *words) != 0
    assert complaint in capsys.readouterr().err
