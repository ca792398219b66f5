"""Mask2Former on Swin and on ViT-CoMer (Cheng 2022, arXiv:2112.01527)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from torch import Tensor, nn

from dense_perception.core.errors import InputError
from dense_perception.nets.mask2former.pixel_decoder import GROUPS, PixelDecoder
from dense_perception.nets.mask2former.transformer_decoder import TransformerDecoder
from dense_perception.nets.query_network import QueryConfig, QueryNetwork, QueryPrediction
from dense_perception.nets.swin import SWIN_VARIANTS, SwinConfig, SwinTransformer
from dense_perception.nets.vit_comer import VIT_COMER_VARIANTS, ViTCoMer, ViTCoMerConfig


@dataclass(frozen=True)
class Mask2FormerConfig(QueryConfig):
    """Both decoders.

    :param channels: of both decoders, with ``attention_heads`` in each attention.
    :param pixel_layers: layers of the pixel decoder, with ``pixel_hidden`` channels in between;
        ``query_layers`` and ``query_hidden`` are the transformer decoder's.
    """

    channels: int = 256
    attention_heads: int = 8
    pixel_layers: int = 6
    pixel_hidden: int = 1024
    query_layers: int = 9
    query_hidden: int = 2048

    def __post_init__(self) -> None:
        QueryConfig.__post_init__(self)
        for name in ("pixel_layers", "query_layers"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.channels % GROUPS or self.channels % self.attention_heads:
            raise InputError(
                f"channels is {self.channels} and attention_heads {self.attention_heads}: expected "
                f"a multiple of {GROUPS} and of the heads"
            )


class Mask2Former(QueryNetwork):
    """A backbone, a pixel decoder and queries.

    ``backbone`` maps (B, 3, H, W) to maps at 1/4, 1/8, 1/16 and 1/32 and says its ``channels``.
    """

    def __init__(self, backbone: nn.Module, config: Mask2FormerConfig) -> None:
        super().__init__(config, stride=4)
        self.backbone = backbone
        widths: Sequence[int] = backbone.channels  # type: ignore[assignment]
        self.pixel_decoder = PixelDecoder(
            widths,
            config.channels,
            config.attention_heads,
            config.pixel_layers,
            config.pixel_hidden,
        )
        self.decoder = TransformerDecoder(
            config.channels,
            config.attention_heads,
            config.query_layers,
            config.query_hidden,
            config.queries,
            config.classes,
        )

    def raw(self, image_nchw: Tensor) -> list[QueryPrediction]:
        """The predictions of the learned queries and after each layer."""
        return self.decoder(*self.pixel_decoder(self.backbone(image_nchw)))


@dataclass(frozen=True)
class SwinMask2FormerConfig(SwinConfig, Mask2FormerConfig):
    """Mask2Former on Swin."""

    def __post_init__(self) -> None:
        SwinConfig.__post_init__(self)
        Mask2FormerConfig.__post_init__(self)


@dataclass(frozen=True)
class ViTCoMerMask2FormerConfig(ViTCoMerConfig, Mask2FormerConfig):
    """Mask2Former on ViT-CoMer."""

    def __post_init__(self) -> None:
        ViTCoMerConfig.__post_init__(self)
        Mask2FormerConfig.__post_init__(self)


_SWIN_ENTRIES: Mapping[str, Mapping[str, int]] = {
    # The authors' Swin-B and Swin-L are pretrained at 384 pixels, with larger windows.
    "base": {"window": 12},
    "large": {"window": 12, "queries": 200},
}
_VIT_COMER_ENTRIES: Mapping[str, Mapping[str, int]] = {
    # ViT-CoMer's authors widen both decoders with the backbone.
    "large": {
        "channels": 1024,
        "attention_heads": 32,
        "pixel_hidden": 4096,
        "query_hidden": 4096,
        "queries": 200,
    },
}
VARIANTS: Mapping[str, SwinMask2FormerConfig | ViTCoMerMask2FormerConfig] = {
    **{
        f"swin_{name}": SwinMask2FormerConfig(**{**asdict(config), **_SWIN_ENTRIES.get(name, {})})
        for name, config in SWIN_VARIANTS.items()
    },
    **{
        f"vit_comer_{name}": ViTCoMerMask2FormerConfig(
            **{**asdict(config), **_VIT_COMER_ENTRIES.get(name, {})}
        )
        for name, config in VIT_COMER_VARIANTS.items()
    },
}


def mask2former(config: SwinMask2FormerConfig | ViTCoMerMask2FormerConfig) -> Mask2Former:
    """Mask2Former on the backbone that the configuration is of."""
    if isinstance(config, SwinMask2FormerConfig):
        return Mask2Former(SwinTransformer(config), config)
    return Mask2Former(ViTCoMer(config), config)
