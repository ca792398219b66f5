"""What a network costs: parameters and floating-point operations per frame, part by part."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class PartCost:
    """One direct child of the network, or the whole (``name`` is ``total``).

    ``gflops`` is 2 x multiply-accumulates / 1e9 of convolutions and matrix products for one frame;
    element-wise work is not counted.
    """

    name: str
    parameters: int
    gflops: float

    @property
    def megabytes_fp32(self) -> float:
        """Size of the weights in fp32, 1e6 bytes."""
        return 4 * self.parameters / 1e6


def cost(network: nn.Module, height: int, width: int) -> list[PartCost]:
    """The cost of one ``height`` x ``width`` frame: each part, then the total.

    Runs on the meta device: nothing is computed and a network of any size is fine.

    :raises InputError: if the network cannot take that size.
    """
    ghost = copy.deepcopy(network).to("meta").eval()
    image_nchw = torch.empty(1, 3, height, width, device="meta")
    inputs = [image_nchw]
    if getattr(network, "needs_focal", False):
        inputs.append(torch.empty(1, device="meta"))
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        ghost(*inputs)
    by_module = counter.get_flop_counts()
    root = type(ghost).__name__
    parts = [
        PartCost(
            name,
            sum(p.numel() for p in child.parameters()),
            sum(by_module.get(f"{root}.{name}", {}).values()) / 1e9,
        )
        for name, child in ghost.named_children()
    ]
    total = sum(p.numel() for p in ghost.parameters())
    return [*parts, PartCost("total", total, counter.get_total_flops() / 1e9)]


def summary(network: nn.Module, height: int, width: int) -> str:
    """:func:`cost` as a small table."""
    lines = [f"{'part':<16} {'parameters':>12} {'MB fp32':>8} {'GFLOP':>8}"]
    lines += [
        f"{part.name:<16} {part.parameters:>12,} {part.megabytes_fp32:>8.2f} {part.gflops:>8.3f}"
        for part in cost(network, height, width)
    ]
    return "\n".join(lines)
