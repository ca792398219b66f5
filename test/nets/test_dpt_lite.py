"""The small default network: contract, budget, pretrained stem."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dense_perception.core.errors import CardError, InputError
from dense_perception.nets import zoo
from dense_perception.nets.dpt_lite import DPTLite
from dense_perception.nets.efficientnet_lite import (
    EfficientNetLite0,
    load_pretrained,
    pretrained_path,
)
from test.support.flops import cost
from test.support.models import default_network


@pytest.fixture(scope="module")
def network() -> DPTLite:
    torch.manual_seed(0)
    module = zoo.build(default_network()).eval()
    # Large weights in the last layer, so that depth varies and reaches every term.
    torch.nn.init.normal_(module.head_conv3.weight, std=0.5)
    return module


def image(batch: int = 1, height: int = 192, width: int = 256) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_stem_equals_reference_with_pretrained_weights() -> None:
    from efficientnet_lite_pytorch import EfficientNet

    reference = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=str(pretrained_path())
    ).eval()
    stem = EfficientNetLite0().eval()
    digest = load_pretrained(stem)
    assert len(digest) == 64
    wanted = []
    x = torch.relu(reference._bn0(reference._conv_stem(image(2)))).clamp(max=6)
    for index, block in enumerate(reference._blocks):
        x = block(x)
        if index in (2, 4, 10, 15):
            wanted.append(x)
    maps = stem(image(2))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (24, 48, 64),
        (40, 24, 32),
        (112, 12, 16),
        (320, 6, 8),
    ]
    for got, want in zip(maps, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


@torch.no_grad()
def test_depth_is_canonical_depth_times_focal_over_width(network: DPTLite) -> None:
    focal_px = torch.tensor([128.0, 256.0, 384.0])
    x = image(1).expand(3, -1, -1, -1)
    depth = network(x, focal_px)["depth"]
    assert depth.shape == (3, 192, 256)
    assert depth.dtype == torch.float32
    log_canonical = network.canonical(x)
    assert float(log_canonical.std()) > 0.01
    want = (log_canonical.exp() * (focal_px / 256)[:, None, None]).clamp(0.1, 20.0)
    torch.testing.assert_close(depth, want)


@torch.no_grad()
def test_output_stays_within_its_range(network: DPTLite) -> None:
    depth = network(image() * 100, torch.tensor([1e6]))["depth"]
    assert float(depth.max()) == 20.0
    depth = network(image() * 100, torch.tensor([1e-6]))["depth"]
    assert float(depth.max()) == pytest.approx(0.1)
    low, high = math.log(0.1), math.log(40.0)
    canonical = network.canonical(image() * 100)
    assert low <= float(canonical.min()) <= float(canonical.max()) <= high


@torch.no_grad()
def test_batch_does_not_mix(network: DPTLite) -> None:
    x, focal_px = image(3), torch.tensor([200.0, 250.0, 300.0])
    together = network(x, focal_px)["depth"]
    for index in range(3):
        one = slice(index, index + 1)
        alone = network(x[one], focal_px[one])["depth"]
        torch.testing.assert_close(together[one], alone, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_other_sizes(network: DPTLite) -> None:
    assert network(image(1, 128, 160), torch.tensor([100.0]))["depth"].shape == (1, 128, 160)
    with pytest.raises(InputError, match="250x192, expected multiples of 32: resize it to 256x192"):
        network(image(1, 192, 250), torch.tensor([100.0]))


def test_every_parameter_learns(network: DPTLite) -> None:
    module = zoo.build(default_network()).train()
    torch.manual_seed(0)
    loss = module.canonical(image(2)).square().mean()
    loss.backward()
    dead = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


def test_pretrained_stem_changes_only_the_stem() -> None:
    torch.manual_seed(0)
    module = zoo.build(default_network())
    before = {key: value.clone() for key, value in module.state_dict().items()}
    zoo.load_pretrained_stem(module)
    after = module.state_dict()
    changed = {k.split(".")[0] for k in before if not torch.equal(before[k], after[k])}
    assert changed == {"stem"}
    with pytest.raises(CardError, match="no stem"):
        zoo.load_pretrained_stem(torch.nn.Linear(1, 1))


def test_the_shipped_network_is_within_its_budget() -> None:
    total = cost(zoo.build(default_network()), 192, 256)
    assert total.gflops <= 2
    assert 4 * total.parameters <= 20e6, "bytes of the weights in fp32"
