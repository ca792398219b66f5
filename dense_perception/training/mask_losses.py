"""The losses of networks of queries: classes and masks of matched segments, after every layer.

Mask2Former (arXiv:2112.01527, sections 3.1.1 and 3.3): cross entropy of the classes, in which "no
object" counts a tenth; binary cross entropy and dice of the masks at sampled points, three quarters
of them where the prediction is least certain (PointRend, arXiv:1912.08193, section 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dense_perception.core.errors import TrainingError
from dense_perception.core.instance_lists import IDS
from dense_perception.core.labels import VOID
from dense_perception.data.instance_rows import NOBODY
from dense_perception.data.targets import ROW_CLASSES
from dense_perception.nets.query_network import QueryNetwork, QueryPrediction
from dense_perception.training.batch import Batch
from dense_perception.training.config import LossConfig
from dense_perception.training.matching import MatchingWeights, match, segment_costs

NO_OBJECT_WEIGHT = 0.1
_IGNORED = -100
OVERSAMPLED = 3
UNCERTAIN_SHARE = 0.75


@dataclass(frozen=True)
class Segments:
    """What is to be found in one frame: ``classes_m`` int64 and ``masks_mhw`` bool.

    A frame that is not ``known`` has no truth, so that it teaches nothing: not that it is empty.
    ``void_hw`` bool are the pixels that count neither for nor against a mask, of things that nobody
    is to learn; None without any.
    """

    classes_m: Tensor
    masks_mhw: Tensor
    known: bool = True
    void_hw: Tensor | None = None


def segments_of(
    batch: Batch, index: int, things: Sequence[int], *, labels: bool, instances: bool
) -> Segments:
    """The segments of a frame of a batch, from its targets.

    ``batch.targets`` has, as far as is asked for:

    * ``segmentation`` (N, H, W): classes, 255 for none. Each class in view is one segment; beside
      instances only if it is not among ``things``.
    * ``instance_ids`` (N, H, W) whole numbers: 0 for no thing, k for the thing in row k - 1 of the
      list. Numbers without a row are no things.
    * ``instance_classes`` (N, M) int64: the classes of the rows, 255 for rows without a thing or
      with one that nobody is to learn: crowds, and pixels of things without a number. Beside labels
      only classes among ``things`` count.

    Things of which no pixel is in view are left out. A frame is not known if all of its pixels are
    without a class, or its things are (:func:`~dense_perception.data.instance_rows.unknown_rows`).

    :raises TrainingError: if a target that is asked for is missing.
    """
    missing = [
        name
        for name, wanted in (("segmentation", labels), (IDS, instances), (ROW_CLASSES, instances))
        if wanted and name not in batch.targets
    ]
    if missing:
        raise TrainingError(
            f"the batch has no targets {missing}, and the network is to predict them: train on a "
            "corpus that has them"
        )
    height, width = batch.depth_m.shape[1:]
    device = batch.depth_m.device
    classes: list[Tensor] = []
    masks: list[Tensor] = []
    known = True
    void_hw = None
    if labels:
        labels_hw = batch.targets["segmentation"][index].long()
        left_out = torch.tensor([VOID, *(things if instances else ())], device=device)
        known &= bool((labels_hw != VOID).any())
        found_m = labels_hw.unique()
        found_m = found_m[~torch.isin(found_m, left_out)]
        classes.append(found_m)
        masks.append(labels_hw[None] == found_m[:, None, None])
    if instances:
        ids_hw = batch.targets[IDS][index].long()
        of_row_m = batch.targets[ROW_CLASSES][index].long()
        learnt_m = of_row_m != NOBODY
        known &= bool(learnt_m.any()) or not bool((ids_hw == 1).all())
        if labels:
            learnt_m &= torch.isin(of_row_m, torch.tensor(list(things), device=device))
        row_m = learnt_m.nonzero().flatten()
        inside_mhw = ids_hw[None] == row_m[:, None, None] + 1
        seen_m = inside_mhw.flatten(1).any(dim=1)
        nobodys_m = (of_row_m == NOBODY).nonzero().flatten() + 1
        nobodys_hw = torch.isin(ids_hw, nobodys_m)
        for masks_mhw in masks:  # what is stuff is known
            nobodys_hw &= ~masks_mhw.any(dim=0)
        void_hw = nobodys_hw if bool(nobodys_hw.any()) else None
        classes.append(of_row_m[row_m[seen_m]])
        masks.append(inside_mhw[seen_m])
    if not classes:
        return Segments(
            torch.zeros(0, dtype=torch.long, device=device),
            torch.zeros(0, height, width, dtype=torch.bool, device=device),
        )
    return Segments(torch.cat(classes), torch.cat(masks), known, void_hw)


def query_loss(
    network: QueryNetwork, image_nchw: Tensor, batch: Batch, losses: LossConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch, and the unweighted parts of the last layer, detached.

    :raises TrainingError: if the batch has not what the network is to predict.
    """
    config = network.config
    truth = [
        segments_of(
            batch,
            index,
            config.thing_classes,
            labels="segmentation" in config.tasks,
            instances="instances" in config.tasks,
        )
        for index in range(len(batch))
    ]
    predictions = network.raw(image_nchw)
    # In fp32: sums over thousands of points do not fit into bf16.
    with torch.autocast(image_nchw.device.type, enabled=False):
        wide = [QueryPrediction(*(found.float() for found in layer)) for layer in predictions]
        weights = MatchingWeights(losses.segment_classes, losses.segment_mask, losses.segment_dice)
        return segment_losses(wide, truth, weights, losses.segment_points)


