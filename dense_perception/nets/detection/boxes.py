"""Boxes x1, y1, x2, y2 in pixels, and how networks say them.

Two codings: offsets from a box that is known, scaled by its size (Girshick 2014, arXiv:1311.2524,
appendix C), and distances from a point to the four sides (Tian 2019, arXiv:1904.01355). Pixel i
covers i to i + 1, so the box of a whole image is 0, 0, width, height.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

WIDEST = abs(math.log(16 / 1000))
"""Limit of the log of a size's ratio: a box becomes 62.5 times as wide at most."""

_LEAST_AREA = 1e-6


def area(boxes_4: Tensor) -> Tensor:
    """(..., 4) to (...): square pixels, 0 for a box that is turned inside out."""
    sides = (boxes_4[..., 2:] - boxes_4[..., :2]).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def iou_matrix(one_n4: Tensor, other_m4: Tensor) -> Tensor:
    """Intersection over union of every pair: (..., n, 4) and (..., m, 4) to (..., n, m)."""
    first, second = one_n4.unsqueeze(-2), other_m4.unsqueeze(-3)
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    sides = (high - low).clamp(min=0)
    overlap = sides[..., 0] * sides[..., 1]
    union = area(first) + area(second) - overlap
    return overlap / union.clamp(min=_LEAST_AREA)


def iou_pairs(one_4: Tensor, other_4: Tensor) -> Tensor:
    """Intersection over union of boxes one by one: (..., 4) twice to (...)."""
    return iou_matrix(one_4.unsqueeze(-2), other_4.unsqueeze(-2))[..., 0, 0]


def giou_pairs(one_4: Tensor, other_4: Tensor) -> Tensor:
    """Generalised IoU (Rezatofighi 2019, arXiv:1902.09630), -1 to 1, of boxes one by one."""
    low = torch.minimum(one_4[..., :2], other_4[..., :2])
    high = torch.maximum(one_4[..., 2:], other_4[..., 2:])
    hull = area(torch.cat([low, high], dim=-1)).clamp(min=_LEAST_AREA)
    inner_low = torch.maximum(one_4[..., :2], other_4[..., :2])
    inner_high = torch.minimum(one_4[..., 2:], other_4[..., 2:])
    sides = (inner_high - inner_low).clamp(min=0)
    overlap = sides[..., 0] * sides[..., 1]
    union = (area(one_4) + area(other_4) - overlap).clamp(min=_LEAST_AREA)
    return overlap / union - (hull - union) / hull


def boxes_around(masks_nkhw: Tensor) -> Tensor:
    """The smallest box around the pixels of each mask, which are 1, others 0: (..., H, W) to
    (..., 4), floats as they come.

    Its sides are the pixels' outer edges: one pixel at column x makes a box from x to x + 1. 0 for
    a mask without a pixel. ``core.boxes.boxes_around`` is the same rule for NumPy.
    """
    sides = []
    for along, other in ((-1, -2), (-2, -1)):
        touched_nkm = masks_nkhw.amax(dim=other)
        length = masks_nkhw.shape[along]
        after_m = torch.arange(1, length + 1, dtype=masks_nkhw.dtype, device=masks_nkhw.device)
        last_nk = (touched_nkm * after_m).amax(dim=-1)
        # From the far side; 0 without any pixel.
        found_nk = (touched_nkm * (length + 1 - after_m)).amax(dim=-1)
        sides += [torch.where(found_nk > 0, length - found_nk, torch.zeros_like(found_nk)), last_nk]
    x1_nk, x2_nk, y1_nk, y2_nk = sides
    return torch.stack([x1_nk, y1_nk, x2_nk, y2_nk], dim=-1)


def clip(boxes_4: Tensor, size_hw: Sequence[int]) -> Tensor:
    """Boxes cut at the border of an image."""
    height, width = size_hw
    x = boxes_4[..., 0::2].clamp(0, width)
    y = boxes_4[..., 1::2].clamp(0, height)
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], dim=-1)


def encode_offsets(
    anchors_4: Tensor, boxes_4: Tensor, deviations: Sequence[float] = (1.0, 1.0, 1.0, 1.0)
) -> Tensor:
    """What takes ``anchors_4`` to ``boxes_4``: shift over size and log of the sizes' ratio.

    :param deviations: what dx, dy, dw and dh are divided by.
    """
    centre, size = _centre_and_size(anchors_4)
    wanted_centre, wanted_size = _centre_and_size(boxes_4)
    offsets_4 = torch.cat([(wanted_centre - centre) / size, (wanted_size / size).log()], dim=-1)
    return offsets_4 / offsets_4.new_tensor(deviations)


def decode_offsets(
    anchors_4: Tensor, offsets_4: Tensor, deviations: Sequence[float] = (1.0, 1.0, 1.0, 1.0)
) -> Tensor:
    """The inverse of :func:`encode_offsets`; sizes change by :data:`WIDEST` at most."""
    centre, size = _centre_and_size(anchors_4)
    offsets_4 = offsets_4 * offsets_4.new_tensor(deviations)
    centre = centre + offsets_4[..., :2] * size
    half = size * offsets_4[..., 2:].clamp(-WIDEST, WIDEST).exp() / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def encode_distances(points_2: Tensor, boxes_4: Tensor) -> Tensor:
    """From points x, y to the left, top, right and bottom side of their boxes."""
    return torch.cat([points_2 - boxes_4[..., :2], boxes_4[..., 2:] - points_2], dim=-1)


def decode_distances(points_2: Tensor, distances_4: Tensor) -> Tensor:
    """The inverse of :func:`encode_distances`."""
    return torch.cat([points_2 - distances_4[..., :2], points_2 + distances_4[..., 2:]], dim=-1)


def _centre_and_size(boxes_4: Tensor) -> tuple[Tensor, Tensor]:
    low, high = boxes_4[..., :2], boxes_4[..., 2:]
    return (low + high) / 2, high - low
