"""Random values for everything a fresh network leaves at zero or one."""

from __future__ import annotations

import torch
from torch import nn


def randomise(module: nn.Module, seed: int = 0, scale: float = 0.3) -> None:
    """Fill all parameters and batch-norm statistics, so that no branch is silent in a comparison.

    Weights are scaled by their fan-in, so activations stay of order one.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.named_parameters():
            noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            if value.ndim > 1 and "table" not in name:
                value.copy_(noise / value[0].numel() ** 0.5)
            elif name.endswith("weight"):  # the scale of a normalisation
                value.copy_(1 + scale * noise)
            else:
                value.copy_(scale * noise)
        for name, value in module.named_buffers():
            if name.endswith("running_mean"):
                value.copy_(scale * torch.randn(value.shape, generator=generator))
            elif name.endswith("running_var"):
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
