"""What BEiT has instead of a position table (Bao 2021, arXiv:2106.08254), and its checkpoints.

Each block adds one learned logit per head and relative offset of two patches to the attention, and
one each for class token to patch, patch to class token, and class token to itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

_CLASS_TOKEN_ROWS = 3


class GridPositionBias(nn.Module):
    """(heads, 1 + N, 1 + N) logits for N patches of a grid and the class token before them.

    ``table`` is ((2 rows - 1) * (2 columns - 1) + 3, heads), row-major over the offsets; for a grid
    other than ``grid_hw`` the offsets are resized bilinearly, as MiDaS 3.1 does it.
    """

    def __init__(self, grid_hw: tuple[int, int], heads: int) -> None:
        super().__init__()
        self.grid_hw = grid_hw
        rows, columns = _offsets(grid_hw)
        self.table = nn.Parameter(torch.zeros(rows * columns + _CLASS_TOKEN_ROWS, heads))

    def forward(self, grid_hw: tuple[int, int]) -> Tensor:
        table = resize_table(self.table, self.grid_hw, grid_hw)
        index = torch.tensor(_index(grid_hw), device=table.device)
        tokens = 1 + grid_hw[0] * grid_hw[1]
        flat = table.index_select(0, index.reshape(-1))
        return flat.reshape(tokens, tokens, -1).permute(2, 0, 1)

    def fix(self, grid_hw: tuple[int, int]) -> None:
        """Store the table for ``grid_hw``."""
        self.table = nn.Parameter(resize_table(self.table, self.grid_hw, grid_hw).clone())
        self.grid_hw = grid_hw


def resize_table(table: Tensor, old_hw: tuple[int, int], new_hw: tuple[int, int]) -> Tensor:
    """The table of :class:`GridPositionBias` for another grid; the class token's rows are kept."""
    if old_hw == new_hw:
        return table
    grid_1chw = table[:-_CLASS_TOKEN_ROWS].T.reshape(1, -1, *_offsets(old_hw))
    resized = F.interpolate(grid_1chw, size=_offsets(new_hw), mode="bilinear", align_corners=False)
    return torch.cat([resized[0].flatten(1).T, table[-_CLASS_TOKEN_ROWS:]])


def square_grid(table: Tensor) -> tuple[int, int] | None:
    """The grid of a published table, which is square; None if its length fits none."""
    side = math.isqrt(max(table.shape[0] - _CLASS_TOKEN_ROWS, 0))
    if side % 2 == 0 or side * side != table.shape[0] - _CLASS_TOKEN_ROWS:
        return None
    return ((side + 1) // 2, (side + 1) // 2)


def unfolded(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """BEiT's own checkpoint with what a plain transformer's has.

    Queries and values have a bias and keys have none: theirs is zero. A table shared by all blocks
    becomes each block's.
    """
    plain = dict(theirs)
    for key in theirs:
        if key.endswith("attn.q_bias") and key.replace(".q_bias", ".v_bias") in theirs:
            query, value = plain.pop(key), plain.pop(key.replace(".q_bias", ".v_bias"))
            three = [query, torch.zeros_like(query), value]
            plain[key.replace(".q_bias", ".qkv.bias")] = torch.cat(three)
    shared = plain.pop("rel_pos_bias.relative_position_bias_table", None)
    if shared is not None:
        blocks = {match[1] for key in theirs if (match := re.match(r"blocks\.(\d+)\.", key))}
        for block in blocks:
            plain[f"blocks.{block}.attn.relative_position_bias_table"] = shared
    return plain


def _offsets(grid_hw: tuple[int, int]) -> tuple[int, int]:
    return 2 * grid_hw[0] - 1, 2 * grid_hw[1] - 1


@lru_cache(maxsize=8)
def _index(grid_hw: tuple[int, int]) -> np.ndarray:
    """(1 + N, 1 + N) int64: the table's row for each pair (query, key)."""
    rows, columns = grid_hw
    y, x = np.divmod(np.arange(rows * columns), columns)
    down = y[:, None] - y[None, :] + rows - 1
    right = x[:, None] - x[None, :] + columns - 1
    last = (2 * rows - 1) * (2 * columns - 1)
    index = np.empty((1 + rows * columns,) * 2, np.int64)
    index[1:, 1:] = down * (2 * columns - 1) + right
    index[0, :] = last
    index[:, 0] = last + 1
    index[0, 0] = last + 2
    return index
