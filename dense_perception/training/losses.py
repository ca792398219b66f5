"""Losses on metric depth, and on the further tasks of a multitask network.

Depth tensors are (N, H, W); ``valid`` is a mask of the same shape. Each depth loss is a mean over
images of a mean over the image's valid pixels, so that a frame with few measurements weighs as much
as a full one; an image without any contributes 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dense_perception.core.labels import VOID
from dense_perception.nets.centres import OFFSET_PX
from dense_perception.training.config import LossConfig
from dense_perception.training.detection_losses import quality_focal
from dense_perception.training.engine import mean_over_processes

_STEP = 0.25  # log depth between neighbours that makes an occlusion edge
_SMOOTH = 0.05


def metric_depth_loss(
    predicted_log: Tensor,
    true_m: Tensor,
    valid: Tensor,
    config: LossConfig,
    focal_px: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum, and each unweighted part, detached.

    :param predicted_log: natural logarithm of the predicted metric depth.
    :param focal_px: (N,), needed where ``config.depth_normals`` is not 0.
    """
    weight = valid.to(predicted_log.dtype)
    true = torch.where(valid, true_m, torch.ones_like(true_m))
    log_error = (predicted_log - true.log()) * weight
    parts = {
        "silog": silog_loss(log_error, weight, config.silog_lambda),
        "aligned": aligned_loss(torch.exp(-predicted_log), true.reciprocal(), weight),
        "gradient": gradient_loss(log_error, weight),
    }
    if config.depth_normals and focal_px is not None:
        parts["depth_normals"] = depth_normals_loss(predicted_log, true.log(), valid, focal_px)
    if config.depth_edges:
        parts["depth_edges"] = depth_edges_loss(predicted_log, true.log(), valid)
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


def depth_edges_loss(predicted_log: Tensor, true_log: Tensor, valid: Tensor) -> Tensor:
    """Mean share of the true depth steps that the prediction misses within four pixels.

    Steps are those of :meth:`dense_perception.metrics.surfaces.Surfaces.edge_share`, in rows and in
    columns: over 0.25 in log depth between two neighbours, with smooth depth (0.05) on either side.
    The share missed is ``abs(1 - predicted / true)`` of the log depths' difference over four
    pixels. The other losses are means over whole images, where the pixels beside a step hardly
    count.
    """
    missed = predicted_log.new_zeros(len(predicted_log))
    count = predicted_log.new_zeros(len(predicted_log))
    for along in (1, 2):
        length = true_log.shape[along] - 3
        if length < 1:
            continue
        a, b, c, d = (true_log.narrow(along, offset, length) for offset in range(4))
        known = torch.stack([valid.narrow(along, offset, length) for offset in range(4)]).all(0)
        smooth = ((b - a).abs() < _SMOOTH) & ((d - c).abs() < _SMOOTH)
        edge = known & smooth & ((c - b).abs() > _STEP)
        made = predicted_log.narrow(along, 3, length) - predicted_log.narrow(along, 0, length)
        step = torch.where(edge, d - a, torch.ones_like(a))
        share = (1 - made / step).abs()
        missed = missed + (share * edge).sum(dim=(1, 2))
        count = count + edge.sum(dim=(1, 2))
    return (missed / count.clamp(min=1)).mean()


