"""A tiny network of each published family, filled from a random checkpoint in its own layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dense_perception.core.card import ModelCard
from dense_perception.nets import zoo
from dense_perception.nets.weights import load_weights
from test.support import official_layouts
from test.support.randomise import randomise

HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}
SMALL_VIT = {"dim": 32, "heads": 2, "taps": [0, 1, 2, 3], "channels": [8, 12, 16, 20]}
UPERNET_HEAD = {"classes": 19, "channels": 8, "auxiliary_channels": 4}
FAMILIES: dict[str, dict[str, Any]] = {
    "dpt_depth": {
        "task": "depth",
        "depth": {"kind": "metric"},
        "size": (64, 96),
        "layout": official_layouts.dpt,
        "network": {
            "family": "dpt",
            "variant": "base",
            **SMALL_VIT,
            "features": 16,
            "scale": 3e-4,
            "shift": 0.1378,
        },
    },
    "dpt_segmentation": {
        "task": "segmentation",
        "segmentation": {"labels": "cityscapes"},
        "size": (64, 96),
        "layout": official_layouts.dpt,
        "network": {
            "family": "dpt",
            "variant": "base",
            **SMALL_VIT,
            "features": 16,
            "classes": 19,
        },
    },
    "dpt_hybrid": {
        "task": "depth",
        "depth": {"kind": "relative_inverse"},
        "size": (64, 96),
        "layout": official_layouts.dpt,
        "network": {
            "family": "dpt",
            "variant": "hybrid",
            **SMALL_VIT,
            "taps": [0, 1],
            "channels": [256, 512, 16, 20],
            "stem_depths": [1, 1, 1],
            "features": 16,
        },
    },
    "depth_anything": {
        "task": "depth",
        "depth": {"kind": "metric", "max_m": 20.0},
        "size": (42, 70),
        "layout": official_layouts.depth_anything,
        "network": {
            "family": "depth_anything",
            "variant": "v2_small",
            **SMALL_VIT,
            "features": 16,
            "max_depth_m": 20.0,
        },
    },
    "segmenter": {
        "task": "segmentation",
        "segmentation": {"labels": "cityscapes", "window": 64, "stride": 40},
        "size": (64, 100),
        "window": 64,
        "layout": official_layouts.segmenter,
        "network": {
            "family": "segmenter",
            "variant": "tiny",
            "dim": 64,
            "heads": 2,
            "layers": 2,
            "classes": 19,
        },
    },
    "upernet": {
        "task": "segmentation",
        "segmentation": {"labels": "cityscapes"},
        "size": (64, 96),
        "layout": official_layouts.upernet,
        "network": {
            "family": "upernet",
            "variant": "swin_tiny",
            "dim": 8,
            "depths": [1, 2, 1, 1],
            "heads": [1, 2, 2, 2],
            "window": 3,
            **UPERNET_HEAD,
        },
    },
    "vit_comer": {
        "task": "segmentation",
        "segmentation": {"labels": "cityscapes"},
        "size": (64, 96),
        "layout": official_layouts.upernet,
        # One deformable attention in each direction: their export is what takes the time.
        "network": {
            "family": "vit_comer",
            "variant": "small",
            "dim": 12,
            "depth": 4,
            "heads": 2,
            "window": 3,
            "deform_heads": 2,
            "stem": 6,
            "extra": 1,
            "to_v": [False, True, False, False],
            "to_c": [False, False, True, False],
            "interaction": [False, False, True, False],
            **UPERNET_HEAD,
        },
    },
}

_SWIN = {"dim": 8, "depths": [1, 2, 1, 1], "heads": [1, 2, 2, 2], "window": 3}
# Networks of the zoo that nobody publishes weights of, at 64x96; and entries to get wrong.
DENSE: dict[str, dict[str, Any]] = {
    "upernet": FAMILIES["upernet"]["network"],
    "vit_comer": FAMILIES["vit_comer"]["network"],
    "x_comer": {
        "family": "vit_comer",
        "variant": "swin_tiny",
        "deform_heads": 2,
        "stem": 6,
        "extra": 1,
        "to_v": [False, True, False, False],
        "to_c": [False, False, True, False],
        "interaction": [False, False, True, False],
        "classes": 5,
        "channels": 8,
        "auxiliary_channels": 4,
        **_SWIN,
        "width": 12,
    },
    "mult": {
        "family": "mult",
        "variant": "swin_tiny",
        **_SWIN,
        "tasks": ["segmentation", "depth"],
        "classes": 5,
        "decoder_depths": [1, 1, 1, 2],
    },
}


def prepared(name: str, folder: Path) -> tuple[ModelCard, torch.nn.Module]:
    """A card and its network, filled from a random checkpoint in the official layout."""
    family = FAMILIES[name]
    height, width = family["size"]
    network = {**family["network"], **HALF}
    if family["layout"] is not official_layouts.upernet:  # whose networks take any size
        side = family.get("window")
        network |= {"height": side or height, "width": side or width}
    data = {
        "schema": 1,
        "name": f"tiny_{name}",
        "family": network["family"],
        "variant": network["variant"],
        "summary": "Random weights.",
        "input": {"height": height, "width": width},
        "network": network,
        **{key: family[key] for key in ("task", "depth", "segmentation") if key in family},
    }
    card = ModelCard.from_dict(data, name)
    original = zoo.build(card.network)
    randomise(original)
    checkpoint = folder / "checkpoint.pth"
    torch.save(family["layout"](original), checkpoint)
    module = zoo.build(card.network).eval()
    load_weights(module, checkpoint)
    return card, module
