"""Costs against counts done by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dense_perception.nets import zoo
from dense_perception.nets.flops import cost, summary


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 5, stride=2, padding=2, groups=8)
        self.linear = nn.Linear(8, 16)

    def forward(self, x: Tensor) -> Tensor:
        tokens_bnc = self.depthwise(self.conv(x)).flatten(2).transpose(1, 2)
        queries_bnc = self.linear(tokens_bnc)
        return queries_bnc @ queries_bnc.transpose(1, 2)


def test_equals_a_count_by_hand() -> None:
    parts = {part.name: part for part in cost(Toy(), 16, 32)}
    macs = {
        "conv": 16 * 32 * 8 * 3 * 9,
        "depthwise": 8 * 16 * 8 * 25,
        "linear": 8 * 16 * 8 * 16,
    }
    for name, count in macs.items():
        assert parts[name].gflops == pytest.approx(2 * count / 1e9)
    product = (8 * 16) ** 2 * 16
    assert parts["total"].gflops == pytest.approx(2 * (sum(macs.values()) + product) / 1e9)
    assert parts["conv"].parameters == 8 * 3 * 9 + 8
    assert parts["total"].megabytes_fp32 == pytest.approx(4e-6 * (224 + 208 + 144))


def test_default_network_is_within_its_budget() -> None:
    total = cost(zoo.build(zoo.default_network("dpt_tiny_indoor")), 192, 256)[-1]
    assert total.name == "total"
    assert total.gflops <= 2
    assert total.megabytes_fp32 <= 20


def test_large_networks_cost_no_memory() -> None:
    with torch.device("meta"):
        network = zoo.build({"family": "dpt", "variant": "large"})
    text = summary(network, 384, 384)
    assert "transformer" in text
    assert text.splitlines()[-1].startswith("total")
