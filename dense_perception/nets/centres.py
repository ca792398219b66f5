"""Things found by their centres, without proposals: Panoptic-DeepLab's grouping in a graph.

Cheng 2020 (arXiv:1911.10194), section 3.2: one map says where things have their centres, two more
how far from each pixel the centre of its thing is. Pixels of things go to the nearest centre that
they point to; the class of a thing is what most of its pixels say. Everything has a fixed shape, so
that any runtime can take it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.nets.detection.boxes import boxes_around

OFFSET_PX = 32.0
"""Offsets are in units of so many pixels, so that they are about one."""
# A centre is the highest in a square of so many pixels of the map.
_PEAK = 5
_FAR = 1e6


class Things(NamedTuple):
    """``boxes`` (N, K, 4) x1, y1, x2, y2 in pixels of the image, ``scores`` and ``classes`` (N, K),
    sorted by score; unused rows are 0. ``ids`` (N, H, W) is 0 or the row that a pixel of the map
    belongs to, from 1 on; ``labels`` and ``confidence`` (N, H, W) have the thing's class in all of
    its pixels, and elsewhere the best class.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    ids: Tensor
    labels: Tensor
    confidence: Tensor


class CentreGrouping(nn.Module):
    """From logits, centres and offsets to things.

    :param classes: how many classes the logits have.
    :param stuff: those among them that are no things, such as walls.
    :param count: most things in a picture.
    :param threshold: the least height of a centre.
    """

    def __init__(
        self, classes: int, stuff: Sequence[int], count: int, threshold: float, min_pixels: int
    ) -> None:
        super().__init__()
        things = [index for index in range(classes) if index not in set(stuff)]
        self.classes, self.count = classes, count
        self.threshold, self.min_pixels = threshold, min_pixels
        is_thing = torch.zeros(classes, dtype=torch.bool)
        is_thing[things] = True
        self.register_buffer("things", torch.tensor(things), persistent=False)
        self.register_buffer("is_thing", is_thing, persistent=False)
        self.things: Tensor
        self.is_thing: Tensor

    def forward(self, logits_nkhw: Tensor, centres_n3hw: Tensor, stride: int) -> Things:
        """
        :param centres_n3hw: the height of centres, 0 to 1, and the offsets of rows and columns in
            units of :data:`OFFSET_PX` pixels of the image.
        :param stride: pixels of the image in a pixel of the maps, in each direction.
        """
        count = self.count
        batch, _, height, width = logits_nkhw.shape
        rows_p, columns_p = _grid(height, width, logits_nkhw)
        heights_nk, peaks_nk = self._peaks(centres_n3hw[:, 0])
        peak_rows_nk = torch.div(peaks_nk, width, rounding_mode="floor")
        peak_columns_nk = peaks_nk - peak_rows_nk * width

        offsets_n2p = centres_n3hw[:, 1:].flatten(2) * (OFFSET_PX / stride)
        down_nkp = (rows_p + offsets_n2p[:, 0])[:, None] - peak_rows_nk[..., None]
        right_nkp = (columns_p + offsets_n2p[:, 1])[:, None] - peak_columns_nk[..., None]
        far_nk1 = _FAR * (heights_nk < self.threshold)[..., None]
        nearest_np = (down_nkp.square() + right_nkp.square() + far_nk1).argmin(1)

        probability_ncp = logits_nkhw.softmax(1).flatten(2)
        best_np, label_np = probability_ncp.max(1)
        is_thing_np = self.is_thing[label_np]
        ranks_k = torch.arange(count, device=logits_nkhw.device)
        member_nkp = (nearest_np[:, None] == ranks_k[:, None]) & is_thing_np[:, None]
        member_nkp = member_nkp & (heights_nk >= self.threshold)[..., None]
        member = member_nkp.to(logits_nkhw.dtype)

        size_nk = member.sum(2)
        votes_nkc = torch.matmul(member, probability_ncp.transpose(1, 2))
        share_nk, which_nk = votes_nkc[..., self.things].max(2)
        share_nk = share_nk / size_nk.clamp(min=1)
        known_nk = size_nk >= self.min_pixels
        score_nk = heights_nk.clamp(0, 1) * share_nk * known_nk

        score_nk, order_nk = score_nk.topk(count, dim=1)
        used_nk = score_nk > 0
        which_nk = which_nk.gather(1, order_nk) * used_nk
        member_nkp = member_nkp.gather(1, order_nk[..., None].expand(-1, -1, height * width))
        member_nkp = member_nkp & used_nk[..., None]
        members = member_nkp.to(logits_nkhw.dtype)
        boxes_nk4 = boxes_around(members.view(batch, count, height, width)) * stride

        numbers_k1 = (ranks_k + 1)[:, None].to(logits_nkhw.dtype)
        ids_np = (members * numbers_k1).amax(1)
        class_nk = self.things[which_nk].to(logits_nkhw.dtype)
        voted_np = (members * class_nk[..., None]).sum(1)
        is_member_np = ids_np > 0
        labels_np = torch.where(is_member_np, voted_np, label_np.to(logits_nkhw.dtype))
        chosen_n1p = labels_np.to(torch.int64)[:, None]
        confidence_np = torch.where(
            is_member_np, probability_ncp.gather(1, chosen_n1p)[:, 0], best_np
        )
        shape = (batch, height, width)
        return Things(
            boxes_nk4,
            score_nk,
            which_nk,
            ids_np.view(shape),
            labels_np.view(shape),
            confidence_np.view(shape),
        )

    def _peaks(self, heights_nhw: Tensor) -> tuple[Tensor, Tensor]:
        """Heights and places (in the flattened map) of the highest peaks, (N, K) each."""
        around = F.max_pool2d(heights_nhw[:, None], _PEAK, stride=1, padding=_PEAK // 2)[:, 0]
        peaks_np = torch.where(around == heights_nhw, heights_nhw, 0.0).flatten(1)
        heights_nk, places_nk = peaks_np.topk(self.count, dim=1)
        return heights_nk, places_nk


def _grid(height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of each pixel, flattened."""
    rows = torch.arange(height, device=like.device, dtype=like.dtype)
    columns = torch.arange(width, device=like.device, dtype=like.dtype)
    return rows.repeat_interleave(width), columns.repeat(height)
