"""What :mod:`dense_perception.data.views` does, in batches of tensors on the training device.

Sources of different sizes lie in one array, each in its upper left corner. ``size_n2`` (N, 2) are
their widths and heights, ``to_source_n23`` (N, 2, 3) are those matrices of
:func:`~dense_perception.data.views.affine` that lead from a view's pixels to its source's.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_FINE = 2


def cut_colours(
    rgb_nchw: Tensor, size_n2: Tensor, to_source_n23: Tensor, width: int, height: int
) -> Tensor:
    """(N, 3, H, W) float32 whole levels, averaged over 2x2 sub-pixels; borders are repeated."""
    xy_nhw2 = _coordinates(size_n2, to_source_n23, width, height, _FINE)
    # To -1 to 1 by numbers of Python: to put them on a GPU would make the host wait for it.
    x, y = xy_nhw2.unbind(-1)
    grid_nhw2 = torch.stack(
        [2 * x / max(rgb_nchw.shape[3] - 1, 1) - 1, 2 * y / max(rgb_nchw.shape[2] - 1, 1) - 1],
        dim=-1,
    )
    fine_nchw = F.grid_sample(rgb_nchw.float(), grid_nhw2, mode="bilinear", align_corners=True)
    return F.avg_pool2d(fine_nchw.round(), _FINE).round()


def nearest(
    source_nhw: Tensor, size_n2: Tensor, to_source_n23: Tensor, width: int, height: int
) -> Tensor:
    """(N, H, W) int64: where each pixel's nearest one is among the source's H * W.

    What :func:`cut_nearest` takes: depth, labels and normals come from the same pixels.
    """
    xy_nhw2 = _coordinates(size_n2, to_source_n23, width, height, 1)
    x, y = (xy_nhw2 + 0.5).floor().long().unbind(-1)
    return y * source_nhw.shape[2] + x


def cut_nearest(source_nhwc: Tensor, index_nhw: Tensor) -> Tensor:
    """A map (N, H, W) or (N, H, W, C) at the pixels of ``index_nhw``; never a mean of two."""
    rows = torch.arange(len(source_nhwc), device=source_nhwc.device)[:, None, None]
    return source_nhwc.flatten(1, 2)[rows, index_nhw]


def _coordinates(
    size_n2: Tensor, to_source_n23: Tensor, width: int, height: int, fine: int
) -> Tensor:
    """(N, H * fine, W * fine, 2): x and y in source pixels, within the source."""
    u, v = (
        (torch.arange(side * fine, device=size_n2.device) + 0.5) / fine - 0.5
        for side in (width, height)
    )
    ones = torch.ones((), device=size_n2.device)
    pixels_hw3 = torch.stack(torch.broadcast_tensors(u, v[:, None], ones), dim=-1)
    # Not a matrix product, which a GPU may round to 10 bits.
    xy_nhw2 = (pixels_hw3[None, :, :, None] * to_source_n23[:, None, None]).sum(-1)
    return xy_nhw2.clamp(min=0).minimum(size_n2[:, None, None] - 1)
