"""Mask2Former on Swin and on ViT-CoMer (Cheng 2022, arXiv:2112.01527)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from torch import Tensor, nn

from dense_perception.core.errors import InputError
from dense_perception.nets.mask2former import merging
from dense_perception.nets.mask2former.pixel_decoder import GROUPS, PixelDecoder
from dense_perception.nets.mask2former.transformer_decoder import (
    QueryPrediction,
    TransformerDecoder,
)
from dense_perception.nets.swin import SWIN_VARIANTS, SwinConfig, SwinTransformer
from dense_perception.nets.vit_comer import VIT_COMER_VARIANTS, ViTCoMer, ViTCoMerConfig

# What a card's `predicts` may say, and the tasks that it stands for.
PREDICTS: Mapping[str, tuple[str, ...]] = {
    "semantic": ("segmentation",),
    "instance": ("instances",),
    "panoptic": ("segmentation", "instances"),
}


@dataclass(frozen=True)
class Mask2FormerConfig:
    """Both decoders, and how their answer is merged.

    :param predicts: ``semantic``, ``instance`` or ``panoptic``.
    :param classes: all that are told apart, without "no object".
    :param thing_classes: of a panoptic network, the classes of things; the others are stuff.
        ``box_classes`` are indices into them.
    :param count: rows in the list of instances.
    :param channels: of both decoders, with ``attention_heads`` in each attention.
    :param pixel_layers: layers of the pixel decoder, with ``pixel_hidden`` channels in between;
        ``query_layers`` and ``query_hidden`` are the transformer decoder's.
    :param instance_threshold: the score that an instance has at least; the authors keep all.
    :param panoptic_threshold: what the class probability of a segment exceeds.
    :param overlap_threshold: the part of its mask that a panoptic segment wins at least.
    """

    predicts: str = "panoptic"
    classes: int = 133
    thing_classes: tuple[int, ...] = tuple(range(80))
    count: int = 100
    channels: int = 256
    attention_heads: int = 8
    queries: int = 100
    pixel_layers: int = 6
    pixel_hidden: int = 1024
    query_layers: int = 9
    query_hidden: int = 2048
    instance_threshold: float = 0.0
    panoptic_threshold: float = 0.8
    overlap_threshold: float = 0.8

    def __post_init__(self) -> None:
        if self.predicts not in PREDICTS:
            raise InputError(f"predicts is {self.predicts!r}, expected one of {list(PREDICTS)}")
        for name in ("classes", "count", "queries", "pixel_layers", "query_layers"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.channels % GROUPS or self.channels % self.attention_heads:
            raise InputError(
                f"channels is {self.channels} and attention_heads {self.attention_heads}: expected "
                f"a multiple of {GROUPS} and of the heads"
            )
        most = {
            "semantic": self.count,
            "instance": self.queries * self.classes,
            "panoptic": self.queries,
        }[self.predicts]
        if self.count > most:
            raise InputError(
                f"count is {self.count}, expected at most {most} with {self.queries} queries and "
                f"{self.classes} classes"
            )
        if self.predicts == "panoptic" and (
            len(set(self.thing_classes)) != len(self.thing_classes)
            or not all(0 <= thing < self.classes for thing in self.thing_classes)
        ):
            raise InputError(
                f"thing_classes is {list(self.thing_classes)}, expected different ones below "
                f"{self.classes}"
            )

    @property
    def tasks(self) -> tuple[str, ...]:
        """What is predicted, in the words of training and export."""
        return PREDICTS[self.predicts]

    @property
    def things(self) -> int:
        """How many classes of things are told apart."""
        return len(self.thing_classes) if self.predicts == "panoptic" else self.classes


class Mask2Former(nn.Module):
    """A backbone, a pixel decoder and queries.

    ``backbone`` maps (B, 3, H, W) to maps at 1/4, 1/8, 1/16 and 1/32 and says its ``channels``.
    """

    needs_focal = False
    depth_kind = None

    def __init__(self, backbone: nn.Module, config: Mask2FormerConfig) -> None:
        super().__init__()
        self.config = config
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
        """What the losses compare: the predictions of the learned queries and after each layer."""
        return self.decoder(*self.pixel_decoder(self.backbone(image_nchw)))

    def forward(self, image_nchw: Tensor) -> dict[str, Tensor]:
        """The task's entries at the image's size: see :mod:`.merging`."""
        config = self.config
        last = self.raw(image_nchw)[-1]
        classes_bqk = last.class_logits_bqk
        masks_bqhw = merging.enlarge(
            last.mask_logits_bqhw, (image_nchw.shape[2], image_nchw.shape[3])
        )
        if config.predicts == "semantic":
            return merging.semantic(classes_bqk, masks_bqhw)
        if config.predicts == "instance":
            return merging.instances(
                classes_bqk, masks_bqhw, config.count, config.instance_threshold
            )
        return merging.panoptic(
            classes_bqk,
            masks_bqhw,
            config.count,
            config.panoptic_threshold,
            config.overlap_threshold,
            config.thing_classes,
        )


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
            **asdict(config), **_VIT_COMER_ENTRIES.get(name, {})
        )
        for name, config in VIT_COMER_VARIANTS.items()
    },
}


def mask2former(config: SwinMask2FormerConfig | ViTCoMerMask2FormerConfig) -> Mask2Former:
    """Mask2Former on the backbone that the configuration is of."""
    if isinstance(config, SwinMask2FormerConfig):
        return Mask2Former(SwinTransformer(config), config)
    return Mask2Former(ViTCoMer(config), config)
