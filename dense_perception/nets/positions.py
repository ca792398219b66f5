"""Learned position tables, stored for one grid of tokens and resized for any other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.core.errors import InputError
from dense_perception.nets.beit import GridPositionBias

POSITION_RESIZES = ("bilinear", "bicubic", "bicubic_offset")
# DINOv2 enlarges the wanted grid by this before it computes the factor of its bicubic resize.
_DINOV2_OFFSET = 0.1


def resize_positions(
    table_1nc: Tensor,
    old_hw: tuple[int, int],
    new_hw: tuple[int, int],
    prefix: int,
    method: str = "bilinear",
) -> Tensor:
    """A position table (1, prefix + rows * columns, C) for another grid; the prefix is kept.

    :param method: ``bilinear`` (DPT, Segmenter), ``bicubic`` (DINOv2 as ``transformers`` has it) or
        ``bicubic_offset`` (DINOv2 itself, whose factor is (new + 0.1) / old).
    """
    free = not all(isinstance(side, int) for side in new_hw)
    if not free and old_hw == new_hw:
        return table_1nc
    prefix_1pc, patches_1nc = table_1nc.split([prefix, old_hw[0] * old_hw[1]], dim=1)
    if free:
        return torch.cat([prefix_1pc, _by_products(patches_1nc, old_hw, new_hw, method)], dim=1)
    grid_1chw = patches_1nc.transpose(1, 2).unflatten(2, old_hw)
    if method == "bicubic_offset":
        factors = [(n + _DINOV2_OFFSET) / o for n, o in zip(new_hw, old_hw, strict=True)]
        grid_1chw = F.interpolate(grid_1chw, scale_factor=factors, mode="bicubic")
    else:
        grid_1chw = F.interpolate(grid_1chw, size=new_hw, mode=method, align_corners=False)
    return torch.cat([prefix_1pc, grid_1chw.flatten(2).transpose(1, 2)], dim=1)


def _by_products(
    patches_1nc: Tensor, old_hw: tuple[int, int], new_hw: tuple[int, int], method: str
) -> Tensor:
    """The same resize as a product with one matrix per axis, for a grid known at run time only.

    Runtimes fold it to a constant where they are given a size, and no resize with a factor of its
    own is needed, which the exporter would freeze.
    """
    rows, columns = old_hw
    grid_hwc = patches_1nc.reshape(rows, columns, -1)
    offset = torch.zeros(())
    if method == "bicubic_offset":
        # The stored grid itself is not resized; its size is counted, since here no branch can be.
        same = [torch.ones(new).sum() == old for old, new in zip(old_hw, new_hw, strict=True)]
        offset = torch.where(same[0] & same[1], 0.0, _DINOV2_OFFSET)
    down, across = (
        _axis_matrix(old, new, method, offset).to(grid_hwc)
        for old, new in zip(old_hw, new_hw, strict=True)
    )
    tall_hwc = (down @ grid_hwc.reshape(rows, -1)).reshape(new_hw[0], columns, -1)
    return (across @ tall_hwc).reshape(1, new_hw[0] * new_hw[1], -1)


def _axis_matrix(old: int, new: int, method: str, offset: Tensor) -> Tensor:
    """float32 (new, old): the weights of :func:`torch.nn.functional.interpolate` along one axis."""
    index = torch.arange(new, dtype=torch.float32)
    centre = (index + 0.5) * (old / (torch.ones(new).sum() + offset)) - 0.5
    taps = torch.arange(-1, 3) if method != "bilinear" else torch.arange(0, 2)
    if method == "bilinear":
        centre = centre.clamp(min=0)  # as PyTorch: only the cubic kernel looks beyond the border
    first = torch.floor(centre)
    distance = (centre - first)[:, None] - taps[None].to(centre.dtype)
    near = distance.abs()
    if method == "bilinear":
        weights = 1 - near
    else:
        a = -0.75
        inner = ((a + 2) * near - (a + 3)) * near * near + 1
        outer = ((a * near - 5 * a) * near + 8 * a) * near - 4 * a
        weights = torch.where(near <= 1, inner, outer)
    # Taps beyond the border are the border's pixels again.
    places = (first[:, None] + taps[None]).clamp(0, old - 1)
    hits = (places[..., None] == torch.arange(old, dtype=torch.float32)).to(weights.dtype)
    return (weights[..., None] * hits).sum(1)


class PositionEmbedding(nn.Module):
    """Learned positions, stored for one grid and resized for any other.

    :param grid_hw: rows and columns the embedding is stored for.
    :param prefix: how many first embeddings, never resized, belong to extra tokens.
    :param method: one of :data:`POSITION_RESIZES`; see :func:`resize_positions`.
    """

    def __init__(
        self, dim: int, grid_hw: tuple[int, int], prefix: int, method: str = "bilinear"
    ) -> None:
        super().__init__()
        if method not in POSITION_RESIZES:
            raise InputError(
                f"position resize is {method!r}, expected one of {list(POSITION_RESIZES)}"
            )
        self.grid_hw = grid_hw
        self.prefix = int(prefix)
        self.method = method
        self.table_1nc = nn.Parameter(torch.zeros(1, self.prefix + grid_hw[0] * grid_hw[1], dim))

    def forward(self, grid_hw: tuple[int, int]) -> Tensor:
        """The table for ``grid_hw``: (1, N, C)."""
        return resize_positions(self.table_1nc, self.grid_hw, grid_hw, self.prefix, self.method)

    def fix(self, grid_hw: tuple[int, int]) -> None:
        """Store the table for ``grid_hw``."""
        self.table_1nc = nn.Parameter(self(grid_hw).clone())
        self.grid_hw = grid_hw


def fix_positions(network: nn.Module, *inputs: Tensor) -> None:
    """Store all positions for the grids that ``inputs`` of ``network`` lead to, in place.

    For export at one size: no runtime needs to resize a table that never changes.
    """
    seen: dict[PositionEmbedding | GridPositionBias, tuple[int, int]] = {}
    hooks = [
        module.register_forward_pre_hook(lambda part, args: seen.update({part: args[0]}))
        for module in network.modules()
        if isinstance(module, PositionEmbedding | GridPositionBias)
    ]
    try:
        with torch.no_grad():
            network(*inputs)
            for part, grid_hw in list(seen.items()):
                part.fix(grid_hw)
    finally:
        for hook in hooks:
            hook.remove()
