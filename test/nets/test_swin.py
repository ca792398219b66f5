"""Swin against ``transformers`` with random weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dense_perception.core.errors import InputError
from dense_perception.nets.swin import SWIN_VARIANTS, SwinConfig, SwinTransformer
from dense_perception.nets.windows import RelativePositionBias, WindowLayout
from test.support.randomise import randomise
from test.support.theirs import rename_swin

TINY = SwinConfig(dim=12, depths=(2, 2, 2, 2), heads=(1, 2, 3, 4), window=3)


def their_config(config: SwinConfig, **changes: object) -> object:
    from transformers import SwinConfig as TheirConfig

    return TheirConfig(
        embed_dim=config.dim,
        depths=list(config.depths),
        num_heads=list(config.heads),
        window_size=config.window,
        **changes,
    )


def copied(theirs: nn.Module, config: SwinConfig) -> SwinTransformer:
    ours = SwinTransformer(config).double().eval()
    ours.load_state_dict(rename_swin(theirs.state_dict(), config.depths))
    return ours


@pytest.mark.parametrize("size_hw", [(96, 96), (64, 160), (52, 93), (37, 50)])
def test_the_four_maps_equal_the_independent_backbone(size_hw: tuple[int, int]) -> None:
    """Non-square and odd sizes too: windows, merging and patches are all padded there."""
    from transformers import SwinBackbone

    theirs = SwinBackbone(
        their_config(TINY, out_features=["stage1", "stage2", "stage3", "stage4"])
    ).eval()
    theirs = theirs.double()
    randomise(theirs)
    image = torch.randn(2, 3, *size_hw, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(image).feature_maps
        got = copied(theirs, TINY)(image)
    assert [tuple(m.shape) for m in got] == [tuple(m.shape) for m in expected]
    for ours, other in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, other, atol=1e-10, rtol=0)


def test_the_last_map_equals_the_independent_model() -> None:
    from transformers import SwinModel

    # With a window smaller than every grid both pad the grid rather than shrink the window.
    config = SwinConfig(dim=12, depths=(2, 2, 2, 2), heads=(1, 2, 3, 4), window=2)
    theirs = SwinModel(their_config(config), add_pooling_layer=False).eval().double()
    randomise(theirs)
    ours = SwinTransformer(config).double().eval()
    state = rename_swin(theirs.state_dict(), config.depths)
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert not unexpected
    assert {name.split(".")[0] for name in missing} == {"norms"}  # the model has only the last
    image = torch.randn(1, 3, 96, 160, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(image).last_hidden_state
        got = ours(image)[-1].flatten(2).transpose(1, 2)
    torch.testing.assert_close(got, expected, atol=1e-10, rtol=0)


def test_single_precision_stays_within_the_issue_tolerance() -> None:
    from transformers import SwinBackbone

    theirs = SwinBackbone(their_config(TINY, out_features=["stage4"])).eval()
    randomise(theirs)
    ours = SwinTransformer(TINY).eval()
    ours.load_state_dict(rename_swin(theirs.state_dict(), TINY.depths), strict=False)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(
            ours(image)[-1], theirs(image).feature_maps[-1], atol=1e-5, rtol=0
        )


def test_cut_and_join_are_inverse_for_padded_and_shifted_grids() -> None:
    grid = torch.randn(2, 5, 8, 3)
    for shift in (0, 1):
        layout = WindowLayout((5, 8), 3, shift)
        windows = layout.cut(grid)
        assert windows.shape == (2 * 6, 9, 3)
        torch.testing.assert_close(layout.join(windows), grid, atol=0, rtol=0)


def test_the_mask_separates_tokens_the_shift_brought_together() -> None:
    """Naively: two tokens of a window may attend if they are a window's neighbours in the image."""
    height, width, window, shift = 6, 9, 3, 1
    layout = WindowLayout((height, width), window, shift)
    where = torch.arange(height * width, dtype=torch.float64).reshape(1, height, width, 1)
    masked = layout.add_mask(torch.zeros(layout.count, 1, 9, 9, dtype=torch.float64))
    windows = layout.cut(where).squeeze(-1).long()
    for index in range(layout.count):
        for q in range(9):
            for k in range(9):
                (qy, qx), (ky, kx) = (divmod(int(windows[index, t]), width) for t in (q, k))
                near = abs(qy - ky) < window and abs(qx - kx) < window
                assert (float(masked[index, 0, q, k]) == 0) == near


def test_relative_bias_depends_on_the_offset_alone() -> None:
    bias = RelativePositionBias(3, 2)
    with torch.no_grad():
        bias.table.copy_(torch.arange(50.0).reshape(25, 2))
    table = bias()
    for q in range(9):
        for k in range(9):
            down, right = q // 3 - k // 3 + 2, q % 3 - k % 3 + 2
            assert table[:, q, k].tolist() == [
                2.0 * (down * 5 + right),
                2.0 * (down * 5 + right) + 1,
            ]


@pytest.mark.parametrize(
    ("variant", "published"), [("tiny", 29e6), ("small", 50e6), ("base", 88e6), ("large", 197e6)]
)
def test_parameters_equal_the_published_ones(variant: str, published: float) -> None:
    """Table 1 of the paper counts the ImageNet classifier, which a backbone does not have."""
    with torch.device("meta"):
        swin = SwinTransformer(SWIN_VARIANTS[variant])
    extra_norms = 2 * sum(swin.channels[:-1])
    classifier = 1001 * swin.channels[-1] - swin.channels[-1] + 1000
    count = sum(p.numel() for p in swin.parameters()) - extra_norms + classifier
    assert count == pytest.approx(published, rel=0.03)


def test_the_large_encoder_has_the_counted_size() -> None:
    with torch.device("meta"):
        swin = SwinTransformer(SWIN_VARIANTS["large"])
    assert sum(p.numel() for p in swin.parameters()) == pytest.approx(195.0e6, rel=0.005)


def test_drop_path_acts_in_training_alone() -> None:
    config = SwinConfig(dim=12, depths=(2, 2, 2, 2), heads=(1, 2, 3, 4), window=3, drop_path=0.9)
    swin = SwinTransformer(config)
    randomise(swin)
    image = torch.randn(4, 3, 32, 32)

    def last() -> Tensor:
        with torch.no_grad():
            return swin(image)[-1]

    torch.manual_seed(0)
    swin.train()
    assert not torch.equal(last(), last())
    swin.eval()
    assert torch.equal(last(), last())


@pytest.mark.parametrize(
    "changes", [{"heads": (5, 2, 3, 4)}, {"window": 1}, {"depths": (0, 1, 1, 1)}]
)
def test_impossible_sizes_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"expected|divisor"):
        SwinConfig(**{"dim": 12, "heads": (1, 2, 3, 4), **changes})
