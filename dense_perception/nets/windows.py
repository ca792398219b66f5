"""Windows of a token grid: cutting, shifting, masking and biasing (Liu 2021, arXiv:2103.14030).

Everything that depends only on the grid's size is computed from Python integers, so an exported
graph of a fixed size carries it as constants.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

MASKED = -100.0
"""What Swin adds to the logits of token pairs that a cyclic shift has brought together."""


class WindowLayout:
    """How a grid of ``grid_hw`` tokens is padded, shifted and cut into ``window`` x ``window``.

    Padding goes to the right and the bottom; ``shift`` tokens are rolled to the top left first.
    """

    def __init__(self, grid_hw: tuple[int, int], window: int, shift: int = 0) -> None:
        self.grid_hw = grid_hw
        self.window = window
        self.shift = shift
        height, width = grid_hw
        self.padded_hw = (-(-height // window) * window, -(-width // window) * window)
        self.count = (self.padded_hw[0] // window) * (self.padded_hw[1] // window)

    def cut(self, grid_bhwc: Tensor) -> Tensor:
        """(B, H, W, C) to (B * count, window * window, C), windows in row-major order."""
        (height, width), (rows, columns) = self.grid_hw, self.padded_hw
        if (rows, columns) != (height, width):
            grid_bhwc = F.pad(grid_bhwc, (0, 0, 0, columns - width, 0, rows - height))
        if self.shift:
            grid_bhwc = torch.roll(grid_bhwc, (-self.shift, -self.shift), (1, 2))
        size, channels = self.window, grid_bhwc.shape[-1]
        cut = grid_bhwc.reshape(-1, rows // size, size, columns // size, size, channels)
        return cut.permute(0, 1, 3, 2, 4, 5).reshape(-1, size * size, channels)

    def join(self, windows_wnc: Tensor) -> Tensor:
        """The inverse of :meth:`cut`: (B, H, W, C) without the padding."""
        (height, width), (rows, columns) = self.grid_hw, self.padded_hw
        size, channels = self.window, windows_wnc.shape[-1]
        cut = windows_wnc.reshape(-1, rows // size, columns // size, size, size, channels)
        grid_bhwc = cut.permute(0, 1, 3, 2, 4, 5).reshape(-1, rows, columns, channels)
        if self.shift:
            grid_bhwc = torch.roll(grid_bhwc, (self.shift, self.shift), (1, 2))
        return grid_bhwc[:, :height, :width] if (rows, columns) != (height, width) else grid_bhwc

    def add_mask(self, logits_whnn: Tensor) -> Tensor:
        """Add :data:`MASKED` where a window's tokens were not neighbours before the shift.

        :param logits_whnn: (B * count, heads, N, N), N = window * window.
        """
        if not self.shift:
            return logits_whnn
        mask = torch.tensor(
            _shift_mask(self.padded_hw, self.window, self.shift),
            dtype=logits_whnn.dtype,
            device=logits_whnn.device,
        )
        heads, tokens = logits_whnn.shape[1:3]
        split = logits_whnn.reshape(-1, self.count, heads, tokens, tokens)
        return (split + mask[None, :, None]).reshape(-1, heads, tokens, tokens)


class RelativePositionBias(nn.Module):
    """One learned logit per head and relative offset: (heads, N, N) for N = window * window.

    ``table`` is ((2 * window - 1) ** 2, heads), row-major over the offsets of rows and columns.
    """

    def __init__(self, window: int, heads: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.table, std=0.02)
        index = torch.tensor(_relative_index(window).reshape(-1), device="cpu")
        self.register_buffer("index", index, persistent=False)
        self.tokens = window * window

    def forward(self) -> Tensor:
        flat = self.table.index_select(0, self.index)  # type: ignore[arg-type]
        return flat.reshape(self.tokens, self.tokens, -1).permute(2, 0, 1)


@lru_cache(maxsize=16)
def _relative_index(window: int) -> np.ndarray:
    """(N, N) int64: the table's row for each pair (query, key) of a window's tokens."""
    rows, columns = np.divmod(np.arange(window * window), window)
    down = rows[:, None] - rows[None, :] + window - 1
    right = columns[:, None] - columns[None, :] + window - 1
    return down * (2 * window - 1) + right


@lru_cache(maxsize=64)
def _shift_mask(padded_hw: tuple[int, int], window: int, shift: int) -> np.ndarray:
    """(count, N, N) float64: 0 for pairs of one region of the shifted grid, MASKED for others."""

    def region(length: int) -> np.ndarray:
        position = np.arange(length)
        return (position >= length - window).astype(int) + (position >= length - shift)

    rows, columns = padded_hw
    regions = region(rows)[:, None] * 3 + region(columns)[None, :]
    cut = regions.reshape(rows // window, window, columns // window, window)
    flat = cut.transpose(0, 2, 1, 3).reshape(-1, window * window)
    return np.where(flat[:, :, None] == flat[:, None, :], 0.0, MASKED)
