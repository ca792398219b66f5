"""What both decoders of Mask2Former use: sine positions and the feed-forward block."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

TEMPERATURE = 10_000.0


def sine_positions(size_hw: tuple[int, int], dim: int, like: Tensor) -> Tensor:
    """The fixed position embedding of a grid, (rows * columns, dim), in ``like``'s dtype.

    Half of the channels encode y, half x, each as the sines and cosines of Vaswani 2017 of a
    position that runs from 0 to 2 pi over the grid (Carion 2020, arXiv:2005.12872, appendix A.4).
    """
    return torch.tensor(_sine_table(*size_hw, dim), dtype=like.dtype, device=like.device)


@lru_cache(maxsize=32)
def _sine_table(rows: int, columns: int, dim: int) -> np.ndarray:
    each = dim // 2
    period = TEMPERATURE ** (2 * (np.arange(each) // 2) / each)
    axes = []
    for count in (rows, columns):
        position = np.arange(1, count + 1) / (count + 1e-6) * 2 * math.pi
        angle = position[:, None] / period
        axes.append(np.where(np.arange(each) % 2, np.cos(angle), np.sin(angle)))
    y_hwc = np.broadcast_to(axes[0][:, None], (rows, columns, each))
    x_hwc = np.broadcast_to(axes[1][None], (rows, columns, each))
    return np.concatenate([y_hwc, x_hwc], axis=-1).reshape(rows * columns, 2 * each)


class FeedForward(nn.Module):
    """norm(x + fc2(relu(fc1(x)))) of tokens (B, N, C)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens_bnc: Tensor) -> Tensor:
        return self.norm(tokens_bnc + self.fc2(torch.relu(self.fc1(tokens_bnc))))
