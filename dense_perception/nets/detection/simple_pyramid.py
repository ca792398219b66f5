"""A plain vision transformer as a backbone of detectors: four maps from four of its blocks.

As ViT-CoMer's authors train it for comparison: the maps, all at 1/16, are enlarged by transposed
convolutions to 1/4 and 1/8, kept, and halved (Li 2021, arXiv:2111.11429).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from dense_perception.core.errors import InputError
from dense_perception.nets.comer import initialise
from dense_perception.nets.vit import LAYER_NORM_EPS, LayerScale, VisionTransformer

_TAPPED = 4
_GROUPS = 32


@dataclass(frozen=True)
class PlainViTConfig:
    """ViT of patch 16 without class token; two blocks of three attend within windows.

    :param window: side of the windows in patches, 0 for global attention everywhere.
    :param grid: rows and columns of the stored position embedding.
    """

    dim: int = 384
    depth: int = 12
    heads: int = 6
    window: int = 14
    grid: tuple[int, int] = (14, 14)
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        if self.depth < _TAPPED or self.depth % _TAPPED:
            raise InputError(f"depth is {self.depth}, expected a multiple of {_TAPPED}")

    @property
    def windows(self) -> tuple[int, ...]:
        """Side of each block's windows."""
        return tuple(0 if index % 3 == 2 else self.window for index in range(self.depth))


PLAIN_VIT_VARIANTS = {
    "small": PlainViTConfig(drop_path=0.1),
    "base": PlainViTConfig(dim=768, heads=12, drop_path=0.1),
}


class PlainViT(nn.Module):
    """(N, 3, H, W) to four maps (N, dim, H_i, W_i) at 1/4, 1/8, 1/16 and 1/32.

    :raises InputError: in ``forward``, if H or W is not a multiple of 16.
    """

    def __init__(self, config: PlainViTConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.channels = (dim,) * _TAPPED
        per_map = config.depth // _TAPPED
        self.vit = VisionTransformer(
            channels_in=3,
            dim=dim,
            heads=config.heads,
            taps=tuple(per_map * (index + 1) - 1 for index in range(_TAPPED)),
            grid_hw=config.grid,
            class_token=False,
            layer_scale=True,
            position_resize="bicubic",
            drop_path=config.drop_path,
            windows=config.windows if config.window else (),
        )
        for module in self.vit.modules():
            if isinstance(module, LayerScale):
                nn.init.ones_(module.gamma_c)
        self.norms = nn.ModuleList(nn.LayerNorm(dim, LAYER_NORM_EPS) for _ in range(_TAPPED))
        self.scale = nn.ModuleList(
            [
                nn.Sequential(
                    nn.ConvTranspose2d(dim, dim, 2, 2),
                    nn.GroupNorm(math.gcd(_GROUPS, dim), dim),
                    nn.GELU(),
                    nn.ConvTranspose2d(dim, dim, 2, 2),
                ),
                nn.ConvTranspose2d(dim, dim, 2, 2),
                nn.Identity(),
                nn.MaxPool2d(2, 2),
            ]
        )
        self.scale.apply(initialise)

    def forward(self, image_nchw: Tensor) -> list[Tensor]:
        tapped, grid_hw = self.vit(image_nchw)
        return [
            scale(norm(tokens).transpose(1, 2).unflatten(2, grid_hw))
            for tokens, norm, scale in zip(tapped, self.norms, self.scale, strict=True)
        ]
