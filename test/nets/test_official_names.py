"""Checkpoints in the authors' layout load into UperNet on Swin and on ViT-CoMer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dense_perception.core.errors import ArtefactError
from dense_perception.nets import zoo
from dense_perception.nets.vit_comer import ViTCoMer
from dense_perception.nets.weights import load_weights
from test.support.randomise import randomise

HEAD = {"classes": 5, "channels": 8, "auxiliary_channels": 4}
COMER = {
    "family": "vit_comer",
    "variant": "small",
    **HEAD,
    "dim": 12,
    "depth": 4,
    "heads": 2,
    "deform_heads": 2,
    "stem": 6,
    "grid": [3, 3],
}
SWIN = {
    "family": "upernet",
    "variant": "swin_tiny",
    **HEAD,
    "dim": 8,
    "depths": [1, 2, 1, 1],
    "heads": [1, 2, 2, 2],
    "window": 3,
}


def leaves(module: str, kind: str) -> Iterator[str]:
    norm = ("running_mean", "running_var", "num_batches_tracked")
    yield from (f"{module}.{leaf}" for leaf in ("weight", "bias", *(norm if kind == "bn" else ())))


def head_keys() -> Iterator[str]:
    names = [f"psp_modules.{i}.1" for i in range(4)] + ["bottleneck", "fpn_bottleneck"]
    names += [f"{kind}_convs.{i}" for i in range(3) for kind in ("lateral", "fpn")]
    for module in [f"decode_head.{name}" for name in names] + ["auxiliary_head.convs.0"]:
        yield f"{module}.conv.weight"
        yield from leaves(f"{module}.bn", "bn")
    yield from leaves("decode_head.conv_seg", "conv")
    yield from leaves("auxiliary_head.conv_seg", "conv")


def attention_keys(at: str) -> Iterator[str]:
    for part in ("sampling_offsets", "attention_weights", "value_proj", "output_proj"):
        yield from leaves(f"{at}.attn.{part}", "linear")
    yield from leaves(f"{at}.query_norm", "norm")
    yield from leaves(f"{at}.feat_norm", "norm")
    yield from ffn_keys(at)


def ffn_keys(at: str) -> Iterator[str]:
    for part in ("ffn.fc1", "ffn.fc2", "ffn.dwconv.dwconv", "ffn_norm"):
        yield from leaves(f"{at}.{part}", "linear")


def comer_keys() -> Iterator[str]:
    """As the authors' segmentation backbone of depth 4 names its weights."""
    yield from ("pos_embed", "level_embed")
    yield from leaves("patch_embed.proj", "conv")
    for i in range(4):
        for part in ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
            yield from leaves(f"blocks.{i}.{part}", "linear")
        yield from (f"blocks.{i}.gamma1", f"blocks.{i}.gamma2")
        yield from leaves(f"spm.fc{i + 1}", "conv")
        yield from leaves(f"norm{i + 1}", "bn")
        at = f"interactions.{i}"
        yield from leaves(f"{at}.mrfp.fc1", "linear")
        yield from leaves(f"{at}.mrfp.fc2", "linear")
        for k in range(1, 7):
            yield from leaves(f"{at}.mrfp.dwconv.dwconv{k}", "conv")
        for k in range(1, 4):
            yield from leaves(f"{at}.mrfp.dwconv.bn{k}", "bn")
        yield f"{at}.cti_tov.gamma"
        yield from attention_keys(f"{at}.cti_tov")
        to_c = [f"{at}.cti_toc"] + [f"{at}.extra_CTIs.{k}" for k in range(4 if i == 3 else 0)]
        for module in to_c:
            yield from leaves(f"{module}.query_norm", "norm")
            yield from leaves(f"{module}.feat_norm", "norm")
            yield from attention_keys(f"{module}.cfinter")
            if "extra" in module:
                yield from ffn_keys(module)
    for k in (0, 3, 6):
        yield f"spm.stem.{k}.weight"
        yield from leaves(f"spm.stem.{k + 1}", "bn")
    for k in (2, 3, 4):
        yield f"spm.conv{k}.0.weight"
        yield from leaves(f"spm.conv{k}.1", "bn")
    yield from leaves("up", "conv")


