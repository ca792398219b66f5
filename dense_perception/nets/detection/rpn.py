"""The region proposal network (Ren 2015, arXiv:1506.01497) on a feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.nets.detection.anchors import anchors
from dense_perception.nets.detection.boxes import clip, decode_offsets
from dense_perception.nets.detection.nms import best, pad_rows, pick, suppress

STRIDES = (4, 8, 16, 32, 64)
SCALE = 8.0
RATIOS = (0.5, 1.0, 2.0)


class Proposed(NamedTuple):
    """What the head says of every anchor of each level: (N, A_i), (N, A_i, 4) and (A_i, 4)."""

    logits: list[Tensor]
    offsets: list[Tensor]
    anchors: list[Tensor]


class RPNHead(nn.Module):
    """For each anchor whether there is something, and where: one head for all levels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.classify = nn.Conv2d(channels, len(RATIOS), 1)
        self.regress = nn.Conv2d(channels, 4 * len(RATIOS), 1)
        for convolution in (self.conv, self.classify, self.regress):
            nn.init.normal_(convolution.weight, std=0.01)
            assert convolution.bias is not None
            nn.init.zeros_(convolution.bias)

    def forward(self, maps: Sequence[Tensor]) -> Proposed:
        found = Proposed([], [], [])
        for stride, map_nchw in zip(STRIDES, maps, strict=True):
            seen_nchw = F.relu(self.conv(map_nchw))
            found.logits.append(self.classify(seen_nchw).permute(0, 2, 3, 1).flatten(1))
            offsets_nhwc = self.regress(seen_nchw).permute(0, 2, 3, 1)
            found.offsets.append(offsets_nhwc.flatten(1).unflatten(1, (-1, 4)))
            size_hw = (map_nchw.shape[2], map_nchw.shape[3])
            found.anchors.append(anchors(size_hw, stride, SCALE, RATIOS, map_nchw))
        return found


def propose(
    proposed: Proposed, size_hw: Sequence[int], count: int, per_level: int, overlap: float = 0.7
) -> tuple[Tensor, Tensor]:
    """The ``count`` best boxes of all levels, (N, count, 4), and which of them are some, bool.

    :param per_level: boxes of a level, the best, that are compared with each other.
    :param overlap: IoU above which the lower one of two boxes of a level falls.
    """
    boxes, logits = [], []
    for logits_na, offsets_na4, anchors_a4 in zip(*proposed, strict=True):
        logits_nk, places_nk = best(logits_na, per_level)
        offsets_nk4 = pick(offsets_na4, places_nk)
        anchors_nk4 = anchors_a4.index_select(0, places_nk.flatten()).reshape(offsets_nk4.shape)
        decoded_nk4 = clip(decode_offsets(anchors_nk4, offsets_nk4), size_hw)
        # Rows that fill a level up have no area, so they are none.
        missing = per_level - logits_nk.shape[1]
        boxes.append(F.pad(decoded_nk4, (0, 0, 0, missing)) if missing else decoded_nk4)
        logits.append(pad_rows(logits_nk, per_level))
    # The levels side by side, as frames are.
    boxes_nlk4, logits_nlk = torch.stack(boxes, dim=1), torch.stack(logits, dim=1)
    valid_nlk = (boxes_nlk4[..., 2:] > boxes_nlk4[..., :2]).all(dim=-1)
    kept = suppress(boxes_nlk4.flatten(0, 1), valid_nlk.flatten(0, 1), overlap)
    # A probability is above 0, so 0 is none.
    scores_nk = torch.sigmoid(logits_nlk).flatten(1) * kept.reshape(-1, len(boxes) * per_level).to(
        logits_nlk.dtype
    )
    scores_nr, places_nr = best(scores_nk, count)
    scores_nr, places_nr = pad_rows(scores_nr, count), pad_rows(places_nr, count)
    used_nr = scores_nr > 0
    boxes_nr4 = pick(boxes_nlk4.flatten(1, 2), places_nr)
    return boxes_nr4 * used_nr.unsqueeze(-1).to(boxes_nr4.dtype), used_nr
