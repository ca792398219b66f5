"""Baseline JPEG without its entropy coding: what compression does to pixels, in batches of tensors.

ITU-T T.81 with the tables of its annex K, scaled by a quality as libjpeg does, and chroma at half
of the size (4:2:0). Differs from libjpeg's integer arithmetic by a level or two.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
# Annex K's chroma table is this corner and 99 elsewhere.
_CHROMA = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))
_TO_YCC = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


def quantisation(quality: int) -> Tensor:
    """(2, 8, 8) float32: the steps of luma and chroma at ``quality`` 1 to 100."""
    luma = torch.tensor(_LUMA)
    chroma = torch.full((8, 8), 99)
    chroma[:4, :4] = torch.tensor(_CHROMA)
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return ((torch.stack([luma, chroma]) * scale + 50) // 100).clamp(1, 255).float()


def compressed(rgb_nchw: Tensor, tables_n288: Tensor) -> Tensor:
    """(N, 3, H, W) levels as they come back from a file with these tables of each picture."""
    height, width = rgb_nchw.shape[2:]
    padded = F.pad(rgb_nchw, (0, -width % 16, 0, -height % 16), mode="replicate")
    to_ycc, to_rgb, cosine = _matrices(rgb_nchw.device)
    ycc = (to_ycc @ padded.flatten(2)).view_as(padded)
    # Luma around 128, chroma around 0.
    luma = _quantised(ycc[:, :1].round() - 128, tables_n288[:, 0], cosine) + 128
    chroma = F.avg_pool2d(ycc[:, 1:].round(), 2).round()
    chroma = _quantised(chroma, tables_n288[:, 1], cosine)
    chroma = chroma.round().clamp(-128, 127)
    # The weights 3/4 and 1/4 of this interpolation are those of libjpeg's "fancy upsampling".
    chroma = F.interpolate(chroma, scale_factor=2.0, mode="bilinear", align_corners=False)
    ycc = torch.cat([luma.round().clamp(0, 255), chroma], dim=1)
    return (to_rgb @ ycc.flatten(2)).view_as(ycc)[..., :height, :width]


def _quantised(plane_nchw: Tensor, table_n88: Tensor, cosine: Tensor) -> Tensor:
    """Through the cosine transform of 8x8 blocks, whole steps of the table, and back."""
    count, channels, height, width = plane_nchw.shape
    blocks = plane_nchw.view(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    steps = table_n88[:, None, None, None]
    whole = (cosine @ blocks @ cosine.T / steps).round() * steps
    return (cosine.T @ whole @ cosine).transpose(3, 4).reshape(plane_nchw.shape)


@lru_cache
@torch.inference_mode(False)
def _matrices(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """To luma and chroma, back, and the cosine transform: (frequency, sample).

    Made once: to put numbers of Python on a GPU makes the host wait for it.
    """
    at = torch.arange(8, dtype=torch.float32)
    cosine = torch.cos((2 * at + 1) * at[:, None] * (math.pi / 16)) / 2
    cosine[0] = math.sqrt(1 / 8)
    return torch.tensor(_TO_YCC).to(device), torch.tensor(_TO_RGB).to(device), cosine.to(device)
