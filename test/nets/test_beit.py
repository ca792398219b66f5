"""BEiT's relative positions against ``transformers``, and its own checkpoints as a backbone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dense_perception.core.errors import ArtefactError, InputError
from dense_perception.nets import zoo
from dense_perception.nets.positions import fix_positions
from dense_perception.nets.vit import VisionTransformer
from dense_perception.nets.weights import backbone_of, load_weights
from test.support.randomise import randomise


def transformer(**changes: object) -> VisionTransformer:
    options: dict = {
        "channels_in": 3,
        "dim": 24,
        "heads": 3,
        "taps": (0, 1, 2),
        "grid_hw": (4, 4),
        "layer_scale": True,
        "relative_positions": True,
        **changes,
    }
    return VisionTransformer(**options).double().eval()


def reference(shared: bool) -> torch.nn.Module:
    from transformers import BeitConfig, BeitModel

    config = BeitConfig(
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=96,
        image_size=64,
        patch_size=16,
        layer_norm_eps=1e-6,
        layer_scale_init_value=0.1,
        use_mean_pooling=False,
        use_relative_position_bias=not shared,
        use_shared_relative_position_bias=shared,
    )
    model = BeitModel(config, add_pooling_layer=False).double().eval()
    randomise(model)
    return model


def official(model: torch.nn.Module) -> dict[str, Tensor]:
    """The weights under the names of microsoft/unilm's BEiT, with a classifier."""
    theirs = model.state_dict()
    ours = {
        "cls_token": theirs["embeddings.cls_token"],
        "mask_token": torch.zeros(1, 1, 24),
        "norm.weight": torch.ones(24),
        "norm.bias": torch.zeros(24),
        "fc_norm.weight": torch.ones(24),
        "head.weight": torch.zeros(10, 24),
    }
    for index in range(3):
        at, block = f"layers.{index}", f"blocks.{index}"
        q, k, v = (theirs[f"{at}.attention.{part}_proj.weight"] for part in "qkv")
        ours[f"{block}.attn.qkv.weight"] = torch.cat([q, k, v])
        for part in "qv":
            ours[f"{block}.attn.{part}_bias"] = theirs[f"{at}.attention.{part}_proj.bias"]
        for source, target in (
            ("attention.o_proj", "attn.proj"),
            ("layernorm_before", "norm1"),
            ("layernorm_after", "norm2"),
            ("mlp.fc1", "mlp.fc1"),
            ("mlp.fc2", "mlp.fc2"),
        ):
            for leaf in ("weight", "bias"):
                ours[f"{block}.{target}.{leaf}"] = theirs[f"{at}.{source}.{leaf}"]
        for number in (1, 2):
            ours[f"{block}.gamma_{number}"] = theirs[f"{at}.lambda_{number}"]
        table = f"{at}.relative_position_bias.relative_position_bias_table"
        if table in theirs:
            ours[f"{block}.attn.relative_position_bias_table"] = theirs[table]
            ours[f"{block}.attn.relative_position_index"] = torch.zeros(17, 17)
    for leaf in ("weight", "bias"):
        projection = f"embeddings.patch_embeddings.projection.{leaf}"
        ours[f"patch_embed.proj.{leaf}"] = theirs[projection]
    shared = theirs.get("shared_position_bias.relative_position_bias_table")
    if shared is not None:
        ours["rel_pos_bias.relative_position_bias_table"] = shared
    return ours


@pytest.mark.parametrize("shared", [False, True])
@torch.no_grad()
def test_a_beit_checkpoint_computes_what_the_reference_computes(
    shared: bool, tmp_path: Path
) -> None:
    theirs = reference(shared)
    torch.save({"module": 1, "model": official(theirs)}, tmp_path / "beit.pth")
    ours = transformer()
    report = load_weights(ours, tmp_path / "beit.pth")
    assert not report.resized
    assert {"head.weight", "mask_token", "norm.bias"} <= set(report.ignored)
    for size_hw in ((64, 64), (48, 96)):  # the second: offsets of another grid
        image = torch.randn(2, 3, *size_hw, dtype=torch.float64)
        states = theirs(image, interpolate_pos_encoding=True, output_hidden_states=True)
        tapped, _ = ours(image)
        for got, want in zip(tapped, states.hidden_states[1:], strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=1e-10)


@torch.no_grad()
def test_offsets_are_resized_when_loaded_as_when_run(tmp_path: Path) -> None:
    torch.save(official(reference(False)), tmp_path / "beit.pth")
    stored, wide = transformer(), transformer(grid_hw=(3, 6))
    load_weights(stored, tmp_path / "beit.pth")
    report = load_weights(wide, tmp_path / "beit.pth")
    assert [key for key in report.resized if "position_bias" in key] == [
        f"blocks.{index}.position_bias.table" for index in range(3)
    ]
    image = torch.randn(1, 3, 48, 96, dtype=torch.float64)
    want = stored(image)[0][-1]
    # The loader resizes in single precision.
    torch.testing.assert_close(wide(image)[0][-1], want, rtol=0, atol=1e-5)
    fix_positions(stored, image)
    assert stored.blocks[0].position_bias.grid_hw == (3, 6)
    torch.testing.assert_close(stored(image)[0][-1], want, rtol=0, atol=1e-12)


def test_a_transformer_with_a_position_table_refuses_beit(tmp_path: Path) -> None:
    torch.save(official(reference(False)), tmp_path / "beit.pth")
    with pytest.raises(ArtefactError, match=r"missing: position\.table_1nc"):
        load_weights(transformer(relative_positions=False), tmp_path / "beit.pth")
    with pytest.raises(InputError, match="need a class token alone"):
        transformer(distilled=True)


@torch.no_grad()
def test_a_segmenter_starts_from_beit(tmp_path: Path) -> None:
    theirs = official(reference(False))
    # The published ones are classifiers: they norm the mean of the tokens alone.
    theirs = {key: value for key, value in theirs.items() if not key.startswith("norm.")}
    torch.save({"model": theirs}, tmp_path / "beit.pth")
    size = {"dim": 24, "heads": 3, "layers": 3, "height": 64, "width": 96, "classes": 4}
    network = {"family": "segmenter", "variant": "small", **size, "decoder": "linear"}
    ours = zoo.build({**network, "beit": True, "mean": [0.5] * 3, "std": [0.5] * 3}).eval()
    backbone = backbone_of(ours)
    assert backbone is not None
    report = load_weights(backbone[1], tmp_path / "beit.pth")
    assert report.missing == ("norm.bias", "norm.weight")
    assert len(report.resized) == 3  # offsets of a grid of 4x4 on one of 4x6
    kernel = ours.state_dict()["encoder.patch_embed.weight"]
    assert torch.equal(kernel, theirs["patch_embed.proj.weight"].float())
    assert torch.isfinite(ours(torch.randn(1, 3, 64, 96))["logits"]).all()
