"""The cards of detectors without hosted weights are true to their networks and labels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dense_perception.core.card import ModelCard
from dense_perception.nets import zoo

CARDS = sorted((Path(__file__).parents[2] / "models").glob("mask_rcnn_*.yaml"))


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_a_card_builds_its_network(path: Path) -> None:
    card = ModelCard.from_yaml(path)
    assert card.name == path.stem
    with torch.device("meta"):
        module = zoo.build(card.network)
    assert sum(p.numel() for p in module.parameters()) == card.cost["parameters"]
    assert card.instances is not None
    assert module.config.things == len(card.instances.label_set.labels)
    assert module.config.count == card.instances.count
    assert ModelCard.from_dict(card.to_dict(), "round trip") == card
    assert {"box_ap_1x_percent", "mask_ap_3x_percent", "protocol"} <= set(card.results)
