"""Segmenter with object embeddings in place of class embeddings (Strudel 2021, arXiv:2105.05633).

The paper names panoptic segmentation by object embeddings as what its decoder does next, without
details. Here the objects' classes come from a linear layer with "no object", as Mask2Former's do,
and all blocks are supervised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.core.errors import InputError
from dense_perception.nets.query_network import QueryConfig, QueryNetwork, QueryPrediction
from dense_perception.nets.segmenter import (
    HEAD_CHANNELS,
    LAYER_NORM_EPS,
    Segmenter,
    SegmenterConfig,
)
from dense_perception.nets.segmenter import VARIANTS as SEGMENTERS
from dense_perception.nets.vit import TransformerBlock


@dataclass(frozen=True)
class SegmenterObjectsConfig(SegmenterConfig, QueryConfig):
    """Segmenter's encoder and mask decoder; ``queries`` are the objects."""

    def __post_init__(self) -> None:
        SegmenterConfig.__post_init__(self)
        QueryConfig.__post_init__(self)
        if self.decoder != "mask" or self.score_norm != "layer":
            raise InputError(
                f"decoder is {self.decoder!r} and score_norm {self.score_norm!r}, objects have the "
                "mask decoder and no norm over the classes: leave both out"
            )


# The class embeddings' sizes; their own number of classes is that of COCO's panoptic benchmark.
VARIANTS: Mapping[str, SegmenterObjectsConfig] = {
    name: SegmenterObjectsConfig(**{**asdict(config), "classes": 133})
    for name, config in SEGMENTERS.items()
}


class ObjectDecoder(nn.Module):
    """(B, N, C) patch tokens to each object's class and its score per patch, after every block.

    Scores are cosine similarities of projected patches and objects, as in the paper, times a
    learned factor and plus a learned offset, so that they serve as logits.
    """

    def __init__(self, dim: int, layers: int, objects: int, classes: int) -> None:
        super().__init__()
        self.objects = objects
        self.embed = nn.Linear(dim, dim)
        self.object_embeddings_1qc = nn.Parameter(torch.zeros(1, objects, dim))
        self.blocks = nn.ModuleList(
            TransformerBlock(dim, dim // HEAD_CHANNELS, eps=LAYER_NORM_EPS) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim, LAYER_NORM_EPS)
        self.patch_projection_cc = nn.Parameter(torch.randn(dim, dim) * dim**-0.5)
        self.object_projection_cc = nn.Parameter(torch.randn(dim, dim) * dim**-0.5)
        self.factor = nn.Parameter(torch.tensor(10.0))
        self.offset = nn.Parameter(torch.tensor(0.0))
        self.classify = nn.Linear(dim, classes + 1)
        nn.init.trunc_normal_(self.object_embeddings_1qc, std=1.0)

    def forward(self, tokens_bnc: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Class logits (B, Q, classes + 1) and mask logits (B, Q, N) of each block."""
        # Zero tokens plus the objects: joining them per frame would need the batch's size.
        both_bmc = F.pad(self.embed(tokens_bnc), (0, 0, 0, self.objects))
        both_bmc = both_bmc + F.pad(self.object_embeddings_1qc, (0, 0, tokens_bnc.shape[1], 0))
        found = []
        for block in self.blocks:
            both_bmc = block(both_bmc)
            normed_bmc = self.norm(both_bmc)
            patches_bnc = normed_bmc[:, : -self.objects] @ self.patch_projection_cc
            objects_bqc = normed_bmc[:, -self.objects :]
            pointers_bqc = objects_bqc @ self.object_projection_cc
            patches_bnc = patches_bnc / patches_bnc.norm(dim=-1, keepdim=True)
            pointers_bqc = pointers_bqc / pointers_bqc.norm(dim=-1, keepdim=True)
            similarity_bqn = pointers_bqc @ patches_bnc.transpose(1, 2)
            found.append((self.classify(objects_bqc), self.factor * similarity_bqn + self.offset))
        return found


class SegmenterObjects(QueryNetwork):
    """(N, 3, H, W) normalised RGB to the entries of the task: see :class:`QueryNetwork`.

    The encoder is Segmenter's, with the same names: its published weights fit.
    """

    def __init__(self, config: SegmenterObjectsConfig) -> None:
        super().__init__(config, stride=config.patch)
        self.encoder = Segmenter.encoder_of(config)
        self.decoder = ObjectDecoder(
            config.dim, config.decoder_layers, config.queries, config.classes
        )

    def raw(self, image_nchw: Tensor) -> list[QueryPrediction]:
        """The predictions after each block."""
        height, width = image_nchw.shape[-2:]
        pad_h, pad_w = -height % self.stride, -width % self.stride
        if pad_h or pad_w:
            image_nchw = F.pad(image_nchw, (0, pad_w, 0, pad_h))
        (tokens_bnc,), grid_hw = self.encoder(image_nchw)
        return [
            QueryPrediction(classes_bqk, masks_bqn.unflatten(2, grid_hw))
            for classes_bqk, masks_bqn in self.decoder(tokens_bnc[:, self.encoder.prefix :])
        ]
