"""What detectors are trained on: the papers' losses on what they say of a batch with things.

Weights are those of the published configurations. Places where things of nobody are (crowds, pixels
of things without a number) take no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from dense_perception.nets.detection.boxes import (
    clip,
    decode_offsets,
    encode_distances,
    encode_offsets,
)
from dense_perception.nets.detection.dense_heads import DenseDetector, Level
from dense_perception.nets.detection.mask_rcnn import RegionDetector
from dense_perception.nets.detection.roi_align import roi_align
from dense_perception.nets.detection.roi_heads import (
    BOX_SIDE,
    MASK_SIDE,
    BoxHead,
    MaskHead,
    of_classes,
)
from dense_perception.nets.detection.rpn import Proposed
from dense_perception.training.box_assignment import (
    BACKGROUND,
    NEITHER,
    assign_adaptively,
    assign_by_overlap,
    sample,
)
from dense_perception.training.detection_losses import (
    centerness,
    distribution_focal_loss,
    focal_loss,
    giou_loss,
    quality,
    quality_focal_loss,
    smooth_l1_loss,
)
from dense_perception.training.instance_truth import Things

Losses = dict[str, Tensor]

_ANCHORS, _ANCHOR_SHARE = 256, 0.5
_REGIONS, _REGION_SHARE = 512, 0.25
_STAGE_OVERLAPS, _STAGE_WEIGHTS = (0.5, 0.6, 0.7), (1.0, 0.5, 0.25)
_GIOU, _CASCADE_GIOU, _DISTRIBUTION = 2.0, 10.0, 0.25


def detector_losses(
    network: RegionDetector | DenseDetector, image_nchw: Tensor, things: Sequence[Things]
) -> Losses:
    """The weighted losses by name, which add up; each is a mean over the whole batch."""
    if isinstance(network, DenseDetector):
        levels = network.raw(image_nchw)
        with torch.autocast(image_nchw.device.type, enabled=False):
            return dense_losses([_widened(level) for level in levels], things)
    maps, proposed = network.raw(image_nchw)
    with torch.autocast(image_nchw.device.type, enabled=False):
        proposed = Proposed(
            [logits.float() for logits in proposed.logits],
            [offsets.float() for offsets in proposed.offsets],
            proposed.anchors,
        )
        losses = proposal_losses(proposed, things)
        size_hw = image_nchw.shape[-2:]
        with torch.no_grad():
            boxes_nr4, used_nr = network.propose(proposed, size_hw)
        boxes = [row[used] for row, used in zip(boxes_nr4, used_nr, strict=True)]
        maps = [map_nchw.float() for map_nchw in maps]
        return losses | region_losses(network, maps, boxes, things, size_hw)


def proposal_losses(proposed: Proposed, things: Sequence[Things]) -> Losses:
    """Of the region proposal network: whether there is a thing, and where."""
    logits, offsets = torch.cat(proposed.logits, dim=1), torch.cat(proposed.offsets, dim=1)
    anchors_a4 = torch.cat(proposed.anchors)
    found, box = logits.new_zeros(()), logits.new_zeros(())
    taken = 0
    for frame, truth in enumerate(things):
        assigned_a = _spared(
            assign_by_overlap(anchors_a4, truth.boxes_k4, 0.7, 0.3, 0.3), anchors_a4, truth
        )
        positive, negative = sample(assigned_a, _ANCHORS, _ANCHOR_SHARE)
        rows = torch.cat([positive, negative])
        wanted = (assigned_a[rows] >= 0).to(logits.dtype)
        found = found + F.binary_cross_entropy_with_logits(
            logits[frame, rows], wanted, reduction="sum"
        )
        offsets_p4 = encode_offsets(
            anchors_a4[positive], truth.boxes_k4[assigned_a[positive]].to(logits.dtype)
        )
        box = box + smooth_l1_loss(offsets[frame, positive] - offsets_p4)
        taken += len(rows)
    return {"proposals": found / max(taken, 1), "proposal_boxes": box / max(taken, 1)}


def region_losses(
    network: RegionDetector,
    maps: Sequence[Tensor],
    boxes: Sequence[Tensor],
    things: Sequence[Things],
    size_hw: Sequence[int],
) -> Losses:
    """Of the heads: class, box and mask, by stage where there are several.

    :param boxes: proposals (R, 4) of each frame.
    """
    losses: Losses = {}
    proposals = list(boxes)
    cascade = network.config.cascade
    for stage, modules in enumerate(zip(network.box_heads, network.mask_heads, strict=True)):
        box_head, mask_head = cast(BoxHead, modules[0]), cast(MaskHead, modules[1])
        overlap = _STAGE_OVERLAPS[stage]
        chosen = [_choose(*each, overlap) for each in zip(proposals, things, strict=True)]
        count = sum(len(one.boxes) for one in chosen)
        weight = _STAGE_WEIGHTS[stage] / max(count, 1)
        logits, offsets = box_head(_seen(network, maps, [one.boxes for one in chosen], BOX_SIDE))
        classes = torch.cat([one.classes(network.config.classes) for one in chosen])
        all_boxes = torch.cat([one.boxes for one in chosen])
        wanted = torch.cat([one.wanted for one in chosen])
        is_thing = classes < network.config.classes
        own = of_classes(offsets, classes.clamp(max=network.config.classes - 1))
        if cascade:
            decoded = decode_offsets(all_boxes, own, box_head.deviations)
            box = _CASCADE_GIOU * giou_loss(decoded[is_thing], wanted[is_thing]).sum()
        else:
            offsets_p4 = encode_offsets(all_boxes[is_thing], wanted[is_thing], box_head.deviations)
            box = smooth_l1_loss(own[is_thing] - offsets_p4)
        suffix = f"_{stage + 1}" if cascade else ""
        losses[f"classes{suffix}"] = weight * F.cross_entropy(logits, classes, reduction="sum")
        losses[f"boxes{suffix}"] = weight * box
        mask = _mask_loss(network, mask_head, maps, chosen)
        losses[f"masks{suffix}"] = _STAGE_WEIGHTS[stage] * mask
        with torch.no_grad():
            # The next stage begins with what this one makes of its boxes, truth left out.
            best = torch.where(is_thing, classes, logits[:, :-1].argmax(dim=1))
            refined = decode_offsets(all_boxes, of_classes(offsets, best), box_head.deviations)
            parts = clip(refined, size_hw).split([len(one.boxes) for one in chosen])
            proposals = [part[one.proposed] for part, one in zip(parts, chosen, strict=True)]
    return losses


def dense_losses(levels: Sequence[Level], things: Sequence[Things]) -> Losses:
    """Of ATSS or GFL, whichever the levels are of."""
    anchors = [level.anchors for level in levels]
    anchors_a4 = torch.cat(anchors)
    logits = torch.cat([level.logits for level in levels], dim=1)
    classes = logits.shape[-1]
    assigned = torch.stack(
        [_spared(assign_adaptively(anchors, truth.boxes_k4), anchors_a4, truth) for truth in things]
    )
    is_thing = assigned >= 0
    count = max(int(is_thing.sum()), 1)
    wanted_na4 = torch.stack(
        [_of_rows(truth.boxes_k4, rows) for truth, rows in zip(things, assigned, strict=True)]
    ).to(logits.dtype)
    class_na = torch.stack(
        [_of_rows(truth.classes_k, rows) for truth, rows in zip(things, assigned, strict=True)]
    )
    class_na = torch.where(is_thing, class_na, classes)
    taken = assigned != NEITHER
    boxes_p4 = torch.cat([level.boxes for level in levels], dim=1)[is_thing]
    wanted_p4 = wanted_na4[is_thing]
    centre_na2 = ((anchors_a4[:, :2] + anchors_a4[:, 2:]) / 2).expand(len(things), -1, -1)
    centre_p2 = centre_na2[is_thing]
    if levels[0].centerness is not None:
        near = torch.cat([cast(Tensor, level.centerness) for level in levels], dim=1)[is_thing]
        wanted_near = centerness(centre_p2, wanted_p4)
        box = giou_loss(boxes_p4, wanted_p4) * wanted_near
        return {
            "classes": focal_loss(logits[taken], class_na[taken]) / count,
            "boxes": _GIOU * box.sum() / wanted_near.sum().clamp(min=1e-6),
            "centerness": F.binary_cross_entropy_with_logits(near, wanted_near, reduction="sum")
            / count,
        }
    quality_na = torch.zeros_like(logits[..., 0])
    quality_na[is_thing] = quality(boxes_p4, wanted_p4).detach()
    # A box counts as much as its class is certain.
    certain = torch.sigmoid(logits[is_thing].detach()).amax(dim=1)
    sides = torch.cat([level.sides for level in levels], dim=1)[is_thing]
    stride_a = torch.cat([torch.full_like(level.anchors[:, 0], level.stride) for level in levels])
    stride_p1 = stride_a.expand(len(things), -1)[is_thing].unsqueeze(1)
    most = sides.shape[-1] - 1 - 0.1
    wanted_sides = (encode_distances(centre_p2, wanted_p4) / stride_p1).clamp(0, most)
    spread = distribution_focal_loss(sides, wanted_sides).mean(dim=1)
    total = certain.sum().clamp(min=1e-6)
    return {
        "classes": quality_focal_loss(logits[taken], class_na[taken], quality_na[taken]) / count,
        "boxes": _GIOU * (giou_loss(boxes_p4, wanted_p4) * certain).sum() / total,
        "distances": _DISTRIBUTION * (spread * certain).sum() / total,
    }


@dataclass(frozen=True)
class _Chosen:
    """The regions of one frame that a head learns from.

    ``boxes`` (R, 4), the first of them with things: ``wanted`` (R, 4) are theirs, with rows
    ``things`` (P,) of the truth. ``proposed`` (R,) bool: not the truth itself.
    """

    boxes: Tensor
    wanted: Tensor
    things: Tensor
    truth: Things
    proposed: Tensor

    def classes(self, background: int) -> Tensor:
        """(R,) int64."""
        found = self.truth.classes_k[self.things]
        return F.pad(found, (0, len(self.boxes) - len(found)), value=background)


def _choose(proposals_r4: Tensor, truth: Things, overlap: float) -> _Chosen:
    """Of the proposals and the truth some at random, at most a quarter of them with things."""
    boxes_r4 = torch.cat([proposals_r4, truth.boxes_k4.to(proposals_r4.dtype)])
    assigned_r = assign_by_overlap(boxes_r4, truth.boxes_k4, overlap, overlap)
    positive, negative = sample(_spared(assigned_r, boxes_r4, truth), _REGIONS, _REGION_SHARE)
    rows = torch.cat([positive, negative])
    things = assigned_r[positive]
    wanted = torch.cat([truth.boxes_k4[things].to(boxes_r4.dtype), boxes_r4[negative]])
    return _Chosen(boxes_r4[rows], wanted, things, truth, rows < len(proposals_r4))


def _spared(assigned_a: Tensor, boxes_a4: Tensor, truth: Things) -> Tensor:
    """Boxes that would be background, but lie by half or more in what nobody is to learn, learn
    nothing: where scores do not blame a network either (COCO's rule for crowds at 0.5)."""
    if not truth.ignored_hw.any():
        return assigned_a
    height, width = truth.ignored_hw.shape
    up_to_hw = F.pad(truth.ignored_hw.to(torch.int64), (1, 0, 1, 0)).cumsum(0).cumsum(1)
    sides_a4 = boxes_a4.round().to(torch.int64)
    left, right = (sides_a4[:, k].clamp(0, width) for k in (0, 2))
    top, bottom = (sides_a4[:, k].clamp(0, height) for k in (1, 3))
    inside = up_to_hw[bottom, right] - up_to_hw[top, right]
    inside = inside - up_to_hw[bottom, left] + up_to_hw[top, left]
    area = (right - left) * (bottom - top)
    is_spared = (assigned_a == BACKGROUND) & (area > 0) & (2 * inside >= area)
    return torch.where(is_spared, NEITHER, assigned_a)


def _seen(
    network: RegionDetector, maps: Sequence[Tensor], boxes: Sequence[Tensor], side: int
) -> Tensor:
    """What the heads see of boxes (R_i, 4) of each frame, one frame behind the other."""
    regions = [
        network.regions([map_nchw[frame : frame + 1] for map_nchw in maps], one.unsqueeze(0), side)
        for frame, one in enumerate(boxes)
    ]
    return torch.cat(regions)


def _mask_loss(
    network: RegionDetector,
    head: MaskHead,
    maps: Sequence[Tensor],
    chosen: Sequence[_Chosen],
) -> Tensor:
    """Binary cross entropy of the masks of each region's own class, within the regions."""
    boxes = [one.boxes[: len(one.things)] for one in chosen]
    logits = of_classes(
        head(_seen(network, maps, boxes, MASK_SIDE)),
        torch.cat([one.truth.classes_k[one.things] for one in chosen]),
    )
    if not len(logits):
        return logits.sum()  # 0, and a gradient of 0
    side = logits.shape[-1]
    wanted = torch.cat(
        [
            _cut_masks(one.truth.masks_khw[one.things], box, side)
            for one, box in zip(chosen, boxes, strict=True)
        ]
    )
    if not any(bool(one.truth.ignored_hw.any()) for one in chosen):
        return F.binary_cross_entropy_with_logits(logits, wanted)
    parts = [
        _cut(one.truth.ignored_hw[None, None], box[None], side)
        for one, box in zip(chosen, boxes, strict=True)
    ]
    known = 1 - torch.cat(parts)
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, known, reduction="sum")
    return entropy / known.sum().clamp(min=1)


