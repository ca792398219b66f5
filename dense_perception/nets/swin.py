"""Swin Transformer as a backbone of dense predictors (Liu 2021, arXiv:2103.14030).

Grids are padded to whole windows, never the window shrunk to the grid, so any image size works.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.core.errors import InputError
from dense_perception.nets.vit import MLP, DropPath, linear_rates
from dense_perception.nets.windows import RelativePositionBias, WindowLayout

LAYER_NORM_EPS = 1e-5


@dataclass(frozen=True)
class SwinConfig:
    """Hyperparameters; ``dim`` is the first stage's width, doubled from stage to stage.

    ``drop_path`` is the last block's rate of stochastic depth.
    """

    dim: int = 96
    depths: tuple[int, int, int, int] = (2, 2, 6, 2)
    heads: tuple[int, int, int, int] = (3, 6, 12, 24)
    window: int = 7
    patch: int = 4
    mlp_ratio: float = 4.0
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        for dim, heads in zip(self.dims, self.heads, strict=True):
            if heads < 1 or dim % heads:
                raise InputError(f"{heads} heads do not divide {dim} channels: choose a divisor")
        if self.window < 2 or min(self.depths) < 1:
            raise InputError(
                f"window is {self.window} and depths are {self.depths}, expected a window of two "
                "tokens or more and a block or more in each stage"
            )

    @property
    def dims(self) -> tuple[int, ...]:
        """Channels of the four outputs."""
        return tuple(self.dim << stage for stage in range(len(self.depths)))


# Table 7 of the paper; the sizes with window 12 (pretrained at 384) are a `window` away.
SWIN_VARIANTS = {
    "tiny": SwinConfig(),
    "small": SwinConfig(depths=(2, 2, 18, 2)),
    "base": SwinConfig(dim=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32)),
    "large": SwinConfig(dim=192, depths=(2, 2, 18, 2), heads=(6, 12, 24, 48)),
}


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with relative position bias (section 3.2)."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.bias = RelativePositionBias(window, heads)
        self.project = nn.Linear(dim, dim)

    def forward(self, windows_wnc: Tensor, layout: WindowLayout) -> Tensor:
        """(windows, N, C) to the same shape."""
        q_wnc, k_wnc, v_wnc = self.qkv(windows_wnc).chunk(3, dim=-1)
        weights_whnn = window_weights(q_wnc, k_wnc, self.heads, self.bias(), layout)
        return self.project(window_mix(weights_whnn, v_wnc))


def window_weights(
    q_wnc: Tensor, k_wnc: Tensor, heads: int, bias_hnn: Tensor, layout: WindowLayout
) -> Tensor:
    """softmax(q k^T / sqrt(d) + B) of each head, masked at shifted borders: (W, heads, N, N)."""
    n, c = q_wnc.shape[1:]
    d = c // heads
    q_whnd = q_wnc.reshape(-1, n, heads, d).permute(0, 2, 1, 3)
    k_whdn = k_wnc.reshape(-1, n, heads, d).permute(0, 2, 3, 1)
    logits_whnn = (q_whnd * d**-0.5) @ k_whdn + bias_hnn
    return torch.softmax(layout.add_mask(logits_whnn), dim=-1)


def window_mix(weights_whnn: Tensor, v_wnc: Tensor) -> Tensor:
    """Each head's weights times its values, heads side by side: (W, N, C)."""
    heads, n = weights_whnn.shape[1:3]
    c = v_wnc.shape[-1]
    v_whnd = v_wnc.reshape(-1, n, heads, c // heads).permute(0, 2, 1, 3)
    return (weights_whnn @ v_whnd).permute(0, 2, 1, 3).reshape(-1, n, c)


class SwinBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), on a grid (B, H, W, C)."""

    def __init__(
        self,
        dim: int,
        heads: int,
        window: int,
        shift: int,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.window = window
        self.shift = shift
        self.norm1 = nn.LayerNorm(dim, LAYER_NORM_EPS)
        self.attention = WindowAttention(dim, heads, window)
        self.norm2 = nn.LayerNorm(dim, LAYER_NORM_EPS)
        self.mlp = MLP(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, grid_bhwc: Tensor) -> Tensor:
        height, width = grid_bhwc.shape[1:3]
        layout = WindowLayout((height, width), self.window, self.shift)
        # The padding comes after the norm: padded tokens are zero, yet attend and are attended to.
        windows_wnc = self.attention(layout.cut(self.norm1(grid_bhwc)), layout)
        grid_bhwc = grid_bhwc + self.drop_path(layout.join(windows_wnc))
        return grid_bhwc + self.drop_path(self.mlp(self.norm2(grid_bhwc)))


class PatchMerging(nn.Module):
    """(B, H, W, C) to (B, ceil(H/2), ceil(W/2), 2C): 2x2 neighbours concatenated and projected."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim, LAYER_NORM_EPS)
        self.reduce = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, grid_bhwc: Tensor) -> Tensor:
        height, width = grid_bhwc.shape[1:3]
        if height % 2 or width % 2:
            grid_bhwc = F.pad(grid_bhwc, (0, 0, 0, width % 2, 0, height % 2))
            height, width = height + height % 2, width + width % 2
        pairs = grid_bhwc.reshape(-1, height // 2, 2, width // 2, 2, grid_bhwc.shape[-1])
        # Official order of the four: top left, bottom left, top right, bottom right.
        merged = pairs.permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.reduce(self.norm(merged))


class SwinStage(nn.Module):
    """``depth`` blocks, every second one shifted by half a window, after an optional merging."""

    def __init__(self, config: SwinConfig, stage: int, rates: list[float]) -> None:
        super().__init__()
        dim = config.dims[stage]
        self.merge: nn.Module = PatchMerging(dim // 2) if stage else nn.Identity()
        self.blocks = nn.ModuleList(
            SwinBlock(
                dim,
                config.heads[stage],
                config.window,
                config.window // 2 if index % 2 else 0,
                config.mlp_ratio,
                rate,
            )
            for index, rate in enumerate(rates)
        )

    def forward(self, grid_bhwc: Tensor) -> Tensor:
        grid_bhwc = self.merge(grid_bhwc)
        for block in self.blocks:
            grid_bhwc = block(grid_bhwc)
        return grid_bhwc


class SwinTransformer(nn.Module):
    """(B, 3, H, W) normalised RGB to four maps (B, C_i, H_i, W_i) at 1/4, 1/8, 1/16, 1/32.

    Each output has its own LayerNorm. Sides are padded to the patch with zeros and rounded up.
    """

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        self.config = config
        self.channels = config.dims
        self.patch_embed = nn.Conv2d(3, config.dim, config.patch, config.patch)
        self.patch_norm = nn.LayerNorm(config.dim, LAYER_NORM_EPS)
        rates = linear_rates(config.drop_path, sum(config.depths))
        self.stages = nn.ModuleList()
        for stage, depth in enumerate(config.depths):
            self.stages.append(SwinStage(config, stage, rates[:depth]))
            rates = rates[depth:]
        self.norms = nn.ModuleList(nn.LayerNorm(dim, LAYER_NORM_EPS) for dim in config.dims)
        self.apply(_initialise)

    def embed(self, image_bchw: Tensor) -> Tensor:
        """The patches' tokens as a grid (B, H/patch, W/patch, C)."""
        height, width = image_bchw.shape[-2:]
        right, bottom = -width % self.config.patch, -height % self.config.patch
        if right or bottom:
            image_bchw = F.pad(image_bchw, (0, right, 0, bottom))
        return self.patch_norm(self.patch_embed(image_bchw).permute(0, 2, 3, 1))

    def forward(self, image_bchw: Tensor) -> list[Tensor]:
        grid_bhwc = self.embed(image_bchw)
        maps = []
        for stage, norm in zip(self.stages, self.norms, strict=True):
            grid_bhwc = stage(grid_bhwc)
            maps.append(norm(grid_bhwc).permute(0, 3, 1, 2))
        return maps


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
