"""UperNet's head (Xiao 2018, arXiv:1807.10221): pyramid pooling on top of a feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.core.errors import InputError
from dense_perception.nets.swin import SWIN_VARIANTS, SwinConfig, SwinTransformer
from dense_perception.nets.vit_comer import (
    VIT_COMER_VARIANTS,
    X_COMER_VARIANTS,
    ViTCoMer,
    ViTCoMerConfig,
    XCoMer,
    XCoMerConfig,
)

POOL_SIDES = (1, 2, 3, 6)


class ConvNormReLU(nn.Sequential):
    """Convolution without bias (stride 1, same size), batch norm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
        )


class PyramidPooling(nn.Module):
    """Average pools of ``sides`` x ``sides`` bins, projected and resized back (Zhao 2017).

    (B, C, H, W) to (B, channels, H, W): the input and its pools concatenated and fused.
    """

    def __init__(self, channels_in: int, channels: int, sides: Sequence[int] = POOL_SIDES) -> None:
        super().__init__()
        self.sides = tuple(sides)
        self.project = nn.ModuleList(ConvNormReLU(channels_in, channels, 1) for _ in self.sides)
        self.fuse = ConvNormReLU(channels_in + len(self.sides) * channels, channels, 3)

    def forward(self, x_bchw: Tensor) -> Tensor:
        size_hw = x_bchw.shape[-2:]
        pyramid = [x_bchw]
        for side, project in zip(self.sides, self.project, strict=True):
            pyramid.append(_resize(project(adaptive_average(x_bchw, side)), size_hw))
        return self.fuse(torch.cat(pyramid, dim=1))


