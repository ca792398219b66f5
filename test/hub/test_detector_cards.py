"""The cards of detectors without hosted weights are true to their networks and labels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dense_perception.core.card import ModelCard
from dense_perception.nets import zoo

MODELS = Path(__file__).parents[2] / "models"
DETECTORS = ("mask_rcnn", "cascade_mask_rcnn", "atss", "gfl", "mask2former")
CARDS = sorted(path for name in DETECTORS for path in MODELS.glob(f"{name}_vit_comer_*.yaml"))
# Millions of parameters in table 1 of ViT-CoMer's paper, which its README shows.
MASK_RCNN_M = {
    "vit_comer_tiny": 29,
    "vit_comer_small": 50,
    "vit_comer_base": 129,
    "vit_comer_large": 363,
    "vit_comer_small_dinov2": 50,
    "vit_comer_base_dinov2": 129,
    "vit_small": 44,
    "vit_base": 114,
}


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_a_card_builds_its_network(path: Path) -> None:
    card = ModelCard.from_yaml(path)
    assert card.name == path.stem
    with torch.device("meta"):
        module = zoo.build(card.network)
    assert sum(p.numel() for p in module.parameters()) == card.cost["parameters"]
    if card.instances is not None:
        assert module.config.things == len(card.instances.label_set.labels)
        assert module.config.count == card.instances.count
        assert module.gives_masks == card.instances.masks
    else:
        assert card.segmentation is not None
        assert module.config.classes == len(card.segmentation.label_set.labels)
    assert ModelCard.from_dict(card.to_dict(), "round trip") == card
    if card.family == "mask_rcnn":
        assert {"box_ap_1x_percent", "mask_ap_3x_percent", "protocol"} <= set(card.results)
    assert card.source is None
    assert "code" in card.provenance


@pytest.mark.parametrize("variant", MASK_RCNN_M)
def test_mask_rcnn_has_the_published_size(variant: str) -> None:
    with torch.device("meta"):
        module = zoo.build({"family": "mask_rcnn", "variant": variant})
    millions = sum(p.numel() for p in module.parameters()) / 1e6
    assert millions == pytest.approx(MASK_RCNN_M[variant], rel=0.03)


def test_every_detector_of_the_paper_has_a_card() -> None:
    families = {ModelCard.from_yaml(path).family for path in CARDS}
    assert families == set(DETECTORS)
