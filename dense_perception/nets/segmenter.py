"""Segmenter: a transformer for semantic segmentation (Strudel 2021, arXiv:2105.05633).

A vision transformer encodes the patches (section 3.1); a linear layer or a mask transformer
(section 3.2) gives each patch a score per class; the scores are upsampled to pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.core.errors import InputError
from dense_perception.nets.vit import TransformerBlock, VisionTransformer

# Segmenter's own transformer keeps PyTorch's default epsilon, unlike the ViT it starts from.
LAYER_NORM_EPS = 1e-5
HEAD_CHANNELS = 64
DECODERS = ("linear", "mask")
SCORE_NORMS = ("layer", "scale")


@dataclass(frozen=True)
class SegmenterConfig:
    """The hyperparameters; ``height`` and ``width`` are the network's size (one window) in pixels.

    ``decoder_layers`` is ignored by the linear decoder. ``drop_path`` is the last block's rate of
    stochastic depth. ``beit`` makes the encoder BEiT's: relative positions and scaled layers. With
    two classes the mask decoder's LayerNorm leaves of two scores nothing but which one is larger,
    and hardly a gradient: ``score_norm`` "scale" replaces it by a learned factor per class.
    """

    height: int = 512
    width: int = 512
    patch: int = 16
    dim: int = 384
    heads: int = 6
    layers: int = 12
    distilled: bool = False
    decoder: str = "mask"
    decoder_layers: int = 2
    classes: int = 150
    drop_path: float = 0.0
    beit: bool = False
    score_norm: str = "layer"

    def __post_init__(self) -> None:
        if self.decoder not in DECODERS:
            raise InputError(f"decoder is {self.decoder!r}, expected one of {list(DECODERS)}")
        if self.score_norm not in SCORE_NORMS:
            raise InputError(
                f"score_norm is {self.score_norm!r}, expected one of {list(SCORE_NORMS)}"
            )
        for name in ("height", "width", "patch", "dim", "heads", "layers", "classes"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.decoder == "mask" and (self.dim % HEAD_CHANNELS or self.decoder_layers < 1):
            raise InputError(
                f"dim is {self.dim} and decoder_layers is {self.decoder_layers}, the mask decoder "
                f"needs a multiple of {HEAD_CHANNELS} and at least one layer"
            )


# Table 1 of the paper; base_deit is "B-dagger", DeiT's distilled ViT-B.
VARIANTS: Mapping[str, SegmenterConfig] = {
    "tiny": SegmenterConfig(dim=192, heads=3),
    "small": SegmenterConfig(),
    "base": SegmenterConfig(dim=768, heads=12),
    "base_patch8": SegmenterConfig(dim=768, heads=12, patch=8),
    "base_deit": SegmenterConfig(dim=768, heads=12, distilled=True),
    "large": SegmenterConfig(dim=1024, heads=16, layers=24),
}


class LinearDecoder(nn.Module):
    """(B, N, C) patch tokens to (B, N, classes) scores by one linear layer (section 3.2)."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(dim, classes)

    def forward(self, tokens_bnc: Tensor) -> Tensor:
        return self.head(tokens_bnc)


