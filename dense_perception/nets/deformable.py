"""Multi-scale deformable attention (Zhu 2020, arXiv:2010.04159) with sampling by gather.

GridSample is miscompiled by some inference compilers; rows picked by an index and weighted are not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from dense_perception.core.errors import InputError

Shapes = Sequence[tuple[int, int]]
"""Rows and columns of each level, in the order in which their tokens are concatenated."""


def token_centres(shapes: Shapes, like: Tensor) -> Tensor:
    """(N, 2): x and y of every token's centre in units of the image, 0 to 1."""
    return torch.tensor(_centres(tuple(shapes)), dtype=like.dtype, device=like.device)


@lru_cache(maxsize=16)
def _centres(shapes: tuple[tuple[int, int], ...]) -> np.ndarray:
    centres = []
    for rows, columns in shapes:
        y, x = np.mgrid[:rows, :columns]
        centres.append(np.stack([(x + 0.5) / columns, (y + 0.5) / rows], axis=-1).reshape(-1, 2))
    return np.concatenate(centres)


class MultiScaleDeformableAttention(nn.Module):
    """Each query mixes ``points`` samples per head and level around its reference point.

    :param ratio: width of the values relative to ``dim``.
    """

    def __init__(
        self, dim: int, heads: int, levels: int, points: int = 4, ratio: float = 1.0
    ) -> None:
        super().__init__()
        value_dim = int(dim * ratio)
        if value_dim < 1 or value_dim % heads:
            raise InputError(
                f"{heads} heads do not divide {value_dim} value channels: choose a divisor"
            )
        self.heads = heads
        self.levels = levels
        self.points = points
        self.sampling_offsets = nn.Linear(dim, heads * levels * points * 2)
        self.attention_weights = nn.Linear(dim, heads * levels * points)
        self.value_proj = nn.Linear(dim, value_dim)
        self.output_proj = nn.Linear(value_dim, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Appendix A.4: each head looks in its own direction, its points 1, 2, ... pixels away."""
        nn.init.zeros_(self.sampling_offsets.weight)
        angle_h = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction_h2 = torch.stack([angle_h.cos(), angle_h.sin()], dim=-1)
        direction_h2 = direction_h2 / direction_h2.abs().amax(dim=-1, keepdim=True)
        distance_p = torch.arange(1, self.points + 1)
        offsets_hp2 = direction_h2[:, None] * distance_p[:, None]
        offsets_hlp2 = offsets_hp2[:, None].expand(-1, self.levels, -1, -1)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets_hlp2.reshape(-1))
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self, query_bqc: Tensor, reference_q2: Tensor, input_bnc: Tensor, shapes: Shapes
    ) -> Tensor:
        """Attend from ``query_bqc`` to the levels in ``input_bnc``; (B, Q, C).

        :param reference_q2: (Q, 2) x and y of each query in units of the image, 0 to 1.
        :param shapes: of the levels whose tokens ``input_bnc`` concatenates.
        """
        queries = query_bqc.shape[1]
        tokens = input_bnc.shape[1]
        value_bnhd = self.value_proj(input_bnc).reshape(
            -1, tokens, self.heads, self.value_proj.out_features // self.heads
        )
        layout = (-1, queries, self.heads, self.levels, self.points)
        offsets = self.sampling_offsets(query_bqc).reshape(*layout, 2)
        weights = torch.softmax(
            self.attention_weights(query_bqc).reshape(
                -1, queries, self.heads, self.levels * self.points
            ),
            dim=-1,
        ).reshape(layout)
        # A position of 64 pixels has five fractional bits in half precision: too few to sample.
        wide = torch.promote_types(offsets.dtype, torch.float32)
        sizes_l2 = torch.tensor([(w, h) for h, w in shapes], dtype=wide, device=offsets.device)
        reference = reference_q2.to(wide)[:, None, None, None]
        locations = reference + offsets.to(wide) / sizes_l2[:, None]
        return self.output_proj(deformable_attention(value_bnhd, shapes, locations, weights))


def deformable_attention(
    value_bnhd: Tensor, shapes: Shapes, locations_bqhlp2: Tensor, weights_bqhlp: Tensor
) -> Tensor:
    """The sum over levels and points of weight times value at the location: (B, Q, heads * d).

    :param value_bnhd: (B, N, heads, d), N the sum of rows * columns over ``shapes``.
    :param locations_bqhlp2: x and y in units of the image, 0 to 1; pixel centres lie at
        (i + 0.5) / size and what lies outside is zero.
    :raises InputError: if the tokens are not those of ``shapes``.
    """
    tokens, heads, d = value_bnhd.shape[1:]
    queries, points = weights_bqhlp.shape[1], weights_bqhlp.shape[-1]
    if tokens != sum(height * width for height, width in shapes):
        raise InputError(f"got {tokens} tokens for levels of shapes {list(shapes)}")
    if not shapes:
        raise InputError("got no levels, expected one or more")
    batch = value_bnhd.shape[0]
    rows_bhn_d = value_bnhd.permute(0, 2, 1, 3).reshape(-1, d)
    first_bh111 = (torch.arange(batch * heads, device=value_bnhd.device) * tokens).reshape(
        -1, heads, 1, 1, 1
    )
    sizes = [(height, width, height * width) for height, width in shapes]
    # All levels at once, and tables without broadcasting: few operators on long rows of numbers.
    height_lp, width_lp, length_lp = (
        torch.tensor(values, device=value_bnhd.device).unsqueeze(1).repeat(1, points)
        for values in zip(*sizes, strict=True)
    )
    locations = locations_bqhlp2.permute(0, 2, 1, 3, 4, 5)
    x, right = _neighbours(locations[..., 0], width_lp)
    y, below = _neighbours(locations[..., 1], height_lp)
    # Four corners of each point: (B, heads, Q, levels, points * 4).
    share = torch.cat([wy * wx for wy in below for wx in right], dim=-1)
    index = torch.cat([row * width_lp + column for row in y for column in x], dim=-1)
    start_lp = length_lp.cumsum(0) - length_lp
    index = index + torch.cat([start_lp] * 4, dim=-1) + first_bh111
    weights = weights_bqhlp.permute(0, 2, 1, 3, 4)
    share = share.to(weights.dtype) * torch.cat([weights] * 4, dim=-1)
    parts = []
    for level in range(len(shapes)):
        # The values of one level at a time: those of all are gigabytes in a large image.
        picked = rows_bhn_d.index_select(0, index[:, :, :, level].reshape(-1)).reshape(
            -1, 4 * points, d
        )
        parts.append(torch.bmm(share[:, :, :, level].reshape(-1, 1, 4 * points), picked))
    mixed = sum(parts[1:], start=parts[0])
    return mixed.reshape(-1, heads, queries, d).permute(0, 2, 1, 3).reshape(-1, queries, heads * d)


def _neighbours(places: Tensor, size_lp: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The two pixels around each place (..., L, P), 0 to 1, clamped to the level's size, and their
    shares, zero if outside.
    """
    wide_lp = size_lp.to(places.dtype)
    position = places * wide_lp - 0.5
    low = torch.floor(position)
    upper = position - low
    indices, shares = [], []
    for pixel, share in ((low, 1 - upper), (low + 1, upper)):
        clamped = torch.minimum(pixel.clamp(min=0), wide_lp - 1)
        indices.append(clamped.to(torch.int64))
        shares.append(share * (pixel == clamped).to(share.dtype))
    return tuple(indices), tuple(shares)