def depth_normals_loss(
    predicted_log: Tensor,
    true_log: Tensor,
    valid: Tensor,
    focal_px: Tensor,
    strides: tuple[int, ...] = (1, 2, 4),
) -> Tensor:
    """Mean over ``strides`` of 1 - cosine between the normals of predicted and true depth.

    Normals come from central differences of inverse depth, which is linear over a plane:
    1/z = a u + b v + c has the normal (f a, f b, c). A stride of s looks s pixels either way, at
    every s-th pixel. Left out are pixels whose neighbourhood holds invalid depth or an edge: a
    neighbour that differs from the middle by over 4 % times the stride + 3 % in true log depth.

    :param focal_px: (N,), focal length in pixels; the principal point is taken to be in the middle.
    """
    total = predicted_log.new_zeros(())
    height, width = predicted_log.shape[1:]
    focal = focal_px.to(predicted_log.dtype)[:, None, None]
    # Divided by the focal length here, so that the components below are of one size.
    u = (torch.arange(width, device=focal.device) - (width - 1) / 2) / focal
    v = (torch.arange(height, device=focal.device)[:, None] - (height - 1) / 2) / focal
    for stride in strides:
        true, mask = true_log[:, ::stride, ::stride], valid[:, ::stride, ::stride]
        if min(true.shape[1:]) < 3:
            continue
        inner = (slice(None), slice(1, -1), slice(1, -1))
        usable = mask[inner]
        for part, beside in zip(_neighbours(true), _neighbours(mask), strict=True):
            flat = (part - true[inner]).abs() <= 0.04 * stride + 0.03
            usable = usable & beside & flat
        rays = (u[:, :, ::stride][:, :, 1:-1], v[:, ::stride][:, 1:-1])
        predicted = predicted_log[:, ::stride, ::stride]
        cosine = _cosine(
            _normal_direction(predicted, focal / (2 * stride), rays),
            _normal_direction(true, focal / (2 * stride), rays),
        )
        total = total + _masked_mean(1 - cosine, usable.to(cosine.dtype)).mean()
    return total / len(strides)


