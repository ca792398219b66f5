"""Operations of a network against counts done by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dense_perception.nets.trace import trace
from dense_perception.nets.zoo import build
from test.support.flops import cost
from test.support.models import default_network


class Toy(nn.Module):
    """A convolution, a linear layer that sees a view of its weight, and attention's products."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.linear = nn.Linear(8, 16, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens_bnc = torch.relu(self.conv(x)).flatten(2).transpose(1, 2)
        queries_bnc = self.linear(tokens_bnc)
        return torch.softmax(queries_bnc @ queries_bnc.transpose(1, 2), -1)


def test_equals_a_count_by_hand() -> None:
    conv, linear, product, softmax = trace(Toy().to("meta"), 8, 16)
    pixels = 8 * 16
    assert conv.flops == 2 * pixels * 8 * 27
    assert conv.read == 3 * pixels + 8 * 27 + 8
    assert conv.written == 8 * pixels
    assert linear.flops == 2 * pixels * 8 * 16
    assert (linear.read, linear.written) == (8 * pixels + 8 * 16, 16 * pixels)
    assert product.flops == 2 * pixels**2 * 16
    assert softmax.flops == 0
    assert (softmax.read, softmax.written) == (pixels**2, pixels**2)
    assert [op.weights for op in (conv, linear, product, softmax)] == [True, True, False, False]


def test_agrees_with_the_other_count() -> None:
    network = build(default_network()).eval()
    total = cost(network, 192, 256).gflops
    operations = trace(network.to("meta"), 192, 256)
    assert sum(op.flops for op in operations) / 1e9 == pytest.approx(total, rel=1e-6)
