"""RoIAlign (He 2017, arXiv:1703.06870, section 3) by gather, over all levels of a pyramid at once.

Each bin of a region averages ``ratio`` x ``ratio`` samples, bilinear between pixel centres at
(i + 0.5) * stride. The published detectors let the number of samples grow with the region: as many
as a bin has pixels, rounded up. A graph has a fixed number; 2 is what a region has that is not much
larger than its level is for (14 to 28 pixels of the level for 7 bins).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dense_perception.core.errors import InputError

CANONICAL = 56.0
"""Regions of up to twice this side in pixels are cut from the finest level."""


def level_of(boxes_4: Tensor, levels: int, canonical: float = CANONICAL) -> Tensor:
    """The level for each box (Lin 2017, arXiv:1612.03144, equation 1): int64, 0 is the finest."""
    sides = (boxes_4[..., 2:] - boxes_4[..., :2]).clamp(min=0)
    side = torch.sqrt(sides[..., 0] * sides[..., 1])
    level = torch.floor(torch.log2(side / canonical + 1e-6))
    return level.clamp(0, levels - 1).to(torch.int64)


def roi_align(
    maps: Sequence[Tensor],
    strides: Sequence[int],
    boxes_nr4: Tensor,
    side: int,
    ratio: int = 2,
) -> Tensor:
    """(N * R, C, side, side): regions of the image ``n`` from the map that fits their size.

    :param maps: (N, C, H_i, W_i), finest first, with their ``strides``.
    :param boxes_nr4: in pixels of the image. Samples beyond a map by up to a pixel take its border,
        others are zero.
    :param ratio: samples of a bin in each direction.
    :raises InputError: for maps and strides of different number.
    """
    if len(maps) != len(strides) or not maps:
        raise InputError(f"got {len(maps)} maps and {len(strides)} strides, expected as many")
    channels = maps[0].shape[1]
    shapes = [(map_nchw.shape[2], map_nchw.shape[3]) for map_nchw in maps]
    tokens_nlc = torch.cat([map_nchw.flatten(2).transpose(1, 2) for map_nchw in maps], dim=1)
    length = tokens_nlc.shape[1]
    rows_c = tokens_nlc.reshape(-1, channels)

    # Half precision has too few digits for places in an image.
    boxes_nr4 = boxes_nr4.to(torch.promote_types(boxes_nr4.dtype, torch.float32))
    level_nr = level_of(boxes_nr4, len(maps))
    of_level = _Levels(shapes, strides, boxes_nr4)
    x_nrs, width_nr1 = of_level.samples(boxes_nr4, level_nr, 0, side * ratio)
    y_nrs, height_nr1 = of_level.samples(boxes_nr4, level_nr, 1, side * ratio)
    column_nrs2, column_share_nrs2 = _neighbours(x_nrs, width_nr1)
    line_nrs2, line_share_nrs2 = _neighbours(y_nrs, height_nr1)
    frame_n1 = torch.arange(boxes_nr4.shape[0], device=boxes_nr4.device).unsqueeze(1) * length
    first_nr1 = (frame_n1 + of_level.starts(level_nr)).unsqueeze(-1)
    line_nrs2 = line_nrs2 * width_nr1.to(torch.int64).unsqueeze(-1) + first_nr1.unsqueeze(-1)
    # Of each sample, row by row of the region, the four corners.
    index = line_nrs2[:, :, :, None, :, None] + column_nrs2[:, :, None, :, None, :]
    share = line_share_nrs2[:, :, :, None, :, None] * column_share_nrs2[:, :, None, :, None, :]
    split = (-1, side, ratio, side, ratio, 4)
    index = index.reshape(split).permute(2, 4, 0, 1, 3, 5).flatten(2).flatten(0, 1)
    share = share.reshape(split).permute(2, 4, 0, 1, 3, 5).flatten(2).flatten(0, 1)
    share = share.to(rows_c.dtype) / (ratio * ratio)
    pooled = None
    for sample in range(ratio * ratio):
        # One sample of every bin at a time: all of them at once are gigabytes.
        picked = rows_c.index_select(0, index[sample]).reshape(-1, 4, channels)
        mixed = torch.bmm(share[sample].reshape(-1, 1, 4), picked)
        pooled = mixed if pooled is None else pooled + mixed
    assert pooled is not None
    pooled = pooled.reshape(-1, side * side, channels)
    return pooled.transpose(1, 2).reshape(-1, channels, side, side)


class _Levels:
    """What samples need to know of the level that their box is on."""

    def __init__(
        self, shapes: Sequence[tuple[int, int]], strides: Sequence[int], like: Tensor
    ) -> None:
        def table(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=like.dtype, device=like.device)

        # Sizes by axis: x first.
        self.sizes = [table([w for _, w in shapes]), table([h for h, _ in shapes])]
        self.scale = table([1 / stride for stride in strides])
        lengths = [math.prod(shape) for shape in shapes]
        starts = [sum(lengths[:level]) for level in range(len(shapes))]
        self._starts = torch.tensor(starts, dtype=torch.int64, device=like.device)

    def starts(self, level_nr: Tensor) -> Tensor:
        """Where the level's rows begin among those of all levels."""
        return self._starts[level_nr]

    def samples(
        self, boxes_nr4: Tensor, level_nr: Tensor, axis: int, count: int
    ) -> tuple[Tensor, Tensor]:
        """Places (N, R, count) along an axis in pixels of the level, and its size (N, R, 1)."""
        scale_nr = self.scale[level_nr]
        low_nr = boxes_nr4[..., axis] * scale_nr - 0.5
        step_nr = (boxes_nr4[..., axis + 2] - boxes_nr4[..., axis]) * scale_nr / count
        middle = torch.arange(count, dtype=boxes_nr4.dtype, device=boxes_nr4.device) + 0.5
        places = low_nr.unsqueeze(-1) + step_nr.unsqueeze(-1) * middle
        return places, self.sizes[axis][level_nr].unsqueeze(-1)


def _neighbours(place_nrs: Tensor, size_nr1: Tensor) -> tuple[Tensor, Tensor]:
    """(N, R, S, 2): the pixels around each place and their shares, zero from a pixel outside."""
    inside_nrs = ((place_nrs >= -1) & (place_nrs <= size_nr1)).to(place_nrs.dtype)
    last_nr1 = size_nr1 - 1
    clamped_nrs = torch.minimum(place_nrs.clamp(min=0), last_nr1)
    low_nrs = torch.floor(clamped_nrs)
    high_nrs = torch.minimum(low_nrs + 1, last_nr1)
    upper_nrs = clamped_nrs - low_nrs
    shares = torch.stack([(1 - upper_nrs) * inside_nrs, upper_nrs * inside_nrs], dim=-1)
    return torch.stack([low_nrs, high_nrs], dim=-1).to(torch.int64), shares
