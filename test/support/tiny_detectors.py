"""A small detector of every family, and its weights under MMDetection's names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dense_perception.core.card import ModelCard
from dense_perception.nets import zoo
from test.support.randomise import randomise

HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}
COUNT = 6
_PLAIN = {"variant": "vit_small", "dim": 8, "depth": 4, "heads": 2, "window": 0, "grid": [4, 6]}
_COMMON = {"classes": 5, "channels": 8, "count": COUNT, "candidates": 16, **HALF}
_REGIONS = {"hidden": 16, "proposals": 12}
DETECTORS: Mapping[str, Mapping[str, Any]] = {
    "mask_rcnn": {"family": "mask_rcnn", **_PLAIN, **_COMMON, **_REGIONS},
    "cascade_mask_rcnn": {
        "family": "cascade_mask_rcnn",
        **_PLAIN,
        **_COMMON,
        **_REGIONS,
        "box_convs": 1,
    },
    "atss": {"family": "atss", **_PLAIN, **_COMMON, "convs": 1},
    "gfl": {"family": "gfl", **_PLAIN, **_COMMON, "convs": 1, "bins": 4},
}


class Strided(nn.Module):
    """Maps at 1/4, 1/8, 1/16 and 1/32 from a convolution each, in place of a backbone."""

    def __init__(self, *channels: int) -> None:
        """``channels`` of the four maps; one number is that of all."""
        super().__init__()
        self.channels = channels if len(channels) == 4 else channels * 4
        before = (3, *self.channels[:3])
        self.convs = nn.ModuleList(
            nn.Conv2d(given, made, stride, stride)
            for given, made, stride in zip(before, self.channels, (4, 2, 2, 2), strict=True)
        )

    def forward(self, image_nchw: Tensor) -> list[Tensor]:
        maps = [image_nchw]
        for conv in self.convs:
            maps.append(conv(maps[-1]))
        return maps[1:]


def detector(name: str, **changes: object) -> nn.Module:
    """With random weights, for inference."""
    network = zoo.build({**DETECTORS[name], **changes}).eval()
    randomise(network)
    return network


def detector_card(name: str) -> ModelCard:
    """For pictures of 64x96 pixels."""
    return ModelCard.from_dict(
        {
            "schema": 1,
            "name": f"tiny_{name}",
            "family": name,
            "variant": "vit_small",
            "task": "instances",
            "summary": "Random weights.",
            "input": {"height": 64, "width": 96},
            "instances": {
                "labels": "own",
                "names": ["chair", "table", "lamp", "bed", "door"],
                "count": COUNT,
                "masks": "rcnn" in name,
            },
            "network": dict(DETECTORS[name]),
        },
        name,
    )


def published(name: str, network: nn.Module) -> dict[str, Tensor]:
    """The weights as a checkpoint of MMDetection has them, on ViT-CoMer's plain transformer."""
    ours = network.state_dict()
    theirs = {}
    for key, value in ours.items():
        for mine, their in _names(name, network):
            if key.startswith(mine):
                theirs[their + key[len(mine) :]] = value
                break
        else:
            raise KeyError(key)
    theirs["backbone.cls_token"] = torch.zeros(1, 1, 8)
    if name == "gfl":
        theirs["bbox_head.integral.project"] = torch.arange(5)
    return theirs


def _names(name: str, network: nn.Module) -> Iterator[tuple[str, str]]:
    yield "backbone.vit.position.table_1nc", "backbone.pos_embed"
    yield "backbone.vit.patch_embed.", "backbone.patch_embed.proj."
    for block in range(4):
        mine, their = f"backbone.vit.blocks.{block}.", f"backbone.blocks.{block}."
        yield f"{mine}attention.qkv.", f"{their}attn.qkv."
        yield f"{mine}attention.project.", f"{their}attn.proj."
        for part in (1, 2):
            yield f"{mine}scale{part}.gamma_c", f"{their}gamma{part}"
            yield f"{mine}norm{part}.", f"{their}norm{part}."
        yield f"{mine}mlp.", f"{their}mlp."
        yield f"backbone.norms.{block}.", f"backbone.norm{block + 1}."
    yield "backbone.scale.0.", "backbone.up1."
    yield "backbone.scale.1.", "backbone.up2."
    regions = "rcnn" in name
    used = 4 if regions else 3
    for level in range(used):
        yield f"neck.lateral.{level}.", f"neck.lateral_convs.{level}.conv."
        yield f"neck.smooth.{level}.", f"neck.fpn_convs.{level}.conv."
    yield "neck.extra.0.", "neck.fpn_convs.3.conv."
    yield "neck.extra.1.", "neck.fpn_convs.4.conv."
    yield "rpn.conv.", "rpn_head.rpn_conv."
    yield "rpn.classify.", "rpn_head.rpn_cls."
    yield "rpn.regress.", "rpn_head.rpn_reg."
    for stage in range(3):
        number = f"{stage}." if name == "cascade_mask_rcnn" else ""
        box, mask = f"roi_head.bbox_head.{number}", f"roi_head.mask_head.{number}"
        yield f"box_heads.{stage}.convs.0.", f"{box}shared_convs.0.conv."
        yield f"box_heads.{stage}.convs.1.", f"{box}shared_convs.0.bn."
        yield f"box_heads.{stage}.fcs.", f"{box}shared_fcs."
        yield f"box_heads.{stage}.classify.", f"{box}fc_cls."
        yield f"box_heads.{stage}.regress.", f"{box}fc_reg."
        for conv in range(4):
            yield f"mask_heads.{stage}.convs.{conv}.", f"{mask}convs.{conv}.conv."
        yield f"mask_heads.{stage}.upsample.", f"{mask}upsample."
        yield f"mask_heads.{stage}.classify.", f"{mask}conv_logits."
    for mine, their in (("class_tower", "cls_convs"), ("box_tower", "reg_convs")):
        yield f"head.{mine}.0.", f"bbox_head.{their}.0.conv."
        yield f"head.{mine}.1.", f"bbox_head.{their}.0.gn."
    for layer, leaf in (("classify", "cls"), ("regress", "reg"), ("centerness", "centerness")):
        yield f"head.{layer}.", f"bbox_head.{name}_{leaf}."
    for level in range(5):
        yield f"head.scales.{level}", f"bbox_head.scales.{level}.scale"
