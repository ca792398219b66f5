"""Published checkpoints: every tensor placed, explained or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dense_perception.core.errors import ArtefactError
from dense_perception.nets import zoo
from dense_perception.nets.vit import VisionTransformer
from dense_perception.nets.weights import load_weights
from test.support import official_layouts
from test.support.transformers_zoo import (
    DEPTH_ANYTHING,
    DPT_SEGMENTATION,
    depth_anything,
    dpt_segmentation,
    image,
    randomise,
    save,
)

SEGMENTER = {
    "family": "segmenter",
    "variant": "tiny",
    "dim": 64,
    "heads": 2,
    "layers": 2,
    "classes": 4,
    "height": 64,
    "width": 64,
}
DPT_DEPTH = {**DPT_SEGMENTATION, "classes": 0}
DPT_HYBRID = {
    **DPT_DEPTH,
    "variant": "hybrid",
    "taps": [2, 3],
    "stem_depths": [1, 1, 2],
    "channels": [256, 512, 32, 40],
}
FAMILIES: dict[str, tuple[dict[str, Any], Callable[[nn.Module], Any]]] = {
    "segmenter mask": (SEGMENTER, official_layouts.segmenter),
    "segmenter linear": ({**SEGMENTER, "decoder": "linear"}, official_layouts.segmenter),
    "segmenter deit": (
        {**SEGMENTER, "variant": "base_deit", "decoder": "linear"},
        official_layouts.segmenter,
    ),
    "depth anything": (DEPTH_ANYTHING, official_layouts.depth_anything),
    "dpt depth": (DPT_DEPTH, official_layouts.dpt),
    "dpt segmentation": (DPT_SEGMENTATION, official_layouts.dpt),
    "dpt hybrid": (DPT_HYBRID, official_layouts.dpt),
}


def random_network(network: dict[str, Any], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    module = zoo.build(network).eval()
    randomise(module)
    return module


def saved(data: object, folder: Path) -> Path:
    torch.save(data, folder / "checkpoint.pth")
    return folder / "checkpoint.pth"


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_official_layout_round_trip(family: str, tmp_path: Path) -> None:
    network, layout = FAMILIES[family]
    original, other = random_network(network, 1), random_network(network, 2)
    x = image(1, original.config.height, original.config.width)
    (want,) = original(x).values()
    assert not torch.equal(next(iter(other(x).values())), want)
    report = load_weights(other, saved(layout(original), tmp_path))
    assert report.loaded == len(other.state_dict())
    assert report.layout in ("Segmenter", "Depth Anything V2", "DPT")
    assert not report.missing
    assert not report.resized
    assert report.ignored  # each layout has some of these
    assert torch.equal(next(iter(other(x).values())), want)


@pytest.mark.parametrize(
    "wrapped",
    [
        "module.{}",
        "model.{}",
        "_orig_mod.{}",
        "module._orig_mod.{}",
        "model.module.{}",
        "network.{}",
    ],
)
def test_names_that_wrappers_put_before_weights(tmp_path: Path, wrapped: str) -> None:
    """DistributedDataParallel, Lightning, torch.compile, and several of them."""
    original, other = random_network(SEGMENTER, 1), random_network(SEGMENTER, 2)
    named = {wrapped.format(key): value for key, value in original.state_dict().items()}
    load_weights(other, saved({"state_dict": named}, tmp_path))
    for key, value in original.state_dict().items():
        assert torch.equal(other.state_dict()[key], value)


@pytest.mark.parametrize("make", [depth_anything, dpt_segmentation])
def test_names_that_transformers_has_in_memory(
    tmp_path: Path, make: Callable[[], nn.Module]
) -> None:
    """Version 5 writes the names of the hub, but who saves the state dictionary gets its own."""
    config = DEPTH_ANYTHING if make is depth_anything else DPT_SEGMENTATION
    model = make()
    loaded, in_memory = zoo.build(config), zoo.build(config)
    load_weights(loaded, save(model, tmp_path))
    load_weights(in_memory, saved(model.state_dict(), tmp_path))
    for key, value in loaded.state_dict().items():
        assert torch.equal(in_memory.state_dict()[key], value), key


def test_our_own_checkpoint_loads(tmp_path: Path) -> None:
    original, other = random_network(SEGMENTER, 1), random_network(SEGMENTER, 2)
    report = load_weights(other, saved({"model": original.state_dict()}, tmp_path))
    assert report.layout == "dense_perception"
    for key, value in original.state_dict().items():
        assert torch.equal(other.state_dict()[key], value)


@torch.no_grad()
def test_positions_of_another_grid_are_resized(tmp_path: Path) -> None:
    original = random_network(SEGMENTER, 1)
    path = saved(official_layouts.segmenter(original), tmp_path)
    wide = random_network({**SEGMENTER, "height": 48, "width": 96}, 2)
    report = load_weights(wide, path)
    assert report.resized == ("encoder.position.table_1nc",)
    assert "1 resized: encoder.position.table_1nc" in str(report)
    # Resizing at load time is what the original does at run time.
    x = image(1, 48, 96)
    torch.testing.assert_close(wide(x)["logits"], original(x)["logits"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("network", "complaint"),
    [
        ({**SEGMENTER, "dim": 128}, r"of another shape: .*64.*, expected .*128"),
        ({**SEGMENTER, "classes": 7}, r"class_embeddings_1kc is 1x4x64, expected 1x7x64"),
        ({**SEGMENTER, "layers": 3}, r"12 missing: encoder\.blocks\.2\."),
        ({**SEGMENTER, "layers": 1}, r"unexpected: encoder\.blocks\.1\."),
        ({**SEGMENTER, "decoder": "linear"}, r"2 missing: decoder\.head\."),
        (DEPTH_ANYTHING, r"does not fit DepthAnything"),
        (DPT_DEPTH, r"does not fit DPT .*another model or variant"),
    ],
)
def test_another_variant_is_refused(
    network: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    path = saved(official_layouts.segmenter(random_network(SEGMENTER, 1)), tmp_path)
    module = random_network(network, 2)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(ArtefactError, match=complaint):
        load_weights(module, path)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_renamed_and_broken_tensors_are_named(tmp_path: Path) -> None:
    checkpoint: Any = official_layouts.segmenter(random_network(SEGMENTER, 1))
    weights = checkpoint["model"]
    weights["encoder.blocks.0.attn.qqq.weight"] = weights.pop("encoder.blocks.0.attn.qkv.weight")
    module = random_network(SEGMENTER, 2)
    with pytest.raises(
        ArtefactError,
        match=r"1 missing: encoder\.blocks\.0\.attention\.qkv\.weight; "
        r"1 unexpected: encoder\.blocks\.0\.attn\.qqq\.weight",
    ):
        load_weights(module, saved(checkpoint, tmp_path))
    checkpoint = official_layouts.segmenter(random_network(SEGMENTER, 1))
    checkpoint["model"]["encoder.norm.bias"][3] = float("nan")
    with pytest.raises(ArtefactError, match=r"NaN or infinite weights in encoder\.norm\.bias"):
        load_weights(module, saved(checkpoint, tmp_path))


def transformer(**changes: Any) -> VisionTransformer:
    options = {
        "channels_in": 3,
        "dim": 24,
        "heads": 3,
        "taps": (0, 1, 2, 3),
        "grid_hw": (4, 4),
        "patch": 14,
        "final_norm": True,
        **changes,
    }
    module = VisionTransformer(**options).eval()
    randomise(module)
    return module


def test_a_backbone_for_fine_tuning(tmp_path: Path) -> None:
    pretrained = transformer()
    weights = official_layouts.vit(pretrained, "")
    path = saved(weights, tmp_path)
    # Patches of 16 instead of 14, another grid, fewer blocks, no class token, no final norm.
    ours = transformer(patch=16, grid_hw=(3, 5), taps=(1, 2), class_token=False, final_norm=False)
    report = load_weights(ours, path)
    assert set(report.resized) == {"position.table_1nc", "patch_embed.weight"}
    assert {"class_token_11c", "blocks.3.norm1.weight", "norm.bias"} <= set(report.ignored)
    assert torch.equal(ours.blocks[2].mlp.fc1.weight, pretrained.blocks[2].mlp.fc1.weight)
    kernel = F.interpolate(
        pretrained.patch_embed.weight, size=(16, 16), mode="bicubic", align_corners=False
    )
    torch.testing.assert_close(ours.patch_embed.weight, kernel)
    grid = pretrained.position.table_1nc[:, 1:].reshape(1, 4, 4, 24).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, size=(3, 5), mode="bilinear", align_corners=False)
    torch.testing.assert_close(ours.position.table_1nc, resized.flatten(2).transpose(1, 2))


@pytest.mark.parametrize("theirs_scales", [False, True])
@torch.no_grad()
def test_scales_of_layers_that_one_side_has(theirs_scales: bool, tmp_path: Path) -> None:
    """DeiT in ViT-CoMer, DINOv2 in Segmenter: another network, the same function."""
    pretrained = transformer(layer_scale=theirs_scales)
    path = saved(official_layouts.vit(pretrained, ""), tmp_path)
    ours = transformer(layer_scale=not theirs_scales)
    report = load_weights(ours, path)
    assert len(report.converted) == 2 * len(ours.blocks)
    x = image(1, 56, 56)
    for got, want in zip(ours(x)[0], pretrained(x)[0], strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


def test_a_backbone_of_another_width_is_refused(tmp_path: Path) -> None:
    path = saved(official_layouts.vit(transformer(), ""), tmp_path)
    with pytest.raises(ArtefactError, match="of another shape"):
        load_weights(transformer(dim=48), path)
    with pytest.raises(ArtefactError, match=r"missing: blocks\.4"):
        load_weights(transformer(taps=(4,)), path)


def test_dinov2_of_the_hub_is_a_backbone(tmp_path: Path) -> None:
    from transformers import Dinov2Config, Dinov2Model

    theirs = Dinov2Model(
        Dinov2Config(
            hidden_size=24,
            num_hidden_layers=4,
            num_attention_heads=3,
            image_size=56,
            patch_size=14,
            layer_norm_eps=1e-6,
        )
    ).eval()
    randomise(theirs)
    theirs.save_pretrained(tmp_path)
    ours = transformer(layer_scale=True, taps=(3,))
    load_weights(ours, tmp_path / "model.safetensors")
    x = image(1, 56, 56)
    with torch.no_grad():
        (tokens,), _ = ours(x)
        torch.testing.assert_close(tokens, theirs(x).last_hidden_state, rtol=0, atol=1e-5)


SWIN = {"dim": 8, "depths": [1, 2, 1, 1], "heads": [1, 2, 2, 2], "window": 3}
HEADS = {"classes": 5, "channels": 8, "auxiliary_channels": 4}


@pytest.mark.parametrize(
    "network",
    [
        {"family": "upernet", "variant": "swin_tiny", **SWIN, **HEADS},
        {
            "family": "vit_comer",
            "variant": "small",
            **HEADS,
            "dim": 12,
            "depth": 4,
            "heads": 2,
            "deform_heads": 2,
            "stem": 6,
        },
    ],
    ids=["swin", "vit_comer"],
)
@torch.no_grad()
def test_openmmlab_segmentors(network: dict[str, Any], tmp_path: Path) -> None:
    original, other = random_network(network, 1), random_network(network, 2)
    x = image(1, 64, 96)
    want = original(x)["logits"]
    assert not torch.equal(other(x)["logits"], want)
    checkpoint = {"state_dict": official_layouts.upernet(original), "meta": {"epoch": 1}}
    report = load_weights(other, saved(checkpoint, tmp_path))
    assert report.layout == "OpenMMLab"
    assert report.loaded == len(other.state_dict())
    assert torch.equal(other(x)["logits"], want)


def test_a_swin_classifier_is_a_backbone(tmp_path: Path) -> None:
    network = {"family": "upernet", "variant": "swin_tiny", **SWIN, **HEADS}
    original, other = random_network(network, 1), random_network(network, 2)
    weights = {
        key.removeprefix("backbone."): value
        for key, value in official_layouts.upernet(original).items()
        if key.startswith("backbone.")
    }
    # A classifier has the last norm only, and calls it otherwise.
    weights = {k: v for k, v in weights.items() if not k.startswith(("norm0", "norm1", "norm2"))}
    weights = {k.replace("norm3.", "norm.", 1): v for k, v in weights.items()}
    weights["head.weight"], weights["head.bias"] = torch.zeros(10, 64), torch.zeros(10)
    kept = other.backbone.norms[0].weight.clone()
    report = load_weights(other.backbone, saved({"model": weights}, tmp_path))
    assert report.ignored == ("head.bias", "head.weight")
    assert len(report.missing) == 6
    assert torch.equal(other.backbone.norms[0].weight, kept)
    for name in ("norms.3.weight", "stages.1.blocks.1.attention.qkv.weight"):
        assert torch.equal(other.backbone.state_dict()[name], original.backbone.state_dict()[name])
