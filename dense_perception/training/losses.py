"""Losses on metric depth. All tensors are (N, H, W); ``valid`` is a mask of the same shape.

Each loss is a mean over images of a mean over the image's valid pixels, so that a frame with few
measurements weighs as much as a full one; an image without any contributes 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dense_perception.training.config import LossConfig


def total_loss(
    predicted_log: Tensor, true_m: Tensor, valid: Tensor, config: LossConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum, and each unweighted part, detached.

    :param predicted_log: natural logarithm of the predicted metric depth.
    """
    weight = valid.to(predicted_log.dtype)
    true = torch.where(valid, true_m, torch.ones_like(true_m))
    log_error = (predicted_log - true.log()) * weight
    parts = {
        "silog": silog_loss(log_error, weight, config.silog_lambda),
        "aligned": aligned_loss(torch.exp(-predicted_log), true.reciprocal(), weight),
        "gradient": gradient_loss(log_error, weight),
    }
    loss = sum((getattr(config, name) * part for name, part in parts.items()), torch.zeros(()))
    return loss, {name: part.detach() for name, part in parts.items()}


def silog_loss(log_error: Tensor, weight: Tensor, forgiven: float) -> Tensor:
    """sqrt(mean(d^2) - forgiven * mean(d)^2), Eigen 2014, eq. 4; ``log_error`` is 0 where invalid.

    With ``forgiven`` below 1 the absolute scale is learnt too.
    """
    mean = _masked_mean(log_error, weight)
    mean_square = _masked_mean(log_error.square(), weight)
    # The floor keeps the root's slope finite at a perfect prediction.
    return (mean_square - forgiven * mean.square()).clamp(min=1e-6).sqrt().mean()


def aligned_loss(predicted: Tensor, true: Tensor, weight: Tensor) -> Tensor:
    """Relative L1 error of inverse depths after the best scale and shift (after MiDaS, eq. 4-5).

    The alignment is the least-squares fit that evaluation uses, and gradients flow through it.
    Errors are relative to the true inverse depth, floored at 0.3 of its mean in the image, so
    that far pixels count nearly as in AbsRel without deciding everything.
    """
    mean_p, mean_t = _masked_mean(predicted, weight), _masked_mean(true, weight)
    centred_p = (predicted - mean_p[:, None, None]) * weight
    centred_t = (true - mean_t[:, None, None]) * weight
    spread = _masked_mean(centred_p.square(), weight)
    scale = _masked_mean(centred_p * centred_t, weight) / (spread + 1e-4 * mean_p.square() + 1e-9)
    error = (scale[:, None, None] * centred_p - centred_t).abs()
    floor = torch.maximum(true, (0.3 * mean_t)[:, None, None]).clamp(min=1e-6)
    return _masked_mean(error / floor, weight).mean()


def gradient_loss(log_error: Tensor, weight: Tensor, scales: int = 4) -> Tensor:
    """Mean of abs(d/dx) + abs(d/dy) of the log error at ``scales`` resolutions (MiDaS, eq. 11)."""
    total = log_error.new_zeros(())
    for scale in range(scales):
        step = 2**scale
        error, mask = log_error[:, ::step, ::step], weight[:, ::step, ::step]
        across = (error[:, :, 1:] - error[:, :, :-1]).abs()
        down = (error[:, 1:] - error[:, :-1]).abs()
        total = total + _masked_mean(across, mask[:, :, 1:] * mask[:, :, :-1]).mean()
        total = total + _masked_mean(down, mask[:, 1:] * mask[:, :-1]).mean()
    return total / scales


def _masked_mean(value: Tensor, weight: Tensor) -> Tensor:
    """Mean over the pixels of each image, (N,); 0 for an image without valid pixels."""
    return (value * weight).sum(dim=(1, 2)) / weight.sum(dim=(1, 2)).clamp(min=1.0)