class UperNetHead(nn.Module):
    """Four maps, finest first, to class logits at the finest map's size.

    :param channels_in: channels of the maps.
    :param channels: width of the pyramid, 512 in the published models.
    """

    def __init__(
        self,
        channels_in: Sequence[int],
        classes: int,
        channels: int = 512,
        sides: Sequence[int] = POOL_SIDES,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        *finer, deepest = channels_in
        self.pool = PyramidPooling(deepest, channels, sides)
        self.lateral = nn.ModuleList(ConvNormReLU(count, channels, 1) for count in finer)
        self.smooth = nn.ModuleList(ConvNormReLU(channels, channels, 3) for _ in finer)
        self.fuse = ConvNormReLU(len(channels_in) * channels, channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(channels, classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        merged = [lateral(map_bchw) for lateral, map_bchw in zip(self.lateral, maps, strict=False)]
        merged.append(self.pool(maps[-1]))
        for level in reversed(range(len(merged) - 1)):
            merged[level] = merged[level] + _resize(merged[level + 1], merged[level].shape[-2:])
        outputs = [smooth(map_bchw) for smooth, map_bchw in zip(self.smooth, merged, strict=False)]
        outputs.append(merged[-1])
        finest_hw = outputs[0].shape[-2:]
        fused_bchw = self.fuse(torch.cat([_resize(out, finest_hw) for out in outputs], dim=1))
        return self.classify(self.dropout(fused_bchw))


class FCNHead(nn.Module):
    """The auxiliary head of the published training: 3x3 convolution and logits on one map."""

    def __init__(
        self, channels_in: int, classes: int, channels: int = 256, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.conv = ConvNormReLU(channels_in, channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(channels, classes, 1)

    def forward(self, x_bchw: Tensor) -> Tensor:
        return self.classify(self.dropout(self.conv(x_bchw)))


@dataclass(frozen=True)
class UperNetConfig:
    """The heads; ``auxiliary_channels`` 0 leaves out the auxiliary head of the training."""

    classes: int = 150
    channels: int = 512
    auxiliary_channels: int = 256

    def __post_init__(self) -> None:
        if self.classes < 2 or self.channels < 1 or self.auxiliary_channels < 0:
            raise InputError(
                f"classes is {self.classes}, channels {self.channels}, auxiliary_channels "
                f"{self.auxiliary_channels}: expected two classes or more and positive widths"
            )


class UperNet(nn.Module):
    """A backbone of four maps and UperNet's head.

    ``backbone`` maps (B, 3, H, W) to maps at 1/4, 1/8, 1/16 and 1/32 and says its ``channels``.
    The auxiliary head on the third map is for training only and runs in training mode only.
    """

    def __init__(self, backbone: nn.Module, config: UperNetConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        widths: Sequence[int] = backbone.channels  # type: ignore[assignment]
        self.head = UperNetHead(widths, config.classes, config.channels)
        self.auxiliary = None
        if config.auxiliary_channels:
            self.auxiliary = FCNHead(widths[2], config.classes, config.auxiliary_channels)

    def scores(self, image_bchw: Tensor) -> Tensor:
        """The logits at the finest map's size, a quarter of the image's."""
        return self.head(self.backbone(image_bchw))

    def maps(self, image_bchw: Tensor) -> dict[str, Tensor]:
        """What the losses compare: ``segmentation`` and, in training mode, ``auxiliary`` logits."""
        names = {"logits": "segmentation", "auxiliary_logits": "auxiliary"}
        return {names[name]: logits for name, logits in self(image_bchw).items()}

    def forward(self, image_bchw: Tensor) -> dict[str, Tensor]:
        """``{"logits": (N, classes, H, W)}`` at the image's size.

        In training mode with an auxiliary head also ``"auxiliary_logits"``, of the same shape.
        """
        size_hw = image_bchw.shape[-2:]
        maps = self.backbone(image_bchw)
        outputs = {"logits": _resize(self.head(maps), size_hw)}
        if self.training and self.auxiliary is not None:
            outputs["auxiliary_logits"] = _resize(self.auxiliary(maps[2]), size_hw)
        return outputs


def adaptive_average(x_bchw: Tensor, side: int) -> Tensor:
    """(B, C, H, W) to (B, C, side, side): what ``F.adaptive_avg_pool2d`` computes.

    As two products with constant matrices: no runtime has an operator for uneven, overlapping bins.
    """
    height, width = x_bchw.shape[-2:]
    rows_sh = torch.tensor(_bins(height, side), dtype=x_bchw.dtype, device=x_bchw.device)
    columns_ws = torch.tensor(_bins(width, side).T, dtype=x_bchw.dtype, device=x_bchw.device)
    return rows_sh @ (x_bchw @ columns_ws)


@lru_cache(maxsize=64)
def _bins(length: int, side: int) -> np.ndarray:
    """(side, length) float64 weights; bin i covers floor(i L / s) to ceil((i + 1) L / s)."""
    weights = np.zeros((side, length))
    for index in range(side):
        start, stop = index * length // side, -(-(index + 1) * length // side)
        weights[index, start:stop] = 1 / (stop - start)
    return weights


def _resize(x_bchw: Tensor, size_hw: Sequence[int]) -> Tensor:
    if tuple(x_bchw.shape[-2:]) == tuple(size_hw):
        return x_bchw
    return F.interpolate(x_bchw, size=tuple(size_hw), mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class SwinUperNetConfig(SwinConfig, UperNetConfig):
    """Swin with UperNet's head."""

    def __post_init__(self) -> None:
        SwinConfig.__post_init__(self)
        UperNetConfig.__post_init__(self)


@dataclass(frozen=True)
class ViTCoMerUperNetConfig(ViTCoMerConfig, UperNetConfig):
    """ViT-CoMer with UperNet's head."""

    def __post_init__(self) -> None:
        ViTCoMerConfig.__post_init__(self)
        UperNetConfig.__post_init__(self)


@dataclass(frozen=True)
class XCoMerUperNetConfig(XCoMerConfig, UperNetConfig):
    """CoMer on Swin with UperNet's head."""

    def __post_init__(self) -> None:
        XCoMerConfig.__post_init__(self)
        UperNetConfig.__post_init__(self)


UPERNET_VARIANTS = {
    f"swin_{name}": SwinUperNetConfig(**asdict(config)) for name, config in SWIN_VARIANTS.items()
}
COMER_UPERNET_VARIANTS: dict[str, ViTCoMerUperNetConfig | XCoMerUperNetConfig] = {
    **{n: ViTCoMerUperNetConfig(**asdict(config)) for n, config in VIT_COMER_VARIANTS.items()},
    **{f"swin_{n}": XCoMerUperNetConfig(**asdict(c)) for n, c in X_COMER_VARIANTS.items()},
}


def swin_upernet(config: SwinUperNetConfig) -> UperNet:
    """Swin with UperNet's head."""
    return UperNet(SwinTransformer(config), config)


def comer_upernet(config: ViTCoMerUperNetConfig | XCoMerUperNetConfig) -> UperNet:
    """ViT-CoMer, or CoMer on Swin, with UperNet's head."""
    if isinstance(config, XCoMerUperNetConfig):
        return UperNet(XCoMer(config), config)
    return UperNet(ViTCoMer(config), config)
