"""Depth Anything V2 and DPT's segmentation head against ``transformers``, through its files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from dense_perception.core.errors import CardError, InputError
from dense_perception.core.prediction import DepthKind
from dense_perception.nets import zoo
from dense_perception.nets.positions import resize_positions
from dense_perception.nets.weights import load_weights
from test.support.transformers_zoo import (
    DEPTH_ANYTHING,
    DPT_SEGMENTATION,
    depth_anything,
    dpt_segmentation,
    image,
    save,
)


@pytest.mark.parametrize("max_depth_m", [0.0, 20.0])
@torch.no_grad()
def test_depth_anything_equals_transformers(max_depth_m: float, tmp_path: Path) -> None:
    theirs = depth_anything(max_depth_m)
    network = {**DEPTH_ANYTHING, "max_depth_m": max_depth_m, "position_resize": "bicubic"}
    ours = zoo.build(network).eval()
    report = load_weights(ours, save(theirs, tmp_path))
    assert report.layout == "Hugging Face"
    assert report.loaded == len(ours.state_dict())
    assert not report.resized
    for height, width in ((56, 56), (42, 98)):  # the second has an odd grid: explicit sizes
        x = image(2, height, width)
        want = theirs(x).predicted_depth
        assert float(want.std()) > 0.01
        got = ours(x)["depth"]
        assert got.shape == (2, height, width)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-5 * max(1.0, max_depth_m))
    # Double precision at the stored grid: the reference resizes positions in single precision.
    x = image(2, 56, 56).double()
    want = theirs.double()(x).predicted_depth
    torch.testing.assert_close(ours.double()(x)["depth"], want, rtol=0, atol=1e-10)
    if max_depth_m:
        assert ours.depth_kind is DepthKind.METRIC
        assert 0 < float(want.min()) < float(want.max()) < 20
    else:
        assert ours.depth_kind is DepthKind.RELATIVE_INVERSE


@torch.no_grad()
def test_dpt_segmentation_equals_transformers(tmp_path: Path) -> None:
    theirs = dpt_segmentation()
    ours = zoo.build(DPT_SEGMENTATION).eval()
    report = load_weights(ours, save(theirs, tmp_path))
    assert any(key.startswith("auxiliary_head") for key in report.ignored)
    x = image(2, 64, 64)
    logits = ours(x)["logits"]
    assert logits.shape == (2, 5, 64, 64)
    # Our head doubles with aligned corners, as the published code; the reference does, too.
    torch.testing.assert_close(logits, theirs(x).logits, rtol=0, atol=1e-5)
    x = x.double()
    want = theirs.double()(x).logits
    torch.testing.assert_close(ours.double()(x)["logits"], want, rtol=0, atol=1e-10)


def test_dinov2_positions_use_the_offset_factor() -> None:
    table = torch.randn(1, 1 + 16, 8)
    grid = table[:, 1:].reshape(1, 4, 4, 8).permute(0, 3, 1, 2)
    # As DINOv2 published it: factors of (3 + 0.1) / 4 and (7 + 0.1) / 4, not 3 / 4 and 7 / 4.
    want = F.interpolate(grid, scale_factor=(3.1 / 4, 7.1 / 4), mode="bicubic")
    got = resize_positions(table, (4, 4), (3, 7), 1, "bicubic_offset")
    assert torch.equal(got[:, 0], table[:, 0])
    torch.testing.assert_close(got[:, 1:], want.flatten(2).transpose(1, 2))
    plain = resize_positions(table, (4, 4), (3, 7), 1, "bicubic")
    assert float((plain - got).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("variant", "published_m"), [("v2_small", 24.8), ("v2_base", 97.5), ("v2_large", 335.3)]
)
def test_parameters_are_the_published_ones(variant: str, published_m: float) -> None:
    with torch.device("meta"):
        module = zoo.build({"family": "depth_anything", "variant": variant})
    # Published with DINOv2's mask token and the deepest fusion's unused unit.
    features = module.config.features
    unused = module.config.dim + 2 * (9 * features + 1) * features
    count = sum(p.numel() for p in module.parameters()) + unused
    assert count == pytest.approx(published_m * 1e6, rel=0.005)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"height": 100}, "height is 100, expected a multiple of 14"),
        ({"max_depth_m": -1.0}, "max_depth_m is -1.0"),
        ({"taps": [0, 1, 2]}, "expected 4 each"),
        ({"position_resize": "nearest"}, "position resize is 'nearest'"),
    ],
)
def test_wrong_configuration_is_named(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(CardError, match=complaint):
        zoo.build({**DEPTH_ANYTHING, **change})


def test_wrong_size_is_named() -> None:
    with pytest.raises(InputError, match="60x56, expected multiples of the patch"):
        zoo.build(DEPTH_ANYTHING)(image(1, 56, 60))


def test_segmentation_excludes_metric_scale() -> None:
    with pytest.raises(CardError, match=r"classes is 5 and scale 0\.1"):
        zoo.build({**DPT_SEGMENTATION, "scale": 0.1})