class ScoreScale(nn.Module):
    """Cosine similarities, -1 to 1, times a learned factor per class: 10 at first."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.factor_k = nn.Parameter(torch.full((classes,), 10.0))

    def forward(self, scores_bnk: Tensor) -> Tensor:
        return scores_bnk * self.factor_k


def score_norm_of(weights: Mapping[str, Tensor], classes: int) -> str | None:
    """Which of :data:`SCORE_NORMS` a mask decoder of so many classes was trained with.

    None where the tensors are another network's. Files from before there was a choice have a
    LayerNorm.
    """
    for norm, name in (("layer", "weight"), ("scale", "factor_k")):
        tensor = weights.get(f"decoder.mask_norm.{name}")
        if tensor is not None and tensor.shape == (classes,):
            return norm
    return None


class MaskDecoder(nn.Module):
    """(B, N, C) patch tokens to (B, N, classes) scores by a mask transformer (section 3.2).

    Learned class embeddings go through the blocks together with the patches; the scores are cosine
    similarities of projected patches and classes, normalised over the classes.
    """

    def __init__(self, dim: int, layers: int, classes: int, score_norm: str = "layer") -> None:
        super().__init__()
        self.classes = classes
        self.embed = nn.Linear(dim, dim)
        self.class_embeddings_1kc = nn.Parameter(torch.zeros(1, classes, dim))
        self.blocks = nn.ModuleList(
            TransformerBlock(dim, dim // HEAD_CHANNELS, eps=LAYER_NORM_EPS) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim, LAYER_NORM_EPS)
        self.patch_projection_cc = nn.Parameter(torch.randn(dim, dim) * dim**-0.5)
        self.class_projection_cc = nn.Parameter(torch.randn(dim, dim) * dim**-0.5)
        self.mask_norm: nn.Module
        if score_norm == "layer":
            self.mask_norm = nn.LayerNorm(classes, LAYER_NORM_EPS)
        else:
            self.mask_norm = ScoreScale(classes)
        nn.init.trunc_normal_(self.class_embeddings_1kc, std=0.02)

    def forward(self, tokens_bnc: Tensor) -> Tensor:
        patches_bnc = self.embed(tokens_bnc)
        # Zero tokens plus the classes: joining them per frame would need the batch's size in the
        # exported graph.
        count = patches_bnc.shape[1]
        both_bmc = F.pad(patches_bnc, (0, 0, 0, self.classes))
        both_bmc = both_bmc + F.pad(self.class_embeddings_1kc, (0, 0, count, 0))
        for block in self.blocks:
            both_bmc = block(both_bmc)
        both_bmc = self.norm(both_bmc)
        patches_bnc = both_bmc[:, : -self.classes] @ self.patch_projection_cc
        classes_bkc = both_bmc[:, -self.classes :] @ self.class_projection_cc
        # The paper's L2 norms have no epsilon.
        patches_bnc = patches_bnc / patches_bnc.norm(dim=-1, keepdim=True)
        classes_bkc = classes_bkc / classes_bkc.norm(dim=-1, keepdim=True)
        return self.mask_norm(patches_bnc @ classes_bkc.transpose(1, 2))


class Segmenter(nn.Module):
    """(N, 3, H, W) normalised RGB to ``{"logits": (N, classes, H, W)}``.

    Sides that are no multiple of the patch are padded with zeros at the right and the bottom, that
    is with gray after the normalisation, and the scores are cropped again. Positions are resized
    bilinearly for another size than the configuration's.
    """

    needs_focal = False
    depth_kind = None

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = self.encoder_of(config)
        self.decoder: nn.Module
        if config.decoder == "linear":
            self.decoder = LinearDecoder(config.dim, config.classes)
        else:
            self.decoder = MaskDecoder(
                config.dim, config.decoder_layers, config.classes, config.score_norm
            )

    @staticmethod
    def encoder_of(config: SegmenterConfig) -> VisionTransformer:
        """The vision transformer of a configuration."""
        patch = config.patch
        return VisionTransformer(
            channels_in=3,
            dim=config.dim,
            heads=config.heads,
            taps=(config.layers - 1,),
            grid_hw=(-(-config.height // patch), -(-config.width // patch)),
            patch=patch,
            eps=LAYER_NORM_EPS,
            distilled=config.distilled,
            final_norm=True,
            drop_path=config.drop_path,
            layer_scale=config.beit,
            relative_positions=config.beit,
        )

    def scores(self, image_nchw: Tensor) -> Tensor:
        """The scores per patch, (N, classes, rows, columns), of the padded image."""
        height, width = image_nchw.shape[-2:]
        pad_h, pad_w = -height % self.config.patch, -width % self.config.patch
        if pad_h or pad_w:
            image_nchw = F.pad(image_nchw, (0, pad_w, 0, pad_h))
        (tokens_bnc,), grid_hw = self.encoder(image_nchw)
        scores_bnk = self.decoder(tokens_bnc[:, self.encoder.prefix :])
        return scores_bnk.transpose(1, 2).unflatten(2, grid_hw)

    def maps(self, image_nchw: Tensor) -> dict[str, Tensor]:
        """What the losses compare: ``segmentation``, the logits."""
        return {"segmentation": self(image_nchw)["logits"]}

    def forward(self, image_nchw: Tensor) -> dict[str, Tensor]:
        height, width = image_nchw.shape[-2:]
        scores_bkhw = self.scores(image_nchw)
        rows, columns = scores_bkhw.shape[-2:]
        size_hw = (rows * self.config.patch, columns * self.config.patch)
        logits_bkhw = F.interpolate(scores_bkhw, size=size_hw, mode="bilinear")
        return {"logits": logits_bkhw[..., :height, :width]}
