"""DPT against ``transformers``, its published sizes, and its own promises."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dense_perception.core.errors import CardError, InputError
from dense_perception.core.prediction import DepthKind
from dense_perception.nets import dpt, zoo
from dense_perception.nets.convolution import StandardizedConv2d
from test.support.transformers_dpt import WIDTHS, as_ours, reference, reference_depth

SMALL = {
    "height": 64,
    "width": 64,
    "dim": 48,
    "heads": 3,
    "mlp_ratio": 2.0,
    "features": 32,
    "taps": [0, 1, 2, 3],
    "channels": list(WIDTHS),
}
SMALL_HYBRID = {
    **SMALL,
    "taps": [2, 3],
    "stem_depths": [1, 2, 1],
    "channels": [256, 512, *WIDTHS[2:]],
}


def image(batch: int, height: int, width: int) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(3))


def small(variant: str = "base", **changes: object) -> dpt.DPT:
    options = SMALL_HYBRID if variant == "hybrid" else SMALL
    return zoo.build({"family": "dpt", "variant": variant, **options, **changes}).eval()


@pytest.mark.parametrize(
    ("variant", "readout"),
    [("base", "project"), ("base", "add"), ("base", "ignore"), ("hybrid", "project")],
)
@pytest.mark.parametrize("size_hw", [(64, 64), (96, 160)])
@torch.no_grad()
def test_equals_transformers(variant: str, readout: str, size_hw: tuple[int, int]) -> None:
    theirs = reference(64, variant == "hybrid", readout)
    ours = small(variant, readout=readout)
    ours.load_state_dict(as_ours(theirs))
    x = image(2, *size_hw)
    want = reference_depth(theirs, x)
    assert want.shape == (2, *size_hw)
    assert float(want.std()) > 0.003
    torch.testing.assert_close(ours(x)["depth"], want, rtol=0, atol=1e-5)
    double = ours.double()(x.double())["depth"]
    torch.testing.assert_close(
        double, reference_depth(theirs.double(), x.double()), rtol=0, atol=1e-10
    )


@torch.no_grad()
def test_reference_by_parts_is_the_reference() -> None:
    theirs, x = reference(64), image(1, 64, 64)
    torch.testing.assert_close(reference_depth(theirs, x), theirs(x).predicted_depth)


@pytest.mark.parametrize(
    ("variant", "published_m"), [("large", 344.06), ("hybrid", 123.15), ("base", 111.65)]
)
def test_parameter_counts(variant: str, published_m: float) -> None:
    with torch.device("meta"):
        network = zoo.build({"family": "dpt", "variant": variant})
    ours = sum(p.numel() for p in network.parameters())
    dim, features = network.config.dim, network.config.features
    # What the published modules hold besides and never use.
    unused_unit = 2 * (features * features * 9 + features)
    final_norm, classifier = 2 * dim, 1000 * dim + 1000
    assert (ours + unused_unit + final_norm + classifier) / 1e6 == pytest.approx(
        published_m, abs=0.005
    )


@torch.no_grad()
def test_metric_variants() -> None:
    relative = small()
    assert relative.depth_kind is DepthKind.RELATIVE_INVERSE
    metric = small(scale=3.05e-4, shift=0.1378)
    assert metric.depth_kind is DepthKind.METRIC
    metric.load_state_dict(relative.state_dict())
    x = image(1, 64, 64)
    want = 1 / (3.05e-4 * relative(x)["depth"] + 0.1378)
    torch.testing.assert_close(metric(x)["depth"], want)
    with pytest.raises(CardError, match="scale is 0"):
        small(shift=0.1)


@torch.no_grad()
def test_metric_depth_is_bounded_where_the_head_says_nothing() -> None:
    network = small(scale=1.0, shift=0.0)
    nn.init.constant_(network.head.conv3.weight, 0.0)
    nn.init.constant_(network.head.conv3.bias, -1.0)
    depth = network(image(1, 64, 64))["depth"]
    assert float(depth.max()) == pytest.approx(1e8, rel=1e-6)


@torch.no_grad()
def test_batch_does_not_mix() -> None:
    network, x = small("hybrid"), image(3, 64, 96)
    together = network(x)["depth"]
    for index in range(3):
        alone = network(x[index : index + 1])["depth"]
        torch.testing.assert_close(together[index : index + 1], alone, rtol=1e-5, atol=1e-5)


def test_wrong_size_says_what_to_do() -> None:
    with pytest.raises(InputError, match="72x64, expected multiples of 32: resize it to 64x64"):
        small()(image(1, 64, 72))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"taps": [3, 2, 1, 0]}, "increasing"),
        ({"taps": [1, 2]}, "expected 4 and 4 numbers"),
        ({"readout": "mean"}, "readout is 'mean'"),
        ({"stem_depths": [3, 4]}, "expected none or three"),
        ({"patch": 14}, "patch is 14"),
    ],
)
def test_wrong_configuration_is_named(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(CardError, match=complaint):
        small(**change)


@pytest.mark.parametrize("eps_outside", [False, True])
@torch.no_grad()
def test_standardised_convolution_folds(eps_outside: bool) -> None:
    torch.manual_seed(0)
    conv = StandardizedConv2d(4, 6, 3, 2, eps=1e-5, eps_outside=eps_outside).double()
    flat = conv.weight.reshape(6, -1)
    deviation = flat.std(1, correction=0, keepdim=True)
    scale = deviation + 1e-5 if eps_outside else (deviation**2 + 1e-5).sqrt()
    want = ((flat - flat.mean(1, keepdim=True)) / scale).reshape_as(conv.weight)
    torch.testing.assert_close(conv.standardized(), want)
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(conv.folded()(x), conv(x))
