"""DPT, the dense prediction transformer (Ranftl 2021, arXiv:2103.13413): depth, segmentation.

Five parts in order: backbone (a ViT, or ResNetV2 + ViT in the hybrid), reassemble, fusion, head,
and for the metric variants the fixed map from the head's inverse depth to metres.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.core.errors import InputError
from dense_perception.core.prediction import DepthKind
from dense_perception.nets import resnetv2
from dense_perception.nets.decoder import SCALES, FusionDecoder, Reassemble, upsample_bilinear
from dense_perception.nets.vit import VisionTransformer

STRIDE = 32


@dataclass(frozen=True)
class DPTConfig:
    """The hyperparameters; ``height`` and ``width`` are what the position table is stored for.

    :param taps: blocks read, shallow to deep: four, or two in the hybrid form.
    :param stem_depths: blocks per ResNetV2 stage in the hybrid form; empty for the plain ViT.
    :param channels: of the four reassembled levels, finest first.
    :param scale: with ``shift``, turns the head's output into metres:
        ``1 / max(scale * y + shift, 1e-8)``. 0 leaves the relative inverse depth as it is.
    :param classes: 0 for depth, else a segmentation head of so many classes, and batch norm in the
        fusion.
    :param auxiliary: a second segmentation head on the fusion before the last, for the training
        alone (section 4.2 of the paper).
    """

    height: int = 384
    width: int = 384
    patch: int = 16
    dim: int = 768
    heads: int = 12
    mlp_ratio: float = 4.0
    taps: tuple[int, ...] = (2, 5, 8, 11)
    stem_depths: tuple[int, ...] = ()
    stem_eps: float = 1e-8
    stem_eps_outside: bool = False
    readout: str = "project"
    channels: tuple[int, ...] = (96, 192, 384, 768)
    features: int = 256
    head_hidden: int = 32
    non_negative: bool = True
    scale: float = 0.0
    shift: float = 0.0
    classes: int = 0
    auxiliary: bool = False

    def __post_init__(self) -> None:
        for name, side in (("height", self.height), ("width", self.width)):
            if side < STRIDE or side % STRIDE:
                raise InputError(f"{name} is {side}, expected a multiple of {STRIDE}")
        if self.patch != 16:
            raise InputError(f"patch is {self.patch}, expected 16")
        if self.stem_depths and len(self.stem_depths) != 3:
            raise InputError(f"stem_depths are {list(self.stem_depths)}, expected none or three")
        taps = 2 if self.stem_depths else 4
        if len(self.taps) != taps or len(self.channels) != 4:
            raise InputError(
                f"taps are {list(self.taps)} and channels {list(self.channels)}, expected {taps} "
                "and 4 numbers"
            )
        if self.stem_depths and self.channels[:2] != resnetv2.CHANNELS[:2]:
            raise InputError(
                f"channels are {list(self.channels)}, but the stem gives the first two levels "
                f"{list(resnetv2.CHANNELS[:2])}"
            )
        if self.scale < 0 or (self.scale == 0 and self.shift != 0):
            raise InputError(
                f"scale is {self.scale}, expected a positive number, or 0 and no shift"
            )
        if self.classes < 0 or (self.classes and self.scale):
            raise InputError(
                f"classes is {self.classes} and scale {self.scale}, expected 0 classes for depth, "
                "or some and no scale"
            )
        if self.auxiliary and not self.classes:
            raise InputError("an auxiliary head needs classes: set them, or leave it out")


LARGE = DPTConfig(dim=1024, heads=16, taps=(5, 11, 17, 23), channels=(256, 512, 1024, 1024))
BASE = DPTConfig()
HYBRID = DPTConfig(taps=(8, 11), stem_depths=(3, 4, 9), channels=(256, 512, 768, 768))

VARIANTS: Mapping[str, DPTConfig] = {"large": LARGE, "base": BASE, "hybrid": HYBRID}


class DepthHead(nn.Module):
    """3x3 to half the channels, x2, 3x3 to ``hidden``, ReLU, 1x1 to one (supplement of the paper).

    (B, features, H, W) to (B, 2H, 2W), or to (B, *size_hw).
    """

    def __init__(self, features: int, hidden: int = 32, non_negative: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features // 2, 3, padding=1)
        self.conv2 = nn.Conv2d(features // 2, hidden, 3, padding=1)
        self.conv3 = nn.Conv2d(hidden, 1, 1)
        self.non_negative = non_negative

    def forward(self, x_bchw: Tensor, size_hw: tuple[int, int] | None = None) -> Tensor:
        x_bchw = upsample_bilinear(self.conv1(x_bchw), size_hw, align_corners=True)
        y_bhw = self.conv3(F.relu(self.conv2(x_bchw))).squeeze(1)
        return F.relu(y_bhw) if self.non_negative else y_bhw


class SegmentationHead(nn.Module):
    """3x3 with batch norm and ReLU, dropout, 1x1 to the classes, x2 (supplement of the paper).

    (B, features, H, W) to (B, classes, 2H, 2W).
    """

    def __init__(self, features: int, classes: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(features)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Conv2d(features, classes, 1)

    def forward(self, x_bchw: Tensor) -> Tensor:
        x_bchw = self.dropout(F.relu(self.norm(self.conv(x_bchw))))
        return upsample_bilinear(self.classify(x_bchw), align_corners=True)


class DPT(nn.Module):
    """(N, 3, H, W) normalised RGB, H and W multiples of 32, to depth or logits of that size."""

    needs_focal = False

    def __init__(self, config: DPTConfig) -> None:
        super().__init__()
        self.config = config
        hybrid = bool(config.stem_depths)
        self.stem = (
            resnetv2.ResNetV2(config.stem_depths, config.stem_eps, config.stem_eps_outside)
            if hybrid
            else None
        )
        self.transformer = VisionTransformer(
            channels_in=resnetv2.CHANNELS[-1] if hybrid else 3,
            dim=config.dim,
            heads=config.heads,
            taps=config.taps,
            grid_hw=(config.height // config.patch, config.width // config.patch),
            patch=1 if hybrid else config.patch,
            mlp_ratio=config.mlp_ratio,
        )
        # In the hybrid the two finest levels are the stem's maps as they are (section 4.1).
        first = 2 if hybrid else 0
        self.reassemble = nn.ModuleList(
            Reassemble(config.dim, channels, scale, config.readout)
            for channels, scale in zip(config.channels[first:], SCALES[first:], strict=True)
        )
        self.decoder = FusionDecoder(
            config.channels, config.features, batch_norm=bool(config.classes)
        )
        self.head: nn.Module
        if config.classes:
            self.head = SegmentationHead(config.features, config.classes)
        else:
            self.head = DepthHead(config.features, config.head_hidden, config.non_negative)
        self.auxiliary = None
        if config.auxiliary:
            self.auxiliary = SegmentationHead(config.features, config.classes)

    @property
    def depth_kind(self) -> DepthKind | None:
        """None for a segmentation network."""
        if self.config.classes:
            return None
        return DepthKind.METRIC if self.config.scale else DepthKind.RELATIVE_INVERSE

    def features(self, image_nchw: Tensor) -> Tensor:
        """The decoder's output: (N, features, H / 2, W / 2).

        :raises InputError: if H or W is not a multiple of 32.
        """
        return self.decoder(self._reassembled(image_nchw))

    def maps(self, image_nchw: Tensor) -> dict[str, Tensor]:
        """What the losses compare.

        ``segmentation``, with an auxiliary head in training mode ``auxiliary`` too: logits at the
        image's size and at half of it. Or ``depth``, the natural logarithm of the metres, or
        ``inverse_depth``: (N, H, W).
        """
        if self.config.classes:
            *_, penultimate_bchw, last_bchw = self.decoder.levels(self._reassembled(image_nchw))
            found = {"segmentation": self.head(last_bchw)}
            if self.auxiliary is not None and self.training:
                found["auxiliary"] = self.auxiliary(penultimate_bchw)
            return found
        inverse_nhw = self.head(self.features(image_nchw))
        if not self.config.scale:
            return {"inverse_depth": inverse_nhw}
        return {"depth": -self._metric(inverse_nhw).log()}

    def _metric(self, inverse_nhw: Tensor) -> Tensor:
        """The head's output to 1 / metres."""
        return (self.config.scale * inverse_nhw + self.config.shift).clamp(min=1e-8)

    def _reassembled(self, image_nchw: Tensor) -> list[Tensor]:
        """The four maps that the decoder takes, finest first."""
        height, width = image_nchw.shape[-2:]
        if height % STRIDE or width % STRIDE:
            raise InputError(
                f"image is {width}x{height}, expected multiples of {STRIDE}: resize it to "
                f"{self.config.width}x{self.config.height}"
            )
        maps: list[Tensor] = []
        if self.stem is not None:
            *maps, image_nchw = self.stem(image_nchw)
        tapped, grid_hw = self.transformer(image_nchw)
        for level, tokens_bnc in zip(self.reassemble, tapped, strict=True):
            maps.append(level(tokens_bnc, grid_hw))
        return maps

    def forward(self, image_nchw: Tensor) -> dict[str, Tensor]:
        """``{"depth": (N, H, W)}``, metres or inverse depth up to scale and shift; or logits.

        With classes it is ``{"logits": (N, classes, H, W)}``.
        """
        if self.config.classes:
            return {"logits": self.head(self.features(image_nchw))}
        inverse_nhw = self.head(self.features(image_nchw))
        if not self.config.scale:
            return {"depth": inverse_nhw}
        return {"depth": 1 / self._metric(inverse_nhw)}
