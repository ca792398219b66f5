"""Mask2Former's transformer decoder with masked attention (section 3.2 of arXiv:2112.01527)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.nets.mask2former.blocks import FeedForward, sine_positions
from dense_perception.nets.mask2former.pixel_decoder import LEVELS
from dense_perception.nets.query_network import QueryPrediction

# Zero after the softmax in every precision, and finite, so that no row of it becomes NaN.
BLOCKED = -1e4


class Attention(nn.Module):
    """Multi-head attention whose queries, keys and values come from different tokens."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.project = nn.Linear(dim, dim)
        nn.init.zeros_(self.qkv.bias)
        for linear in (self.qkv, self.project):
            nn.init.xavier_uniform_(linear.weight)

    def forward(
        self,
        query_bqc: Tensor,
        key_bnc: Tensor,
        value_bnc: Tensor,
        blocked_bqn: Tensor | None = None,
    ) -> Tensor:
        """(B, Q, C); ``blocked_bqn`` is true where a query must not look."""
        q_bhqd, k_bhnd, v_bhnd = (
            self._heads(part, tokens_bnc)
            for part, tokens_bnc in enumerate((query_bqc, key_bnc, value_bnc))
        )
        logits_bhqn = (q_bhqd * q_bhqd.shape[-1] ** -0.5) @ k_bhnd.transpose(2, 3)
        if blocked_bqn is not None:
            logits_bhqn = logits_bhqn.masked_fill(blocked_bqn.unsqueeze(1), BLOCKED)
        mixed_bhqd = torch.softmax(logits_bhqn, dim=-1) @ v_bhnd
        return self.project(mixed_bhqd.transpose(1, 2).flatten(2))

    def _heads(self, part: int, tokens_bnc: Tensor) -> Tensor:
        """The first, second or third of the fused projections: (B, heads, N, d)."""
        dim = self.project.in_features
        rows = slice(part * dim, (part + 1) * dim)
        projected_bnc = F.linear(tokens_bnc, self.qkv.weight[rows], self.qkv.bias[rows])
        return projected_bnc.unflatten(2, (self.heads, -1)).transpose(1, 2)


class DecoderLayer(nn.Module):
    """Masked cross-attention, self-attention, feed-forward, each post-norm (section 3.2.1).

    Cross-attention comes first: the queries know nothing of the image before it.
    """

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.cross_attention = Attention(dim, heads)
        self.cross_norm = nn.LayerNorm(dim)
        self.self_attention = Attention(dim, heads)
        self.self_norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, hidden)

    def forward(
        self,
        queries_bqc: Tensor,
        query_position_qc: Tensor,
        tokens_bnc: Tensor,
        position_nc: Tensor,
        blocked_bqn: Tensor,
    ) -> Tensor:
        seen_bqc = self.cross_attention(
            queries_bqc + query_position_qc, tokens_bnc + position_nc, tokens_bnc, blocked_bqn
        )
        queries_bqc = self.cross_norm(queries_bqc + seen_bqc)
        placed_bqc = queries_bqc + query_position_qc
        queries_bqc = self.self_norm(
            queries_bqc + self.self_attention(placed_bqc, placed_bqc, queries_bqc)
        )
        return self.feed_forward(queries_bqc)


class TransformerDecoder(nn.Module):
    """Learned queries that look at one level of the pyramid after the other (section 3.2.2).

    :param classes: without "no object".
    """

    def __init__(
        self, dim: int, heads: int, layers: int, hidden: int, queries: int, classes: int
    ) -> None:
        super().__init__()
        self.query_qc = nn.Parameter(torch.randn(queries, dim))
        self.query_position_qc = nn.Parameter(torch.randn(queries, dim))
        self.level_embed_3c = nn.Parameter(torch.randn(LEVELS, dim))
        self.layers = nn.ModuleList(DecoderLayer(dim, heads, hidden) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.classify = nn.Linear(dim, classes + 1)
        self.embed = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim)
        )

    def forward(self, pixels_bchw: Tensor, levels: Sequence[Tensor]) -> list[QueryPrediction]:
        """The predictions of the learned queries and after each layer, the last one's last.

        :param pixels_bchw: the pixel decoder's embeddings, (B, C, H/4, W/4).
        :param levels: its maps (B, C, H_i, W_i), coarsest first.
        """
        sizes = [(level_bchw.shape[2], level_bchw.shape[3]) for level_bchw in levels]
        tokens = [
            level_bchw.flatten(2).transpose(1, 2) + embed_c
            for level_bchw, embed_c in zip(levels, self.level_embed_3c, strict=True)
        ]
        positions = [sine_positions(size, pixels_bchw.shape[1], pixels_bchw) for size in sizes]
        # One set of queries for all frames: the batch appears with the first look at the image.
        queries_bqc = self.query_qc.unsqueeze(0)
        predictions = [self._predict(queries_bqc, pixels_bchw)]
        for index, layer in enumerate(self.layers):
            level = index % LEVELS
            blocked_bqn = _outside(predictions[-1].mask_logits_bqhw, sizes[level])
            queries_bqc = layer(
                queries_bqc,
                self.query_position_qc,
                tokens[level],
                positions[level],
                blocked_bqn,
            )
            predictions.append(self._predict(queries_bqc, pixels_bchw))
        return predictions

    def _predict(self, queries_bqc: Tensor, pixels_bchw: Tensor) -> QueryPrediction:
        queries_bqc = self.norm(queries_bqc)
        masks_bqn = self.embed(queries_bqc) @ pixels_bchw.flatten(2)
        size_hw = (pixels_bchw.shape[2], pixels_bchw.shape[3])
        return QueryPrediction(self.classify(queries_bqc), masks_bqn.unflatten(2, size_hw))


def _outside(mask_logits_bqhw: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Where a query must not look, (B, Q, rows * columns) bool: outside of its mask (equation 2).

    A query with an empty mask at that size looks everywhere.
    """
    resized_bqn = F.interpolate(
        mask_logits_bqhw.detach(), size=size_hw, mode="bilinear", align_corners=False
    ).flatten(2)
    return (resized_bqn < 0) & (resized_bqn.amax(dim=2, keepdim=True) >= 0)
