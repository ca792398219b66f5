"""Mask2Former's pixel decoder (section 3.2.2 of arXiv:2112.01527; Deformable DETR's encoder)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.nets.deformable import MultiScaleDeformableAttention, Shapes, token_centres
from dense_perception.nets.mask2former.blocks import FeedForward, sine_positions

LEVELS = 3
POINTS = 4
GROUPS = 32


class PixelDecoderLayer(nn.Module):
    """Deformable self-attention over the three levels and a feed-forward block, both post-norm."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention = MultiScaleDeformableAttention(dim, heads, LEVELS, POINTS)
        self.norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, hidden)

    def forward(
        self, tokens_bnc: Tensor, position_nc: Tensor, reference_n2: Tensor, shapes: Shapes
    ) -> Tensor:
        """Positions take part in where a token looks, not in what it finds."""
        found_bnc = self.attention(tokens_bnc + position_nc, reference_n2, tokens_bnc, shapes)
        return self.feed_forward(self.norm(tokens_bnc + found_bnc))


class PixelDecoder(nn.Module):
    """Four maps of a backbone to per-pixel embeddings and to what the queries attend to.

    :param channels_in: channels of the maps at 1/4, 1/8, 1/16 and 1/32 of the image.
    :param dim: channels of all outputs, a multiple of :data:`GROUPS`.
    """

    def __init__(
        self, channels_in: Sequence[int], dim: int, heads: int, layers: int, hidden: int
    ) -> None:
        super().__init__()
        finest, *coarser = channels_in
        self.project = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, dim, 1), nn.GroupNorm(GROUPS, dim))
            for channels in reversed(coarser)
        )
        self.level_embed_3c = nn.Parameter(torch.randn(LEVELS, dim))
        self.layers = nn.ModuleList(PixelDecoderLayer(dim, heads, hidden) for _ in range(layers))
        self.lateral = nn.Sequential(
            nn.Conv2d(finest, dim, 1, bias=False), nn.GroupNorm(GROUPS, dim)
        )
        self.smooth = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1, bias=False), nn.GroupNorm(GROUPS, dim), nn.ReLU()
        )
        self.embed = nn.Conv2d(dim, dim, 1)
        for part in (*self.project, self.lateral, self.smooth, self.embed):
            for module in part.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.xavier_uniform_(module.weight)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """``maps`` (B, C_i, H_i, W_i), finest first.

        Returns the per-pixel embeddings (B, dim, H/4, W/4), and three maps (B, dim, H_i, W_i) at
        1/32, 1/16 and 1/8, in the order in which the queries visit them.
        """
        # Contiguous: PyTorch's group norm of channels-last tensors is inexact on a CPU.
        finest_bchw, *coarser = (map_bchw.contiguous() for map_bchw in maps)
        projected = [
            project(map_bchw)
            for project, map_bchw in zip(self.project, reversed(coarser), strict=True)
        ]
        shapes = tuple((p.shape[2], p.shape[3]) for p in projected)
        tokens_bnc = torch.cat([p.flatten(2).transpose(1, 2) for p in projected], dim=1)
        position_nc = torch.cat(
            [
                sine_positions(shape, tokens_bnc.shape[-1], tokens_bnc) + self.level_embed_3c[level]
                for level, shape in enumerate(shapes)
            ]
        )
        reference_n2 = token_centres(shapes, tokens_bnc)
        for layer in self.layers:
            tokens_bnc = layer(tokens_bnc, position_nc, reference_n2, shapes)
        levels = [
            level_bnc.transpose(1, 2).unflatten(2, shape)
            for level_bnc, shape in zip(
                tokens_bnc.split([rows * columns for rows, columns in shapes], dim=1),
                shapes,
                strict=True,
            )
        ]
        lateral_bchw = self.lateral(finest_bchw)
        up_bchw = F.interpolate(
            levels[-1], size=lateral_bchw.shape[-2:], mode="bilinear", align_corners=False
        )
        return self.embed(self.smooth(lateral_bchw + up_bchw)), levels