def _neighbours(map_nhw: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Left, right, above and below of every inner pixel."""
    middle = map_nhw[:, 1:-1], map_nhw[:, :, 1:-1]
    return middle[0][..., :-2], middle[0][..., 2:], middle[1][:, :-2], middle[1][:, 2:]


def _normal_direction(
    log_nhw: Tensor, focal: Tensor, rays: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """x, y, z of a vector along the normal of every inner pixel, over the inverse depth there.

    :param focal: the focal length over the distance of opposite neighbours in pixels.
    """
    inverse = torch.exp(-log_nhw)
    left, right, above, below = _neighbours(inverse)
    middle = inverse[:, 1:-1, 1:-1]
    x, y = focal * (right - left) / middle, focal * (below - above) / middle
    return x, y, 1 - rays[0] * x - rays[1] * y


def _cosine(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> Tensor:
    dot = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    squares = (a[0] ** 2 + a[1] ** 2 + a[2] ** 2) * (b[0] ** 2 + b[1] ** 2 + b[2] ** 2)
    return dot * (squares + 1e-12).rsqrt()


def _masked_mean(value: Tensor, weight: Tensor) -> Tensor:
    """Mean over the pixels of each image, (N,); 0 for an image without valid pixels."""
    return (value * weight).sum(dim=(1, 2)) / weight.sum(dim=(1, 2)).clamp(min=1.0)


def segmentation_loss(logits_nkhw: Tensor, classes_nhw: Tensor, rarity: float = 0.0) -> Tensor:
    """Mean cross entropy over the pixels of all processes that have a class; 0 if none has.

    :param rarity: a pixel weighs as much as its class's share of the batch to the power of
        ``-rarity``: with 0 all alike, with 1 all classes of the batch alike.
    """
    classes = classes_nhw.long()
    known = classes != VOID
    if not rarity:
        total = F.cross_entropy(logits_nkhw, classes, ignore_index=VOID, reduction="sum")
        return total / mean_over_processes(known.sum()).clamp(min=1)
    counts = torch.zeros(logits_nkhw.shape[1], device=classes.device, dtype=logits_nkhw.dtype)
    # Void pixels add nothing to class 0: picking the others out would make a GPU wait.
    counts.index_add_(0, classes.where(known, 0).flatten(), known.flatten().to(counts.dtype))
    counts = mean_over_processes(counts)
    weight = (counts.clamp(min=1) / counts.sum().clamp(min=1)) ** -rarity
    total = F.cross_entropy(logits_nkhw, classes, weight, ignore_index=VOID, reduction="sum")
    return total / (weight * counts).sum().clamp(min=1e-12)


def l1_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference where the target is known, in all processes; 0 if it is nowhere."""
    known = torch.isfinite(target)
    error = (predicted - torch.where(known, target, predicted.detach())).abs()
    return (error * known).sum() / mean_over_processes(known.sum()).clamp(min=1)


def centre_loss(predicted_n3hw: Tensor, target_n3hw: Tensor) -> Tensor:
    """Of things found by their centres (Cheng 2020, section 3.2): how far the heights are off, and
    L1 of the offsets, which are predicted in units of ``OFFSET_PX``.

    The paper takes squares of the heights' errors, in which small things hardly count. Here it is
    the quality focal loss (Li 2020), divided by the sum of the true heights, as CenterNet divides
    its focal loss by the number of things (Zhou 2019, arXiv:1904.07850, equation 1). The offsets
    weigh 0.03 a pixel (0.01 in the paper), with the sum over rows and columns.

    :param predicted_n3hw: logits of heights, and offsets.
    :param target_n3hw: heights, and offsets in pixels; NaN where unknown.
    """
    logits, target_heights = predicted_n3hw[:, :1], target_n3hw[:, :1]
    known = torch.isfinite(target_heights)
    true_heights = torch.where(known, target_heights, 0.0)
    missed = (quality_focal(logits, true_heights) * known).sum()
    heights = missed / mean_over_processes(true_heights.sum()).clamp(min=1)
    offsets = 2 * OFFSET_PX * l1_loss(predicted_n3hw[:, 1:], target_n3hw[:, 1:] / OFFSET_PX)
    return 2 * heights + 0.03 * offsets


def inverse_depth_losses(
    predicted: Tensor, true_m: Tensor, valid: Tensor, trim: float, scales: int = 4
) -> tuple[Tensor, Tensor]:
    """MiDaS's losses of relative inverse depth (Ranftl 2020, section 5): SSI and gradient matching.

    Prediction and truth are brought to median 0 and mean absolute deviation 1 over the image's M
    valid pixels. The first loss is the sum of the absolute differences but the largest
    ``trim`` M ones, over 2 M. The second sums, over ``scales`` halvings of the size, the mean of
    abs(d/dx) + abs(d/dy) of the differences. Both are means over the images; one without valid
    pixels contributes 0.

    :param predicted: (N, H, W) inverse depth of any scale and shift.
    """
    some = valid.flatten(1).any(dim=1)
    # The statistics of an image without truth must exist, for its gradient to be 0.
    counted = valid | ~some[:, None, None]
    true = torch.where(valid, true_m, torch.ones_like(true_m)).reciprocal()
    difference = _normalised(predicted, counted) - _normalised(true, counted)
    count = valid.sum(dim=(1, 2))
    errors = torch.where(valid, difference.abs(), torch.inf).flatten(1).sort(dim=1).values
    kept = torch.arange(errors.shape[1], device=errors.device) < (
        count[:, None] - (trim * count).floor()[:, None]
    )
    # Not a product: infinity times 0 is none.
    total = torch.where(kept, errors, torch.zeros_like(errors)).sum(dim=1)
    ssi = (total / (2 * count.clamp(min=1))).mean()
    weight = valid.to(predicted.dtype)
    return ssi, scales * gradient_loss(difference * weight, weight, scales)


def _normalised(inverse: Tensor, counted: Tensor) -> Tensor:
    hidden = torch.where(counted, inverse, torch.nan).flatten(1)
    median = hidden.nanmedian(dim=1).values[:, None, None]
    centred = inverse - median
    deviation = _masked_mean(centred.abs(), counted.to(inverse.dtype))[:, None, None]
    return centred / deviation.clamp(min=1e-6)
