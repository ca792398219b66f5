"""Mask R-CNN, Cascade Mask R-CNN, ATSS and GFL by name, on three kinds of backbone."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from torch import nn

from dense_perception.nets.detection.dense_heads import DenseConfig, DenseDetector
from dense_perception.nets.detection.mask_rcnn import RegionConfig, RegionDetector
from dense_perception.nets.detection.simple_pyramid import (
    PLAIN_VIT_VARIANTS,
    PlainViT,
    PlainViTConfig,
)
from dense_perception.nets.swin import SWIN_VARIANTS, SwinConfig, SwinTransformer
from dense_perception.nets.vit_comer import VIT_COMER_VARIANTS, ViTCoMer, ViTCoMerConfig


@dataclass(frozen=True)
class ViTCoMerRegionConfig(ViTCoMerConfig, RegionConfig):
    """Regions on ViT-CoMer."""

    def __post_init__(self) -> None:
        ViTCoMerConfig.__post_init__(self)
        RegionConfig.__post_init__(self)


@dataclass(frozen=True)
class SwinRegionConfig(SwinConfig, RegionConfig):
    """Regions on Swin."""

    def __post_init__(self) -> None:
        SwinConfig.__post_init__(self)
        RegionConfig.__post_init__(self)


@dataclass(frozen=True)
class PlainViTRegionConfig(PlainViTConfig, RegionConfig):
    """Regions on a plain vision transformer."""

    def __post_init__(self) -> None:
        PlainViTConfig.__post_init__(self)
        RegionConfig.__post_init__(self)


@dataclass(frozen=True)
class ViTCoMerDenseConfig(ViTCoMerConfig, DenseConfig):
    """ATSS or GFL on ViT-CoMer."""

    def __post_init__(self) -> None:
        ViTCoMerConfig.__post_init__(self)
        DenseConfig.__post_init__(self)


@dataclass(frozen=True)
class SwinDenseConfig(SwinConfig, DenseConfig):
    """ATSS or GFL on Swin."""

    def __post_init__(self) -> None:
        SwinConfig.__post_init__(self)
        DenseConfig.__post_init__(self)


@dataclass(frozen=True)
class PlainViTDenseConfig(PlainViTConfig, DenseConfig):
    """ATSS or GFL on a plain vision transformer."""

    def __post_init__(self) -> None:
        PlainViTConfig.__post_init__(self)
        DenseConfig.__post_init__(self)


Regions = ViTCoMerRegionConfig | SwinRegionConfig | PlainViTRegionConfig
Dense = ViTCoMerDenseConfig | SwinDenseConfig | PlainViTDenseConfig


def _detection_form(config: ViTCoMerConfig, grid: int = 14) -> ViTCoMerConfig:
    """The authors': windows, the last features added to all levels, a slim MRFP.

    The published configurations are those on DINOv2; the paper's others are taken to differ in the
    pretraining alone.
    """
    return replace(config, window=14, stage_features=False, mrfp_ratio=0.5, grid=(grid, grid))


_COMER = {
    **{f"vit_comer_{n}": _detection_form(config) for n, config in VIT_COMER_VARIANTS.items()},
    **{
        f"vit_comer_{name}_dinov2": _detection_form(VIT_COMER_VARIANTS[name], grid=37)
        for name in ("small", "base")
    },
}
_SWIN = {f"swin_{name}": config for name, config in SWIN_VARIANTS.items()}
_PLAIN = {f"vit_{name}": config for name, config in PLAIN_VIT_VARIANTS.items()}


def _regions(**entries: int) -> dict[str, Regions]:
    return {
        **{n: ViTCoMerRegionConfig(**{**asdict(c), **entries}) for n, c in _COMER.items()},
        **{n: SwinRegionConfig(**{**asdict(c), **entries}) for n, c in _SWIN.items()},
        **{n: PlainViTRegionConfig(**{**asdict(c), **entries}) for n, c in _PLAIN.items()},
    }


def _dense(**entries: int) -> dict[str, Dense]:
    return {
        **{n: ViTCoMerDenseConfig(**{**asdict(c), **entries}) for n, c in _COMER.items()},
        **{n: SwinDenseConfig(**{**asdict(c), **entries}) for n, c in _SWIN.items()},
        **{n: PlainViTDenseConfig(**{**asdict(c), **entries}) for n, c in _PLAIN.items()},
    }


MASK_RCNN_VARIANTS = _regions()
CASCADE_VARIANTS = _regions(cascade=True, box_convs=4, box_fcs=1)
ATSS_VARIANTS = _dense()
GFL_VARIANTS = _dense(bins=16)


def region_detector(config: Regions) -> RegionDetector:
    """Mask R-CNN or Cascade Mask R-CNN."""
    return RegionDetector(_backbone(config), config)


def dense_detector(config: Dense) -> DenseDetector:
    """ATSS or GFL."""
    return DenseDetector(_backbone(config), config)


def _backbone(config: ViTCoMerConfig | SwinConfig | PlainViTConfig) -> nn.Module:
    if isinstance(config, ViTCoMerConfig):
        return ViTCoMer(config)
    if isinstance(config, SwinConfig):
        return SwinTransformer(config)
    return PlainViT(config)
