"""The published pairs of a backbone and UperNet's head, each with one flat configuration."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from dense_perception.nets.comer_config import (
    VIT_COMER_VARIANTS,
    X_COMER_VARIANTS,
    ViTCoMerConfig,
    XCoMerConfig,
)
from dense_perception.nets.swin import SWIN_VARIANTS, SwinConfig, SwinTransformer
from dense_perception.nets.upernet import UperNet, UperNetConfig
from dense_perception.nets.vit_comer import ViTCoMer, XCoMer


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
