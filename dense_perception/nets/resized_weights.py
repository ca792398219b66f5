"""Weights that depend on the picture's size, brought to ours: positions, biases, patches."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.nets import beit
from dense_perception.nets.positions import PositionEmbedding, resize_positions


def resize_to(
    module: nn.Module, tensors: dict[str, Tensor], ours: Mapping[str, Tensor], backbone: bool
) -> list[str]:
    """Positions (and a backbone's patch embedding) to our size, in place; the keys changed."""
    resized = []
    for name, part in module.named_modules():
        key = f"{name}.table_1nc".lstrip(".")
        table = tensors.get(key)
        if not isinstance(part, PositionEmbedding) or table is None:
            continue
        if table.ndim != 3 or table.shape == ours[key].shape:
            continue
        count = table.shape[1]
        prefix = part.prefix
        if backbone or math.isqrt(max(count - prefix, 0)) ** 2 != count - prefix:
            # The checkpoint's extra tokens may be more or fewer than ours; a grid is square.
            prefix = next((p for p in (0, 1, 2) if math.isqrt(count - p) ** 2 == count - p), prefix)
        side = math.isqrt(max(count - prefix, 0))
        if side == 0 or side * side != count - prefix or table.shape[-1] != ours[key].shape[-1]:
            continue  # reported as being of another shape
        grid = resize_positions(
            table[:, prefix:].float(), (side, side), part.grid_hw, 0, part.method
        )
        extra = _extra_positions(table[:, :prefix].float(), ours[key][:, : part.prefix])
        tensors[key] = torch.cat([extra, grid], dim=1)
        resized.append(key)
    for name, part in module.named_modules():
        key = f"{name}.table"
        if not isinstance(part, beit.GridPositionBias) or key not in tensors:
            continue
        grid_hw = beit.square_grid(tensors[key])
        if grid_hw is not None and tensors[key].shape != ours[key].shape:
            tensors[key] = beit.resize_table(tensors[key].float(), grid_hw, part.grid_hw)
            resized.append(key)
    key = "patch_embed.weight"
    if backbone and key in tensors and tensors[key].shape[:2] == ours[key].shape[:2]:
        size_hw = tuple(ours[key].shape[-2:])
        if tensors[key].ndim == 4 and tuple(tensors[key].shape[-2:]) != size_hw:
            tensors[key] = F.interpolate(
                tensors[key].float(), size=size_hw, mode="bicubic", align_corners=False
            )
            resized.append(key)
    return resized


def _extra_positions(theirs_1pc: Tensor, ours_1pc: Tensor) -> Tensor:
    """The positions of as many extra tokens as we have; those they lack keep our values."""
    kept = min(theirs_1pc.shape[1], ours_1pc.shape[1])
    return torch.cat([theirs_1pc[:, :kept], ours_1pc[:, kept:].to(theirs_1pc)], dim=1)
