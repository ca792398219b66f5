"""Depth Anything V2: DPT's decoder on DINOv2 (Yang 2024, arXiv:2406.09414; Oquab 2023,
arXiv:2304.07193).

What differs from DPT: patches of 14 pixels, LayerScale, taps read through the final norm, the class
token ignored, fusion to explicit sizes, and a head that resizes to the input instead of doubling.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.core.errors import InputError
from dense_perception.core.prediction import DepthKind
from dense_perception.nets.decoder import SCALES, FusionDecoder, Reassemble
from dense_perception.nets.dpt import DepthHead
from dense_perception.nets.vit import VisionTransformer


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
    taps: tuple[int, ...] = (2, 5, 8, 11)
    channels: tuple[int, ...] = (48, 96, 192, 384)
    features: int = 64
    max_depth_m: float = 0.0
    position_resize: str = "bicubic_offset"

    def __post_init__(self) -> None:
        for name, side in (("height", self.height), ("width", self.width)):
            if side < self.patch or side % self.patch:
                raise InputError(f"{name} is {side}, expected a multiple of {self.patch}")
        if len(self.taps) != 4 or len(self.channels) != 4:
            raise InputError(
                f"taps are {list(self.taps)} and channels {list(self.channels)}, expected 4 each"
            )
        if not 0 <= self.max_depth_m < 1e4:
            raise InputError(
                f"max_depth_m is {self.max_depth_m}, expected metres, or 0 for relative depth"
            )


VARIANTS: Mapping[str, DepthAnythingConfig] = {
    "v2_small": DepthAnythingConfig(),
    "v2_base": DepthAnythingConfig(dim=768, heads=12, channels=(96, 192, 384, 768), features=128),
    "v2_large": DepthAnythingConfig(
        dim=1024,
        heads=16,
        taps=(4, 11, 17, 23),
        channels=(256, 512, 1024, 1024),
        features=256,
    ),
}


class DepthAnything(nn.Module):
    """(N, 3, H, W) normalised RGB to ``{"depth": (N, H, W)}``; H and W are multiples of the patch.

    Metres within (0, max_depth_m) for the metric network, else inverse depth up to scale and shift.
    """

    needs_focal = False

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
        self.head = DepthHead(config.features, non_negative=not config.max_depth_m)

    @property
    def depth_kind(self) -> DepthKind:
        return DepthKind.METRIC if self.config.max_depth_m else DepthKind.RELATIVE_INVERSE

    def forward(self, image_nchw: Tensor) -> dict[str, Tensor]:
        y_nhw = self._raw(image_nchw)
        if self.config.max_depth_m:
            y_nhw = torch.sigmoid(y_nhw) * self.config.max_depth_m
        return {"depth": y_nhw}

    def maps(self, image_nchw: Tensor) -> dict[str, Tensor]:
        """What the losses compare, (N, H, W): ``depth``, the natural logarithm of the metres; of
        the relative network ``inverse_depth``.
        """
        raw_nhw = self._raw(image_nchw)
        if not self.config.max_depth_m:
            return {"inverse_depth": raw_nhw}
        return {"depth": F.logsigmoid(raw_nhw) + math.log(self.config.max_depth_m)}

    def _raw(self, image_nchw: Tensor) -> Tensor:
        tapped, grid_hw = self.transformer(image_nchw)
        maps = [
            part(tokens_bnc, grid_hw)
            for part, tokens_bnc in zip(self.reassemble, tapped, strict=True)
        ]
        return self.head(self.decoder(maps), tuple(image_nchw.shape[-2:]))
