"""Small networks under test cards, shared by the export tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import nn

from dense_perception.core.card import ModelCard
from dense_perception.core.card_specs import DepthSpec, InputSpec
from dense_perception.core.prediction import DepthKind
from dense_perception.nets import zoo
from test.support.models import default_network

TINY = {
    **default_network(),
    "height": 64,
    "width": 96,
    "features": 16,
    "head_features": [8, 8],
    "dim": 32,
    "depth": 2,
    "heads": 2,
}
VIT = {
    "family": "dpt",
    "variant": "base",
    "height": 64,
    "width": 64,
    "dim": 32,
    "heads": 2,
    "features": 16,
    "taps": [0, 1, 2, 3],
    "channels": [8, 12, 16, 20],
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
}
HYBRID = {
    **VIT,
    "variant": "hybrid",
    "taps": [0, 1],
    "stem_depths": [1, 1, 1],
    "channels": [256, 512, 16, 20],
}


def tiny_card(**changes: object) -> ModelCard:
    card = ModelCard(
        name="tiny",
        family="dpt",
        variant="hybrid_lite0",
        task="depth",
        summary="A network with random weights.",
        input=InputSpec(height=64, width=96, focal=True),
        depth=DepthSpec(DepthKind.METRIC, 0.1, 20.0),
        network=TINY,
    )
    return replace(card, **changes)  # type: ignore[arg-type]


def vit_card(network: dict[str, object]) -> ModelCard:
    return tiny_card(
        name="vit",
        variant=str(network["variant"]),
        input=InputSpec(height=64, width=96),
        depth=DepthSpec(DepthKind.RELATIVE_INVERSE),
        network=network,
    )


def random_network(card: ModelCard) -> nn.Module:
    """Random weights that make the output vary."""
    torch.manual_seed(0)
    network = zoo.build(card.network).eval()
    last = network.head.conv3 if hasattr(network, "head") else network.head_conv3
    torch.nn.init.normal_(last.weight, std=0.3)
    if hasattr(network, "head"):
        torch.nn.init.constant_(last.bias, 1.0)
    return network


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
