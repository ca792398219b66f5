"""What the small networks share: the encoder, and metric depth that knows the focal length.

The encoder is the EfficientNet-Lite0 stem with a few transformer blocks over its last map, as in
DPT-Hybrid (Ranftl 2021, section 4.1). The depth is metric because a head predicts the canonical
depth, that of a camera of focal length 1.0 x image width (as Yin 2023, arXiv:2307.10984, argue),
and the true focal length scales it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dense_perception.core.errors import InputError
from dense_perception.core.prediction import DepthKind
from dense_perception.nets.efficientnet_lite import CHANNELS, STRIDES, EfficientNetLite0
from dense_perception.nets.vit import VisionTransformer

# What an untrained head says everywhere.
_START_M = 2.0


@dataclass(frozen=True)
class LiteConfig:
    """The encoder's and the depth's hyperparameters.

    :param height: with ``width`` the network's size in pixels, multiples of 32.
    :param dim: channels of the transformer, which has ``depth`` blocks.
    :param min_canonical_m: with ``max_canonical_m`` bounds the canonical depth the head can say;
        ``min_m`` and ``max_m`` bound the metric output.
    """

    height: int = 192
    width: int = 256
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
        for low, high in (("min_canonical_m", "max_canonical_m"), ("min_m", "max_m")):
            if not 0 < getattr(self, low) < getattr(self, high):
                raise InputError(
                    f"{low} is {getattr(self, low)} and {high} is {getattr(self, high)}, expected "
                    "positive metres, the lower first"
                )


class LiteNetwork(nn.Module):
    """The encoder, and the canonical depth of what a subclass decodes from it.

    The position embedding is resized where the image's size differs from the configuration's.
    """

    depth_kind = DepthKind.METRIC

    def __init__(self, config: LiteConfig) -> None:
        super().__init__()
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
        self._size = (config.width, config.height)
        self._log_bounds = (math.log(config.min_canonical_m), math.log(config.max_canonical_m))
        self._metric_bounds = (config.min_m, config.max_m)

    def encode(self, image_nchw: Tensor) -> tuple[list[Tensor], Tensor, tuple[int, int]]:
        """The stem's shallower maps, finest first, the deepest tokens (N, rows * columns, dim) and
        their grid (rows, columns).

        :raises InputError: if H or W is not a multiple of 32.
        """
        height, width = image_nchw.shape[-2:]
        if height % STRIDES[-1] or width % STRIDES[-1]:
            raise InputError(
                f"image is {width}x{height}, expected multiples of {STRIDES[-1]}: resize it to "
                f"{self._size[0]}x{self._size[1]}"
            )
        *shallow, deepest_bchw = self.stem(image_nchw)
        (tokens_bnc,), grid_hw = self.transformer(deepest_bchw)
        return shallow, tokens_bnc, grid_hw

    def start_at_two_metres(self, bias: Tensor | None) -> None:
        """Set the bias of a depth head's last layer."""
        low, high = self._log_bounds
        start = (math.log(_START_M) - low) / (high - low)
        if bias is not None and 0 < start < 1:
            nn.init.constant_(bias, math.log(start / (1 - start)))

    def log_canonical(self, logits: Tensor) -> Tensor:
        """A depth head's numbers to the natural logarithm of the canonical depth, bounded."""
        low, high = self._log_bounds
        return low + (high - low) * torch.sigmoid(logits)

    def metres(self, log_nhw: Tensor, focal_px: Tensor, width: int) -> Tensor:
        """Canonical to metric: ``log depth_m = log_nhw + log(focal_px / width)``, then clamped.

        :param focal_px: float32 (N,), focal length in pixels of the image of ``width`` columns.
        """
        scale_n11 = (focal_px / width).reshape(-1, 1, 1)
        return (torch.exp(log_nhw) * scale_n11).clamp(*self._metric_bounds)
