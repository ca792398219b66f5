"""Random weights under a card, to measure speed with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from dense_perception.core.errors import CardError, InputError
from dense_perception.export.onnx_graph import _check
from dense_perception.export.untrained import untrained


def test_any_network_at_any_size() -> None:
    network, card = untrained("segmenter/tiny", "64x48")
    assert (card.input.width, card.input.height) == (64, 48)
    assert card.segmentation is not None
    assert card.provenance["weights"] == "random, seed 0"
    with torch.no_grad():
        logits = network(torch.zeros(1, 3, 48, 64))["logits"]
    assert logits.shape == (1, 150, 48, 64)


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("panoptic/lite0", ("depth", "labels", "instances", "instance_ids")),
        ("atss/vit_small", ("instances",)),
        ("cascade_mask_rcnn/swin_tiny", ("instances", "instance_ids")),
        ("mask2former/vit_comer_tiny", ("labels", "instances", "instance_ids")),
        ("segmenter_objects/tiny", ("labels", "instances", "instance_ids")),
    ],
)
def test_networks_of_things_promise_what_they_give(name: str, outputs: tuple[str, ...]) -> None:
    network, card = untrained(name)
    assert card.outputs == outputs
    _check(network, card)  # refuses a card of other outputs, classes or depth


def test_the_page_on_things_names_a_size_that_the_network_takes() -> None:
    page = (Path(__file__).parents[2] / "docs/things.md").read_text(encoding="utf-8")
    (found,) = re.findall(r"export (\w+/\w+) --random --size (\d+)x(\d+)", page)
    _, card = untrained(found[0], f"{found[1]}x{found[2]}")
    assert (card.input.width, card.input.height) == (int(found[1]), int(found[2]))


def test_a_known_model_keeps_its_card() -> None:
    _, card = untrained("dpt_tiny_indoor")
    assert card.name == "dpt_tiny_indoor_untrained"
    assert card.input.focal
    assert card.files == {}


def test_wrong_names_are_named() -> None:
    with pytest.raises(InputError, match="there is no model 'nonsense'"):
        untrained("nonsense")
    with pytest.raises(CardError, match="expected one of"):
        untrained("dpt/nonsense")
    with pytest.raises(InputError, match="expected WIDTHxHEIGHT"):
        untrained("segmenter/tiny", "64")
