"""UperNet against ``transformers`` with random weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.nets.swin import SWIN_VARIANTS, SwinConfig, SwinTransformer
from dense_perception.nets.upernet import UperNet, UperNetConfig, adaptive_average
from test.support.randomise import randomise
from test.support.theirs import rename_swin, rename_upernet_heads

TINY = SwinConfig(dim=8, depths=(1, 1, 2, 1), heads=(1, 2, 2, 4), window=3)


def pair() -> tuple[nn.Module, UperNet]:
    from transformers import SwinConfig as TheirSwin
    from transformers import UperNetConfig as TheirConfig
    from transformers import UperNetForSemanticSegmentation

    backbone = TheirSwin(
        embed_dim=TINY.dim,
        depths=list(TINY.depths),
        num_heads=list(TINY.heads),
        window_size=TINY.window,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    theirs = UperNetForSemanticSegmentation(
        TheirConfig(backbone_config=backbone, hidden_size=16, auxiliary_channels=12, num_labels=5)
    )
    theirs = theirs.double().eval()
    randomise(theirs)
    ours = UperNet(SwinTransformer(TINY), UperNetConfig(5, 16, 12)).double().eval()
    state = theirs.state_dict()
    backbone_state = {
        key.removeprefix("backbone."): value
        for key, value in state.items()
        if key.startswith("backbone.")
    }
    renamed = {
        f"backbone.{key}": value for key, value in rename_swin(backbone_state, TINY.depths).items()
    }
    ours.load_state_dict({**renamed, **rename_upernet_heads(state)})
    return theirs, ours


@pytest.mark.parametrize("size_hw", [(96, 160), (100, 70)])
def test_the_logits_equal_the_independent_implementation(size_hw: tuple[int, int]) -> None:
    theirs, ours = pair()
    image = torch.randn(2, 3, *size_hw, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(image).logits
        outputs = ours(image)
    assert set(outputs) == {"logits"}
    torch.testing.assert_close(outputs["logits"], expected, atol=1e-10, rtol=0)


def test_the_auxiliary_head_equals_the_independent_one() -> None:
    theirs, ours = pair()
    image = torch.randn(1, 3, 96, 64, dtype=torch.float64)
    with torch.no_grad():
        maps = ours.backbone(image)
        got = ours.auxiliary(maps[2])
        expected = theirs.auxiliary_head(maps)
    torch.testing.assert_close(got, expected, atol=1e-10, rtol=0)


def test_training_returns_the_auxiliary_logits_too() -> None:
    ours = UperNet(SwinTransformer(TINY), UperNetConfig(5, 16, 12))
    outputs = ours(torch.randn(2, 3, 64, 96))
    assert {k: tuple(v.shape) for k, v in outputs.items()} == {
        "logits": (2, 5, 64, 96),
        "auxiliary_logits": (2, 5, 64, 96),
    }
    without = UperNet(SwinTransformer(TINY), UperNetConfig(5, 16, 0))
    assert set(without(torch.randn(2, 3, 64, 96))) == {"logits"}


@pytest.mark.parametrize("size_hw", [(7, 11), (16, 16), (2, 5), (6, 3)])
def test_pooling_by_matrices_equals_adaptive_pooling(size_hw: tuple[int, int]) -> None:
    x: Tensor = torch.randn(2, 3, *size_hw, dtype=torch.float64)
    for side in (1, 2, 3, 6):
        got = adaptive_average(x, side)
        torch.testing.assert_close(got, F.adaptive_avg_pool2d(x, side), atol=1e-14, rtol=0)


@pytest.mark.parametrize(
    ("variant", "published"), [("tiny", 60e6), ("small", 81e6), ("base", 121e6), ("large", 234e6)]
)
def test_parameters_equal_the_published_ones(variant: str, published: float) -> None:
    """Swin's paper, table 3: UperNet on ADE20K with the auxiliary head of the training."""
    with torch.device("meta"):
        net = UperNet(SwinTransformer(SWIN_VARIANTS[variant]), UperNetConfig())
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(published, rel=0.03)
