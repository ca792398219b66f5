"""Depth Anything V2: DPT's decoder on DINOv2 (Yang 2024, arXiv:2406.09414; Oquab 2023,
arXiv:2304.07193).

What differs from DPT: patches of 14 pixels, LayerScale, taps read through the final norm, the class
token ignored, fusion to explicit sizes, and a head that resizes to the input instead of doubling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.core.errors import InputError
from dense_perception.nets.fusion import FusionDecoder, upsample_bilinear
from dense_perception.nets.reassemble import SCALES, Reassemble
from dense_perception.nets.vit import VisionTransformer

HEAD_FEATURES = 32


@dataclass(frozen=True)
class DepthAnythingConfig:
    """The hyperparameters; ``height`` and ``width`` are the network's size in pixels.

    ``max_depth_m`` above 0 makes the metric network, whose depth is a sigmoid times this; 0 makes
    the relative one, whose output is inverse depth up to scale and shift. ``position_resize`` is
    the way positions get to another grid than the stored one; see
    :func:`~dense_perception.nets.vit.resize_positions`.
    """

    height: int = 518
    width: int = 518
    patch: int = 14
    dim: int = 384
    heads: int = 6
    taps: tuple[int, int, int, int] = (2, 5, 8, 11)
    channels: tuple[int, int, int, int] = (48, 96, 192, 384)
    features: int = 64
    max_depth_m: float = 0.0
    position_resize: str = "bicubic_offset"

    def __post_init__(self) -> None:
        for name, side in (("height", self.height), ("width", self.width)):
            if side < self.patch or side % self.patch:
                raise InputError(f"{name} is {side}, expected a multiple of {self.patch}")
        if not 0 <= self.max_depth_m < 1e4:
            raise InputError(
                f"max_depth_m is {self.max_depth_m}, expected metres, or 0 for relative depth"
            )


VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "v2_small": {},
    "v2_base": {"dim": 768, "heads": 12, "channels": (96, 192, 384, 768), "features": 128},
    "v2_large": {
        "dim": 1024,
        "heads": 16,
        "taps": (4, 11, 17, 23),
        "channels": (256, 512, 1024, 1024),
        "features": 256,
    },
}


class DepthAnything(nn.Module):
    """(N, 3, H, W) normalised RGB to ``{"depth": (N, H, W)}``; H and W are multiples of the patch.

    Metres within (0, max_depth_m) for the metric network, else inverse depth up to scale and shift.
    """

    def __init__(self, config: DepthAnythingConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = VisionTransformer(
            channels_in=3,
            dim=config.dim,
            heads=config.heads,
            taps=config.taps,
            grid_hw=(config.height // config.patch, config.width // config.patch),
            patch=config.patch,
            layer_scale=True,
            final_norm=True,
            position_resize=config.position_resize,
        )
        self.reassemble = nn.ModuleList(
            Reassemble(config.dim, count, scale, "ignore")
            for count, scale in zip(config.channels, SCALES, strict=True)
        )
        self.decoder = FusionDecoder(config.channels, config.features)
        self.head_conv1 = nn.Conv2d(config.features, config.features // 2, 3, padding=1)
        self.head_conv2 = nn.Conv2d(config.features // 2, HEAD_FEATURES, 3, padding=1)
        self.head_conv3 = nn.Conv2d(HEAD_FEATURES, 1, 1)

    def forward(self, image_nchw: Tensor) -> dict[str, Tensor]:
        tapped, grid_hw = self.transformer(image_nchw)
        maps = [
            part(tokens_bnc, grid_hw)
            for part, tokens_bnc in zip(self.reassemble, tapped, strict=True)
        ]
        x_bchw = self.head_conv1(self.decoder(maps))
        height, width = image_nchw.shape[-2:]
        x_bchw = upsample_bilinear(x_bchw, (height, width), align_corners=True)
        x_bhw = self.head_conv3(F.relu(self.head_conv2(x_bchw))).squeeze(1)
        if self.config.max_depth_m:
            return {"depth": torch.sigmoid(x_bhw) * self.config.max_depth_m}
        return {"depth": F.relu(x_bhw)}
