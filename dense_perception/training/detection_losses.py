"""Losses on single boxes, scores and masks; sums, divided by whoever knows by what."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dense_perception.nets.detection.boxes import giou_pairs, iou_pairs

BETA = 2.0
"""Exponent of the quality focal loss."""


def focal_loss(
    logits_pk: Tensor, classes_p: Tensor, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """The sum of -alpha_t (1 - p_t)^gamma log p_t (Lin 2017, arXiv:1708.02002, equation 5).

    :param classes_p: int64; a number that is no class is background, 0 for every class.
    """
    wanted_pk = _one_hot(classes_p, logits_pk)
    probability_pk = torch.sigmoid(logits_pk)
    missed_pk = torch.where(wanted_pk > 0, 1 - probability_pk, probability_pk)
    weight_pk = torch.where(wanted_pk > 0, alpha, 1 - alpha) * missed_pk**gamma
    each_pk = F.binary_cross_entropy_with_logits(logits_pk, wanted_pk, reduction="none")
    return (weight_pk * each_pk).sum()


def quality_focal_loss(
    logits_pk: Tensor, classes_p: Tensor, quality_p: Tensor, beta: float = BETA
) -> Tensor:
    """The sum of abs(y - p)^beta times binary cross entropy (Li 2020, equation 2).

    :param quality_p: y of the class of each place, 0 to 1; that of the others is 0.
    """
    wanted_pk = _one_hot(classes_p, logits_pk) * quality_p.unsqueeze(1)
    return quality_focal(logits_pk, wanted_pk, beta).sum()


def quality_focal(logits: Tensor, wanted: Tensor, beta: float = BETA) -> Tensor:
    """abs(y - p)^beta times binary cross entropy, y being ``wanted``, 0 to 1; not summed."""
    each = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return (wanted - torch.sigmoid(logits)).abs() ** beta * each


def distribution_focal_loss(logits: Tensor, values: Tensor) -> Tensor:
    """Cross entropy shared between the two whole numbers around each value (Li 2020, equation 6).

    (..., bins + 1) and (...), 0 to below ``bins``; not summed.
    """
    low = values.floor()
    upper = values - low
    log_p = F.log_softmax(logits, dim=-1)
    index = low.to(torch.int64).unsqueeze(-1)
    below, above = (log_p.gather(-1, i).squeeze(-1) for i in (index, index + 1))
    return -(1 - upper) * below - upper * above


def giou_loss(boxes_p4: Tensor, things_p4: Tensor) -> Tensor:
    """1 - GIoU of each pair; not summed."""
    return 1 - giou_pairs(boxes_p4, things_p4)


def smooth_l1_loss(error: Tensor, beta: float = 0.0) -> Tensor:
    """The sum of abs(e), below ``beta`` of e^2 / (2 beta) + beta / 2 less (Girshick 2015).

    The published detectors with a pyramid take ``beta`` 0: plain L1.
    """
    return F.smooth_l1_loss(error, torch.zeros_like(error), beta=beta, reduction="sum")


def centerness(points_p2: Tensor, things_p4: Tensor) -> Tensor:
    """How near points within things are to their middles, 0 to 1 (Tian 2019, equation 3)."""
    low, high = points_p2 - things_p4[:, :2], things_p4[:, 2:] - points_p2
    shares = torch.minimum(low, high).clamp(min=0) / torch.maximum(low, high)
    return shares.prod(dim=1).sqrt()


def quality(boxes_p4: Tensor, things_p4: Tensor) -> Tensor:
    """What GFL's score is to say: IoU of a box and its thing."""
    return iou_pairs(boxes_p4, things_p4)


def _one_hot(classes_p: Tensor, logits_pk: Tensor) -> Tensor:
    wanted = classes_p.unsqueeze(1) == torch.arange(logits_pk.shape[1], device=classes_p.device)
    return wanted.to(logits_pk.dtype)