def swin_keys() -> Iterator[str]:
    """As mmsegmentation's Swin of depths 1, 2, 1, 1, whose names are Microsoft's."""
    yield from leaves("patch_embed.proj", "conv")
    yield from leaves("patch_embed.norm", "norm")
    for stage, depth in enumerate((1, 2, 1, 1)):
        yield from leaves(f"norm{stage}", "norm")
        for i in range(depth):
            at = f"layers.{stage}.blocks.{i}"
            for part in ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
                yield from leaves(f"{at}.{part}", "linear")
            yield f"{at}.attn.relative_position_bias_table"
            yield f"{at}.attn.relative_position_index"
        if stage < 3:
            yield from leaves(f"layers.{stage}.downsample.norm", "norm")
            yield f"layers.{stage}.downsample.reduction.weight"


def theirs(network: dict[str, object], keys: list[str]) -> dict[str, Tensor]:
    """A checkpoint of the authors' names with the shapes our tables say they have.

    Each value is unique, so a swap of two weights of one shape would show.
    """
    import re

    from dense_perception.nets.weights import _layouts

    net = zoo.build(network)
    (table,) = _layouts(net).values()
    ours = net.state_dict()
    state = {}
    for index, key in enumerate(keys):
        for pattern, name in table:
            match = re.fullmatch(pattern, key)
            if match:
                target = match.expand(name) if name else None
                shape = ours[target].shape if target else (1,)
                state[key] = torch.full(tuple(shape), 1.0 + index)
                break
        else:
            raise AssertionError(f"no rule for {key}")
    return state


@pytest.mark.parametrize(("network", "body"), [(COMER, comer_keys), (SWIN, swin_keys)])
def test_every_published_name_has_its_place(
    network: dict[str, object], body: object, tmp_path: Path
) -> None:
    keys = [f"backbone.{key}" for key in body()] + list(head_keys())  # type: ignore[operator]
    state = theirs(network, keys)
    torch.save({"state_dict": state, "meta": {}}, tmp_path / "theirs.pth")
    net = zoo.build(network)
    load_weights(net, tmp_path / "theirs.pth")
    loaded = net.state_dict()
    values = [
        float(value.reshape(-1)[0])
        for key, value in loaded.items()
        if "num_batches_tracked" not in key
    ]
    assert len(set(values)) == len(values), "two of our weights came from one of theirs"
    if network is COMER:
        body_of = net.get_submodule("backbone").state_dict()
        for ours, official in (
            ("neck.stages.2.mrfp.near.1.weight", "interactions.2.mrfp.dwconv.dwconv3.weight"),
            ("neck.stages.2.mrfp.far.1.weight", "interactions.2.mrfp.dwconv.dwconv4.weight"),
            (
                "neck.stages.3.extra.2.first.body.fc1.bias",
                "interactions.3.extra_CTIs.2.ffn.fc1.bias",
            ),
            ("neck.stages.0.to_c.ffn.norm.bias", "interactions.0.cti_toc.cfinter.ffn_norm.bias"),
            ("neck.stem.downs.1.0.weight", "spm.conv3.0.weight"),
        ):
            assert torch.equal(body_of[ours], state[f"backbone.{official}"])


def test_the_class_tokens_position_is_cut_off_and_the_grid_resized(tmp_path: Path) -> None:
    keys = [f"backbone.{key}" for key in comer_keys()] + list(head_keys())
    state = theirs(COMER, keys)
    table = torch.arange(17.0).reshape(1, 17, 1).expand(1, 17, 12).clone()
    state["backbone.pos_embed"] = table
    torch.save({"state_dict": state}, tmp_path / "theirs.pth")
    net = zoo.build({**COMER, "grid": [4, 4]})
    load_weights(net, tmp_path / "theirs.pth")
    backbone = net.get_submodule("backbone")
    assert isinstance(backbone, ViTCoMer)
    torch.testing.assert_close(backbone.vit.position.table_1nc.detach(), table[:, 1:])


def test_another_variant_is_refused_and_the_network_left_as_it_was(tmp_path: Path) -> None:
    keys = [f"backbone.{key}" for key in swin_keys()] + list(head_keys())
    torch.save({"state_dict": theirs(SWIN, keys)}, tmp_path / "theirs.pth")
    net = zoo.build({**SWIN, "classes": 7})
    randomise(net)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(ArtefactError, match="another"):
        load_weights(net, tmp_path / "theirs.pth")
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
