"""The vision transformer as DPT uses it (Dosovitskiy 2020, arXiv:2010.11929; DPT section 3.1).

Tokens are float32 (B, N, C): one per patch in row-major order, after the class token if there is
one. Nothing after the tapped blocks is kept: DPT reads raw block outputs, not the final norm.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.core.errors import InputError

LAYER_NORM_EPS = 1e-6


class SelfAttention(nn.Module):
    """Multi-head self-attention.

    ``qk_norm`` normalises queries and keys per head before their product (Dehghani 2023,
    arXiv:2302.05442), which keeps training from scratch stable in reduced precision.
    """

    def __init__(
        self, dim: int, heads: int, qk_norm: bool = False, eps: float = LAYER_NORM_EPS
    ) -> None:
        super().__init__()
        if dim % heads:
            raise InputError(f"{heads} heads do not divide {dim} channels: choose a divisor")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.query_norm = nn.LayerNorm(dim // heads, eps) if qk_norm else nn.Identity()
        self.key_norm = nn.LayerNorm(dim // heads, eps) if qk_norm else nn.Identity()
        self.project = nn.Linear(dim, dim)

    def forward(self, tokens_bnc: Tensor) -> Tensor:
        b, n, c = tokens_bnc.shape
        q_bnc, k_bnc, v_bnc = self.qkv(tokens_bnc).chunk(3, dim=-1)
        d = c // self.heads
        shape = (b, n, self.heads, d)
        q_bhnd = self.query_norm(q_bnc.reshape(shape)).permute(0, 2, 1, 3)
        k_bhdn = self.key_norm(k_bnc.reshape(shape)).permute(0, 2, 3, 1)
        v_bhnd = v_bnc.reshape(shape).permute(0, 2, 1, 3)
        # Written out: the fused operator exports to a dozen nodes of shape arithmetic.
        attention_bhnn = torch.softmax((q_bhnd * d**-0.5) @ k_bhdn, dim=-1)
        return self.project((attention_bhnn @ v_bhnd).permute(0, 2, 1, 3).reshape(b, n, c))


class MLP(nn.Module):
    """Linear, exact GELU, Linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, tokens_bnc: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens_bnc)))


class TransformerBlock(nn.Module):
    """Pre-norm: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_ratio: float = 4.0,
        qk_norm: bool = False,
        eps: float = LAYER_NORM_EPS,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps)
        self.attention = SelfAttention(dim, heads, qk_norm, eps)
        self.norm2 = nn.LayerNorm(dim, eps)
        self.mlp = MLP(dim, int(dim * mlp_ratio))

    def forward(self, tokens_bnc: Tensor) -> Tensor:
        tokens_bnc = tokens_bnc + self.attention(self.norm1(tokens_bnc))
        return tokens_bnc + self.mlp(self.norm2(tokens_bnc))


class PositionEmbedding(nn.Module):
    """Learned positions, stored for one grid and resized bilinearly for any other.

    :param grid_hw: rows and columns the embedding is stored for.
    :param class_token: whether a first embedding, never resized, belongs to the class token.
    """

    def __init__(self, dim: int, grid_hw: tuple[int, int], class_token: bool) -> None:
        super().__init__()
        self.grid_hw = grid_hw
        self.prefix = int(class_token)
        self.table_1nc = nn.Parameter(torch.zeros(1, self.prefix + grid_hw[0] * grid_hw[1], dim))

    def forward(self, grid_hw: tuple[int, int]) -> Tensor:
        """The table for ``grid_hw``: (1, N, C)."""
        if grid_hw == self.grid_hw:
            return self.table_1nc
        prefix_1pc, patches_1nc = self.table_1nc.split(
            [self.prefix, self.grid_hw[0] * self.grid_hw[1]], dim=1
        )
        grid_1chw = patches_1nc.transpose(1, 2).unflatten(2, self.grid_hw)
        grid_1chw = F.interpolate(grid_1chw, size=grid_hw, mode="bilinear", align_corners=False)
        return torch.cat([prefix_1pc, grid_1chw.flatten(2).transpose(1, 2)], dim=1)


class VisionTransformer(nn.Module):
    """Patch embedding, positions, transformer blocks; returns the tokens after ``taps``.

    In a hybrid the "image" is a convolutional stem's deepest map and ``patch`` is 1.

    :param taps: zero-based indices of the blocks whose raw outputs are returned; later blocks are
        not built.
    """

    def __init__(
        self,
        channels_in: int,
        dim: int,
        heads: int,
        taps: Sequence[int],
        grid_hw: tuple[int, int],
        patch: int = 16,
        class_token: bool = True,
        mlp_ratio: float = 4.0,
        qk_norm: bool = False,
        eps: float = LAYER_NORM_EPS,
    ) -> None:
        super().__init__()
        if not taps or list(taps) != sorted(set(taps)) or taps[0] < 0:
            raise InputError(f"taps are {list(taps)}, expected increasing block indices from 0")
        self.taps = tuple(taps)
        self.patch = patch
        self.patch_embed = nn.Conv2d(channels_in, dim, patch, patch)
        self.class_token_11c = nn.Parameter(torch.zeros(1, 1, dim)) if class_token else None
        self.position = PositionEmbedding(dim, grid_hw, class_token)
        self.blocks = nn.ModuleList(
            TransformerBlock(dim, heads, mlp_ratio, qk_norm, eps) for _ in range(taps[-1] + 1)
        )
        self.apply(_initialise)
        nn.init.trunc_normal_(self.position.table_1nc, std=0.02)

    def forward(self, image_bchw: Tensor) -> tuple[list[Tensor], tuple[int, int]]:
        """(B, C, H, W) to the tapped tokens, each (B, N, C), and the patch grid (rows, columns).

        :raises InputError: if H or W is not a multiple of the patch.
        """
        height, width = image_bchw.shape[-2:]
        if height % self.patch or width % self.patch:
            raise InputError(
                f"image is {width}x{height}, expected multiples of the patch of {self.patch}: "
                "resize it first"
            )
        grid_hw = (height // self.patch, width // self.patch)
        tokens_bnc = self.patch_embed(image_bchw).flatten(2).transpose(1, 2)
        position_1nc = self.position(grid_hw)
        if self.class_token_11c is not None:
            # A zero token plus the class token: joining one per frame would need the batch's size
            # in the graph, and with it shape arithmetic on the byte input.
            tokens_bnc = F.pad(tokens_bnc, (0, 0, 1, 0))
            class_1nc = F.pad(self.class_token_11c, (0, 0, 0, tokens_bnc.shape[1] - 1))
            position_1nc = position_1nc + class_1nc
        tokens_bnc = tokens_bnc + position_1nc
        tapped = []
        for index, block in enumerate(self.blocks):
            tokens_bnc = block(tokens_bnc)
            if index in self.taps:
                tapped.append(tokens_bnc)
        return tapped, grid_hw


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