def segment_losses(
    predictions: Sequence[QueryPrediction],
    truth: Sequence[Segments],
    weights: MatchingWeights,
    points: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum over all layers, and the unweighted parts of the last layer, detached.

    Each layer is matched by itself. Mask losses are means over the segments of all frames.

    :param truth: the segments of each frame.
    :param points: sampled in each mask.
    """
    total = torch.zeros((), device=predictions[0].class_logits_bqk.device)
    parts: dict[str, Tensor] = {}
    for prediction in predictions:
        classes, mask, dice = _layer(prediction, truth, weights, points)
        total = total + weights.classes * classes + weights.mask * mask + weights.dice * dice
        parts = {"classes": classes.detach(), "mask": mask.detach(), "dice": dice.detach()}
    return total, parts


def _layer(
    prediction: QueryPrediction, truth: Sequence[Segments], weights: MatchingWeights, points: int
) -> tuple[Tensor, Tensor, Tensor]:
    frames = len(truth)
    _, queries, classes = prediction.class_logits_bqk.shape
    # The queries of the first layer are the same for all frames.
    class_logits_bqk = prediction.class_logits_bqk.expand(frames, -1, -1)
    target_bq = torch.full(
        (frames, queries), classes - 1, dtype=torch.long, device=class_logits_bqk.device
    )
    found: list[Tensor] = []
    wanted: list[Tensor] = []
    void: list[Tensor | None] = []
    for index, segments in enumerate(truth):
        mask_logits_qhw = prediction.mask_logits_bqhw[index]
        if not segments.known:
            target_bq[index] = _IGNORED
            continue
        query_k, segment_k = _matched(
            class_logits_bqk[index], mask_logits_qhw, segments, weights, points
        )
        if segments.void_hw is not None:
            target_bq[index, _in_void(mask_logits_qhw, segments.void_hw)] = _IGNORED
        target_bq[index, query_k] = segments.classes_m[segment_k]
        found.append(mask_logits_qhw[query_k])
        wanted.append(segments.masks_mhw[segment_k])
        void.append(segments.void_hw)
    weight_k = torch.ones(classes, dtype=class_logits_bqk.dtype, device=class_logits_bqk.device)
    weight_k[-1] = NO_OBJECT_WEIGHT
    if not found:  # a gradient of 0, for parts of other frames may follow
        nothing = 0 * (class_logits_bqk.sum() + prediction.mask_logits_bqhw.sum())
        return nothing, nothing, nothing
    class_loss = 0 * class_logits_bqk.sum()
    if bool((target_bq != _IGNORED).any()):
        class_loss = F.cross_entropy(
            class_logits_bqk.flatten(0, 1), target_bq.flatten(), weight_k, ignore_index=_IGNORED
        )
    void_khw = None
    if any(each is not None for each in void):
        parts = [
            torch.zeros_like(masks_khw) if void_hw is None else void_hw.expand_as(masks_khw)
            for void_hw, masks_khw in zip(void, wanted, strict=True)
        ]
        void_khw = torch.cat(parts)
    mask_loss, dice_loss = mask_losses(torch.cat(found), torch.cat(wanted), points, void_khw)
    return class_loss, mask_loss, dice_loss


@torch.no_grad()
def _in_void(mask_logits_qhw: Tensor, void_hw: Tensor) -> Tensor:
    """(Q,) bool: whether half of what a query finds, or more, is void; then it is no false alarm
    (COCO's rule for crowds)."""
    size_hw = mask_logits_qhw.shape[-2:]
    void = void_hw.to(mask_logits_qhw.dtype)[None, None]
    share_hw = F.interpolate(void, size=size_hw, mode="area")[0, 0]
    inside_qhw = mask_logits_qhw > 0
    area_q = inside_qhw.sum(dim=(1, 2))
    return (area_q > 0) & (2 * (inside_qhw * share_hw).sum(dim=(1, 2)) >= area_q)


def _matched(
    class_logits_qk: Tensor,
    mask_logits_qhw: Tensor,
    segments: Segments,
    weights: MatchingWeights,
    points: int,
) -> tuple[Tensor, Tensor]:
    point_p2 = torch.rand(points, 2, device=mask_logits_qhw.device, dtype=mask_logits_qhw.dtype)
    known_p = None
    if segments.void_hw is not None:
        known_p = 1 - _inside(segments.void_hw[None], point_p2[None])[0]
    cost_qm = segment_costs(
        class_logits_qk,
        sample(mask_logits_qhw, point_p2.expand(len(mask_logits_qhw), -1, -1)),
        segments.classes_m,
        sample(
            segments.masks_mhw.to(mask_logits_qhw.dtype),
            point_p2.expand(len(segments.masks_mhw), -1, -1),
        ),
        weights,
        known_p,
    )
    return match(cost_qm)


def mask_losses(
    logits_khw: Tensor, masks_khw: Tensor, points: int, void_khw: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Binary cross entropy and dice of K masks at sampled points, means over the masks.

    Zero, with a gradient of zero, where there are none.

    :param void_khw: bool, pixels that count neither way.
    """
    if not len(logits_khw):
        return logits_khw.sum(), logits_khw.sum()
    with torch.no_grad():
        point_kp2 = uncertain_points(logits_khw, points, void_khw)
        wanted_kp = sample(masks_khw.to(logits_khw.dtype), point_kp2)
    found_kp = sample(logits_khw, point_kp2)
    inside_kp = found_kp.sigmoid()
    if void_khw is None:
        entropy = F.binary_cross_entropy_with_logits(found_kp, wanted_kp)
    else:
        known_kp = 1 - _inside(void_khw, point_kp2)
        entropy_kp = F.binary_cross_entropy_with_logits(found_kp, wanted_kp, reduction="none")
        entropy = (known_kp * entropy_kp).sum() / known_kp.sum().clamp(min=1)
        inside_kp, wanted_kp = known_kp * inside_kp, known_kp * wanted_kp
    both_k = 2 * (inside_kp * wanted_kp).sum(dim=1)
    dice_k = 1 - (both_k + 1) / (inside_kp.sum(dim=1) + wanted_kp.sum(dim=1) + 1)
    return entropy, dice_k.mean()


def uncertain_points(logits_khw: Tensor, points: int, void_khw: Tensor | None = None) -> Tensor:
    """(K, points, 2) x and y in units of the mask: most of them where the logits are nearest 0, and
    of those none in ``void_khw`` while there are others."""
    masks = len(logits_khw)
    many_kn2 = torch.rand(
        masks, OVERSAMPLED * points, 2, device=logits_khw.device, dtype=logits_khw.dtype
    )
    certainty_kn = sample(logits_khw, many_kn2).abs()
    if void_khw is not None:
        certainty_kn = certainty_kn.masked_fill(_inside(void_khw, many_kn2) > 0, torch.inf)
    uncertain = int(UNCERTAIN_SHARE * points)
    chosen_kp = certainty_kn.topk(uncertain, dim=1, largest=False).indices
    least_kp2 = torch.gather(many_kn2, 1, chosen_kp[:, :, None].expand(-1, -1, 2))
    rest_kp2 = torch.rand(
        masks, points - uncertain, 2, device=logits_khw.device, dtype=logits_khw.dtype
    )
    return torch.cat([least_kp2, rest_kp2], dim=1)


def _inside(masks_khw: Tensor, point_kp2: Tensor) -> Tensor:
    """(K, P): 1 at points in pixels of the masks, else 0."""
    grid_kp12 = 2 * point_kp2.unsqueeze(2) - 1
    masks_k1hw = masks_khw.unsqueeze(1).to(point_kp2.dtype)
    return F.grid_sample(masks_k1hw, grid_kp12, mode="nearest", align_corners=False)[:, 0, :, 0]


def sample(maps_khw: Tensor, point_kp2: Tensor) -> Tensor:
    """(K, P) bilinear values of K maps at points x, y in units of the map, zero beyond it.

    Pixel centres lie at (i + 0.5) / size.
    """
    grid_kp12 = 2 * point_kp2.unsqueeze(2) - 1
    found = F.grid_sample(maps_khw.unsqueeze(1), grid_kp12, mode="bilinear", align_corners=False)
    return found[:, 0, :, 0]
