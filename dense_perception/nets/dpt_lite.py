"""A small DPT-Hybrid: EfficientNet-Lite0 stem, a few transformer blocks, DPT's decoder.

Like DPT-Hybrid (Ranftl 2021, section 4.1) the shallow levels come from the stem and the deepest
from a transformer over the stem's last map. The depth is metric because the head predicts the depth
a camera of focal length 1.0 x image width would see (as Yin 2023, arXiv:2307.10984, argue) and the
true focal length scales it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.core.errors import InputError
from dense_perception.core.prediction import DepthKind
from dense_perception.nets.efficientnet_lite import CHANNELS, STRIDES, EfficientNetLite0
from dense_perception.nets.fusion import FusionDecoder, upsample_bilinear
from dense_perception.nets.reassemble import Reassemble
from dense_perception.nets.vit import VisionTransformer


@dataclass(frozen=True)
class DPTLiteConfig:
    """The hyperparameters; ``height`` and ``width`` are the network's size in pixels.

    ``min_canonical_m`` and ``max_canonical_m`` bound the canonical depth the head can say;
    ``min_m`` and ``max_m`` bound the metric output.
    """

    height: int = 192
    width: int = 256
    features: int = 40
    head_features: tuple[int, ...] = (24, 16)
    dim: int = 192
    depth: int = 4
    heads: int = 4
    mlp_ratio: float = 2.0
    qk_norm: bool = True
    min_canonical_m: float = 0.1
    max_canonical_m: float = 40.0
    min_m: float = 0.1
    max_m: float = 20.0

    def __post_init__(self) -> None:
        for name, side in (("height", self.height), ("width", self.width)):
            if side < STRIDES[-1] or side % STRIDES[-1]:
                raise InputError(f"{name} is {side}, expected a multiple of {STRIDES[-1]}")
        if len(self.head_features) != 2:
            raise InputError(f"head_features are {list(self.head_features)}, expected two numbers")
        for low, high in (("min_canonical_m", "max_canonical_m"), ("min_m", "max_m")):
            if not 0 < getattr(self, low) < getattr(self, high):
                raise InputError(
                    f"{low} is {getattr(self, low)} and {high} is {getattr(self, high)}, expected "
                    "positive metres, the lower first"
                )


class DPTLite(nn.Module):
    """(N, 3, H, W) normalised RGB and (N,) focal lengths in pixels to metric depth.

    H and W are multiples of 32; the position embedding is resized if they differ from the
    configuration's.
    """

    needs_focal = True
    depth_kind = DepthKind.METRIC

    def __init__(self, config: DPTLiteConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = EfficientNetLite0()
        self.transformer = VisionTransformer(
            channels_in=CHANNELS[-1],
            dim=config.dim,
            heads=config.heads,
            taps=(config.depth - 1,),
            grid_hw=(config.height // STRIDES[-1], config.width // STRIDES[-1]),
            patch=1,
            class_token=False,
            mlp_ratio=config.mlp_ratio,
            qk_norm=config.qk_norm,
        )
        self.reassemble = Reassemble(config.dim, config.dim, 1.0, readout=None)
        self.decoder = FusionDecoder(
            (*CHANNELS[:-1], config.dim),
            config.features,
            upsample_last=False,
            align_corners=False,
        )
        first, second = config.head_features
        self.head_conv1 = nn.Conv2d(config.features, first, 3, padding=1)
        self.head_conv2 = nn.Conv2d(first, second, 3, padding=1)
        self.head_conv3 = nn.Conv2d(second, 1, 1)
        self._initialise_decoder()

    def _initialise_decoder(self) -> None:
        for part in (self.decoder, self.head_conv1, self.head_conv2):
            for module in part.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
        # Start at one canonical depth everywhere, two metres, with small differences.
        low, high = self._log_bounds()
        start = (math.log(2.0) - low) / (high - low)
        if 0 < start < 1:
            nn.init.constant_(self.head_conv3.bias, math.log(start / (1 - start)))  # type: ignore[arg-type]
        nn.init.normal_(self.head_conv3.weight, std=0.01)

    def _log_bounds(self) -> tuple[float, float]:
        return math.log(self.config.min_canonical_m), math.log(self.config.max_canonical_m)

    def canonical(self, image_nchw: Tensor) -> Tensor:
        """Natural logarithm of the canonical depth, (N, H, W): what the losses compare.

        ``log depth_m = canonical + log(focal_px / width)``, without the final clamp.

        :raises InputError: if H or W is not a multiple of 32.
        """
        height, width = image_nchw.shape[-2:]
        if height % STRIDES[-1] or width % STRIDES[-1]:
            raise InputError(
                f"image is {width}x{height}, expected multiples of {STRIDES[-1]}: resize it to "
                f"{self.config.width}x{self.config.height}"
            )
        *shallow, deepest_bchw = self.stem(image_nchw)
        (tokens_bnc,), grid_hw = self.transformer(deepest_bchw)
        fused_bchw = self.decoder([*shallow, self.reassemble(tokens_bnc, grid_hw)])
        x_bchw = upsample_bilinear(F.relu(self.head_conv1(fused_bchw)))
        x_b1hw = self.head_conv3(F.relu(self.head_conv2(x_bchw)))
        low, high = self._log_bounds()
        # Bounded before the last upsampling: a quarter of the sigmoids, and still bounded after.
        log_b1hw = low + (high - low) * torch.sigmoid(x_b1hw)
        return upsample_bilinear(log_b1hw).squeeze(1)

    def forward(self, image_nchw: Tensor, focal_px: Tensor) -> dict[str, Tensor]:
        """``{"depth": (N, H, W) metres}`` within [min_m, max_m].

        :param focal_px: float32 (N,), focal length in pixels at this image's size.
        """
        log_nhw = self.canonical(image_nchw)
        scale_n11 = (focal_px / image_nchw.shape[-1]).reshape(-1, 1, 1)
        depth_nhw = torch.exp(log_nhw) * scale_n11
        return {"depth": depth_nhw.clamp(self.config.min_m, self.config.max_m)}
