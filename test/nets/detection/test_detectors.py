"""Whole detectors: their answers' layout, their sizes and their checkpoints' names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dense_perception.core.errors import CardError
from dense_perception.nets import zoo
from dense_perception.nets.weights import load_weights
from test.support.tiny_detectors import COUNT, DETECTORS, detector, published


def image(frames: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(frames, 3, 64, 96, generator=generator)


@pytest.mark.parametrize("name", DETECTORS)
def test_checkpoints_load_and_frames_do_not_see_each_other(name: str, tmp_path: Path) -> None:
    network = detector(name)
    torch.save({"state_dict": published(name, network)}, tmp_path / "model.pth")
    loaded = zoo.build(DETECTORS[name]).eval()
    report = load_weights(loaded, tmp_path / "model.pth")
    assert report.layout == "OpenMMLab"
    assert report.loaded == len(network.state_dict())
    assert all("cls_token" in key or "integral" in key for key in report.ignored)
    with torch.no_grad():
        both, first = network(image(2)), loaded(image(2)[:1])
    for key, value in first.items():
        assert torch.allclose(both[key][:1], value, atol=1e-4), key


@pytest.mark.parametrize("name", DETECTORS)
def test_answers_are_laid_out_as_promised(name: str) -> None:
    network = detector(name, overlap=0.9, score_threshold=0.0)
    with torch.no_grad():
        found = network(image(2))
    boxes, scores = found["boxes"], found["box_scores"]
    assert boxes.shape == (2, COUNT, 4)
    assert (scores[:, :-1] >= scores[:, 1:]).all()
    assert (scores > 0).all()
    assert (boxes >= 0).all()
    assert (boxes[..., 2] <= 96).all()
    assert (boxes[..., 3] <= 64).all()
    assert (boxes == torch.tensor([0.0, 0, 96, 64])).any()  # ends at a side of the picture
    assert set(found["box_classes"].unique().tolist()) <= set(range(5))
    if "rcnn" in name:
        assert found["masks"].shape == (2, COUNT, 64, 96)
        inside = found["masks"] >= 0.5
        first = torch.where(inside.any(dim=1), inside.to(torch.uint8).argmax(dim=1) + 1, 0)
        assert torch.equal(found["instance_ids"], first)
    network = detector(name, score_threshold=0.9999)
    with torch.no_grad():
        nothing = network(image(1))
    assert all(not value.any() for value in nothing.values())


# In millions, by the README of SwinTransformer/Swin-Transformer-Object-Detection.
@pytest.mark.parametrize(
    ("family", "variant", "millions"),
    [
        ("mask_rcnn", "swin_tiny", 48),
        ("mask_rcnn", "swin_small", 69),
        ("cascade_mask_rcnn", "swin_tiny", 86),
        ("cascade_mask_rcnn", "swin_small", 107),
        ("cascade_mask_rcnn", "swin_base", 145),
    ],
)
def test_sizes_are_the_published_ones(family: str, variant: str, millions: float) -> None:
    with torch.device("meta"):
        network = zoo.build({"family": family, "variant": variant})
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.03)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"classes": 300}, "classes is 300"),
        ({"count": 0}, "count is 0"),
        ({"candidates": 5}, "count is 6, candidates 5"),
        ({"overlap": 0.0}, "overlap 0.0"),
        ({"proposals": 4000}, "proposals is 4000"),
        ({"box_fcs": 0}, "box_fcs 0"),
        ({"depth": 5}, "depth is 5"),
    ],
)
def test_wrong_settings_are_named(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(CardError, match=complaint):
        zoo.build({**DETECTORS["mask_rcnn"], **change})