def _cut_masks(masks_phw: Tensor, boxes_p4: Tensor, side: int) -> Tensor:
    """(P, side, side): whether most of each bin is the thing's."""
    return _cut(masks_phw.unsqueeze(1), boxes_p4.unsqueeze(1), side)


def _cut(masks_n1hw: Tensor, boxes_nr4: Tensor, side: int) -> Tensor:
    """(N * R, side, side): 1 where most of a bin is in the mask of its image, else 0."""
    if not boxes_nr4.numel():
        return boxes_nr4.new_zeros((0, side, side))
    cut = roi_align([masks_n1hw.to(boxes_nr4.dtype)], (1,), boxes_nr4, side)
    return (cut.squeeze(1) >= 0.5).to(boxes_nr4.dtype)


def _of_rows(values_k: Tensor, rows_a: Tensor) -> Tensor:
    """The values of the assigned things; something for boxes without one."""
    if not len(values_k):
        return values_k.new_zeros((len(rows_a), *values_k.shape[1:]))
    return values_k[rows_a.clamp(min=0)]


def _widened(level: Level) -> Level:
    """In fp32: bf16 resolves 0.4 %."""
    near = level.centerness.float() if level.centerness is not None else None
    return Level(level.logits.float(), level.sides.float(), near, level.anchors, level.stride)
