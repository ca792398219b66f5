"""Which query answers for which segment: bipartite matching (Carion 2020, arXiv:2005.12872, 3.1).

The costs are Mask2Former's (arXiv:2112.01527, section 3.1.1), on a few sampled points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dense_perception.core.errors import TrainingError


@dataclass(frozen=True)
class MatchingWeights:
    """How much each cost counts; the losses have the same weights."""

    classes: float = 2.0
    mask: float = 5.0
    dice: float = 5.0


@torch.no_grad()
def segment_costs(
    class_logits_qk: Tensor,
    point_logits_qp: Tensor,
    classes_m: Tensor,
    points_mp: Tensor,
    weights: MatchingWeights,
    known_p: Tensor | None = None,
) -> Tensor:
    """(Q, M): what it costs that query q answers for segment m.

    :param class_logits_qk: (Q, classes + 1), the last for "no object".
    :param point_logits_qp: the queries' mask logits at P points.
    :param classes_m: the segments' classes, int64.
    :param points_mp: the segments' masks at the same points, 0 to 1.
    :param known_p: 1 at points that count, 0 at the others; None for all.
    """
    probability_qk = class_logits_qk.softmax(dim=1)
    if known_p is None:
        known_p = torch.ones_like(point_logits_qp[0])
    counted_mp, rest_mp = points_mp * known_p, (1 - points_mp) * known_p
    # Of each query against each segment: the mean of what binary cross entropy is for 1 and for 0.
    entropy_qm = (
        F.softplus(-point_logits_qp) @ counted_mp.T + F.softplus(point_logits_qp) @ rest_mp.T
    ) / known_p.sum().clamp(min=1)
    inside_qp = point_logits_qp.sigmoid() * known_p
    both_qm = 2 * inside_qp @ counted_mp.T
    total_qm = inside_qp.sum(1)[:, None] + counted_mp.sum(1)[None]
    dice_qm = 1 - (both_qm + 1) / (total_qm + 1)
    return (
        -weights.classes * probability_qk[:, classes_m]
        + weights.mask * entropy_qm
        + weights.dice * dice_qm
    )


def match(cost_qm: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs of least total cost, each query and each segment at most once: two int64 (k,).

    Costs that are not finite count as very high.

    :raises TrainingError: if SciPy is not installed.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise TrainingError(
            "training a network of queries needs SciPy: pip install 'dense_perception[train]'"
        ) from error
    cost = np.nan_to_num(cost_qm.cpu().double().numpy(), nan=1e9, posinf=1e9, neginf=-1e9)
    queries, segments = linear_sum_assignment(cost)
    return (
        torch.from_numpy(queries).to(cost_qm.device),
        torch.from_numpy(segments).to(cost_qm.device),
    )
