"""Which box is to learn which thing, and which of all boxes take part.

An assignment is (A,) int64: the row of the thing, :data:`BACKGROUND` or :data:`NEITHER`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dense_perception.nets.detection.boxes import iou_matrix

BACKGROUND, NEITHER = -1, -2
NEAREST = 9
"""Candidates of ATSS for each thing and level."""

_LEAST_INSIDE = 0.01  # pixels


def assign_by_overlap(
    boxes_a4: Tensor,
    things_k4: Tensor,
    positive: float,
    negative: float,
    rescued: float | None = None,
) -> Tensor:
    """By the largest IoU of each box (Ren 2015, section 3.1.2).

    From ``positive`` on a box learns its thing, below ``negative`` it is background, between them
    neither. With ``rescued`` the boxes that overlap a thing most learn it, if by that much or more;
    of two such things, the later one.
    """
    assigned_a = boxes_a4.new_full((len(boxes_a4),), BACKGROUND, dtype=torch.int64)
    if not len(things_k4):
        return assigned_a
    iou_ak = iou_matrix(boxes_a4, things_k4)
    most_a, thing_a = iou_ak.max(dim=1)
    assigned_a[most_a >= negative] = NEITHER
    assigned_a = torch.where(most_a >= positive, thing_a, assigned_a)
    if rescued is not None:
        best_k = iou_ak.amax(dim=0)
        is_best = (iou_ak == best_k) & (best_k >= rescued)
        row_k = torch.arange(1, len(things_k4) + 1, device=iou_ak.device)
        latest_a = (is_best.to(torch.int64) * row_k).amax(dim=1)
        assigned_a = torch.where(latest_a > 0, latest_a - 1, assigned_a)
    return assigned_a


def assign_adaptively(
    levels: Sequence[Tensor], things_k4: Tensor, nearest: int = NEAREST
) -> Tensor:
    """Adaptive training sample selection (Zhang 2020, arXiv:1912.02424, algorithm 1).

    Of each level the anchors whose centres are ``nearest`` to the thing's are candidates. Those
    learn it that overlap it by the mean and deviation of all candidates or more, and whose centre
    lies inside. One for several things learns that which it overlaps most.

    :param levels: anchors (A_i, 4) of each level; the answer is for all, one behind the other.
    """
    anchors_a4 = torch.cat(list(levels))
    count = len(anchors_a4)
    assigned_a = anchors_a4.new_full((count,), BACKGROUND, dtype=torch.int64)
    if not len(things_k4):
        return assigned_a
    centre_a2 = (anchors_a4[:, :2] + anchors_a4[:, 2:]) / 2
    centre_k2 = (things_k4[:, :2] + things_k4[:, 2:]) / 2
    distance_ka = torch.cdist(centre_k2, centre_a2)
    candidates, start = [], 0
    for level_a4 in levels:
        part = distance_ka[:, start : start + len(level_a4)]
        chosen = part.topk(min(nearest, len(level_a4)), dim=1, largest=False).indices
        candidates.append(chosen + start)
        start += len(level_a4)
    candidate_kc = torch.cat(candidates, dim=1)
    iou_ka = iou_matrix(things_k4, anchors_a4)
    iou_kc = iou_ka.gather(1, candidate_kc)
    least_k1 = iou_kc.mean(dim=1, keepdim=True) + iou_kc.std(dim=1, keepdim=True)
    centre_kc2 = centre_a2[candidate_kc]
    inside = torch.cat(
        [centre_kc2 - things_k4[:, None, :2], things_k4[:, None, 2:] - centre_kc2], dim=-1
    )
    is_chosen = (iou_kc >= least_k1) & (inside.amin(dim=-1) > _LEAST_INSIDE)
    share_ka = torch.full_like(iou_ka, -1.0)
    share_ka.scatter_(1, candidate_kc, torch.where(is_chosen, iou_kc, -torch.ones_like(iou_kc)))
    most_a, thing_a = share_ka.max(dim=0)
    return torch.where(most_a >= 0, thing_a, assigned_a)


def sample(
    assigned_a: Tensor, count: int, share: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Rows of at most ``count`` boxes: those that learn a thing, at most ``share``, and background.

    Chosen at random.
    """
    positive = _some((assigned_a >= 0).nonzero().flatten(), int(count * share), generator)
    left = count - len(positive)
    return positive, _some((assigned_a == BACKGROUND).nonzero().flatten(), left, generator)


def _some(rows: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    if len(rows) <= count:
        return rows
    order = torch.randperm(len(rows), generator=generator, device="cpu").to(rows.device)
    return rows[order[:count]]
