"""Non-maximum suppression and selection with results of a fixed size, in matrix operations.

Graphs for cameras have fixed shapes: no output may have as many rows as there happen to be things.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dense_perception.nets.detection.boxes import iou_matrix

ROUNDS = 24
"""Longest chain of boxes, each suppressed by the one before but for the one before that, which is
resolved exactly. Random boxes have chains of about 10 among 1000."""


def suppress(
    boxes_nk4: Tensor,
    valid_nk: Tensor,
    threshold: float,
    groups_nk: Tensor | None = None,
    rounds: int = ROUNDS,
) -> Tensor:
    """Which boxes greedy suppression keeps: (N, K) bool.

    A box falls if one of a higher score that is kept overlaps it by more than ``threshold`` (IoU).
    The kept ones are the fixed point of "no kept box above me overlaps me", which is reached from
    the top: each round makes one more link of every chain final. So the answer is the greedy one
    where K or the longest chain is at most ``rounds``; beyond them a box may be suppressed by one
    that should have fallen itself. Two boxes that overlap are never both kept.

    :param boxes_nk4: by falling score.
    :param valid_nk: bool; the others are neither kept nor suppress.
    :param groups_nk: boxes of different groups (classes, levels) do not suppress each other.
    """
    count = boxes_nk4.shape[1]
    later_kk = torch.ones(count, count, dtype=torch.bool, device=boxes_nk4.device).triu(1)
    falls_nkk = (iou_matrix(boxes_nk4, boxes_nk4) > threshold) & later_kk
    if groups_nk is not None:
        falls_nkk = falls_nkk & (groups_nk.unsqueeze(2) == groups_nk.unsqueeze(1))
    # Products of zeros and ones: every runtime multiplies matrices fast, few reduce booleans so.
    falls = falls_nkk.to(boxes_nk4.dtype)
    valid_n1k = valid_nk.unsqueeze(1).to(boxes_nk4.dtype)
    kept_n1k = valid_n1k
    # The round before the first keeps all. Each round turns an upper bound of what is kept into a
    # lower one and back: the last one has to give a lower one, in which nothing overlaps.
    for _ in range(min(count, rounds) | 1):
        kept_n1k = valid_n1k * (torch.bmm(kept_n1k, falls) < 0.5).to(boxes_nk4.dtype)
    return kept_n1k.squeeze(1) > 0.5


def best(scores_nk: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` highest of each row, falling, and their places; all where K is smaller."""
    return torch.topk(scores_nk, min(count, scores_nk.shape[1]), dim=1)


def pick(values_nkc: Tensor, places_nm: Tensor) -> Tensor:
    """Rows of (N, K, C) by their places (N, M): (N, M, C)."""
    index = places_nm.unsqueeze(-1).expand(-1, -1, values_nkc.shape[-1])
    return values_nkc.gather(1, index)


def pad_rows(values_nm: Tensor, count: int) -> Tensor:
    """Zeros behind (N, M) until there are ``count``."""
    missing = count - values_nm.shape[1]
    return F.pad(values_nm, (0, missing)) if missing > 0 else values_nm
