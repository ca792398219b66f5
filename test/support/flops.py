"""What a network costs, by PyTorch's own counter."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """``gflops`` is 2 x multiply-accumulates / 1e9 of convolutions and matrix products for one
    frame; element-wise work is not counted.
    """

    parameters: int
    gflops: float


def cost(network: nn.Module, height: int, width: int) -> Cost:
    """The cost of one ``height`` x ``width`` frame, on the meta device: nothing is computed."""
    # Views of parameters that want a gradient confuse the counter.
    ghost = copy.deepcopy(network).to("meta").eval().requires_grad_(False)
    inputs = [torch.empty(1, 3, height, width, device="meta")]
    if getattr(network, "needs_focal", False):
        inputs.append(torch.empty(1, device="meta"))
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        ghost(*inputs)
    return Cost(sum(p.numel() for p in ghost.parameters()), counter.get_total_flops() / 1e9)
