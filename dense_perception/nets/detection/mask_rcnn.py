"""Mask R-CNN (He 2017, arXiv:1703.06870), and the cascade of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from dense_perception.core.errors import InputError
from dense_perception.nets.detection.boxes import clip, decode_offsets
from dense_perception.nets.detection.detector import (
    MOST_PICKED,
    DetectorConfig,
    Found,
    above,
    answer,
    find,
    image_size,
    pairs,
)
from dense_perception.nets.detection.fpn import FPN
from dense_perception.nets.detection.nms import pick
from dense_perception.nets.detection.paste import paste_all
from dense_perception.nets.detection.roi_align import roi_align
from dense_perception.nets.detection.roi_heads import (
    BOX_SIDE,
    MASK_SIDE,
    BoxHead,
    MaskHead,
    of_classes,
)
from dense_perception.nets.detection.rpn import STRIDES, Proposed, RPNHead, propose

_ROI_STRIDES = STRIDES[:4]
DEVIATIONS = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))
"""Units of the box offsets, by stage of the cascade."""


@dataclass(frozen=True)
class RegionConfig(DetectorConfig):
    """Of the detectors that look at regions, as published with a feature pyramid.

    :param hidden: width of the box heads, with ``box_convs`` convolutions and ``box_fcs`` linear
        layers.
    :param proposals: regions that the heads look at, and boxes of each level compared before.
    :param sampling: samples of a RoIAlign's bin in each direction.
    :param mask_threshold: probability from which a pixel is a thing's.
    :param cascade: three stages, each for better boxes than the one before.
    """

    hidden: int = 1024
    box_convs: int = 0
    box_fcs: int = 2
    proposals: int = 1000
    sampling: int = 2
    mask_threshold: float = 0.5
    cascade: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.proposals <= MOST_PICKED or not 1 <= self.sampling <= 8:
            raise InputError(
                f"proposals is {self.proposals}, sampling {self.sampling}: expected 1 to "
                f"{MOST_PICKED} and 1 to 8"
            )
        if self.hidden < 1 or self.box_convs < 0 or self.box_fcs < 1:
            raise InputError(
                f"hidden is {self.hidden}, box_convs {self.box_convs}, box_fcs {self.box_fcs}: "
                "expected a width and a linear layer or more"
            )

    @property
    def stages(self) -> tuple[Sequence[float], ...]:
        """What the box offsets of each stage are in units of."""
        return DEVIATIONS if self.cascade else DEVIATIONS[:1]


class RegionDetector(nn.Module):
    """What looks at regions: backbone, feature pyramid, region proposal network and heads.

    ``backbone`` maps (N, 3, H, W) to maps at 1/4, 1/8, 1/16 and 1/32 and says its ``channels``.
    With one stage it is Mask R-CNN. In Cascade Mask R-CNN (Cai 2019, arXiv:1906.09756) each stage
    looks at the boxes of the one before; scores and masks are the mean of all.
    """

    gives_masks = True

    def __init__(self, backbone: nn.Module, config: RegionConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        widths: Sequence[int] = backbone.channels  # type: ignore[assignment]
        self.neck = FPN(widths, config.channels)
        self.rpn = RPNHead(config.channels)
        self.box_heads = nn.ModuleList(
            BoxHead(
                config.channels,
                config.classes,
                config.hidden,
                config.box_convs,
                config.box_fcs,
                deviations,
            )
            for deviations in config.stages
        )
        self.mask_heads = nn.ModuleList(
            MaskHead(config.channels, config.classes) for _ in config.stages
        )

    def raw(self, image_nchw: Tensor) -> tuple[list[Tensor], Proposed]:
        """What the losses begin with: the pyramid, and the proposals before any choice."""
        maps = self.neck(self.backbone(image_nchw))
        return maps, self.rpn(maps)

    def regions(self, maps: Sequence[Tensor], boxes_nr4: Tensor, side: int) -> Tensor:
        """(N * R, C, side, side): what the heads see of boxes."""
        used = maps[: len(_ROI_STRIDES)]
        return roi_align(used, _ROI_STRIDES, boxes_nr4, side, self.config.sampling)

    def propose(self, proposed: Proposed, size_hw: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Boxes (N, R, 4) for the heads, and which of them are some."""
        return propose(proposed, size_hw, self.config.proposals, self.config.proposals)

    def forward(self, image_nchw: Tensor) -> dict[str, Tensor]:
        """``boxes``, ``box_scores``, ``box_classes``, ``instance_ids`` and ``masks`` (0 to 1)."""
        size_hw = image_size(image_nchw)
        maps, proposed = self.raw(image_nchw)
        boxes_nr4, used_nr = self.propose(proposed, size_hw)
        found = self._find(maps, boxes_nr4, used_nr, size_hw)
        regions = self.regions(maps, found.boxes, MASK_SIDE)
        classes = found.classes.flatten()
        masks = [torch.sigmoid(of_classes(head(regions), classes)) for head in self.mask_heads]
        return with_masks(found, _mean(masks), size_hw, self.config.mask_threshold)

    def _find(
        self,
        maps: Sequence[Tensor],
        boxes_nr4: Tensor,
        used_nr: Tensor,
        size_hw: Sequence[int],
    ) -> Found:
        config = self.config
        first, *others = (cast(BoxHead, head) for head in self.box_heads)
        logits, offsets = first(self.regions(maps, boxes_nr4, BOX_SIDE))
        last, all_logits = first, [logits]
        for head in others:
            boxes_nr4 = clip(last.refine(boxes_nr4, logits, offsets), size_hw)
            logits, offsets = head(self.regions(maps, boxes_nr4, BOX_SIDE))
            last = head
            all_logits.append(logits)
        rows = boxes_nr4.shape[1]
        scores_nrc = torch.softmax(_mean(all_logits), dim=-1)[:, :-1].unflatten(0, (-1, rows))
        scores_nrc = scores_nrc * used_nr.unsqueeze(-1).to(scores_nrc.dtype)
        scores_nk, row_nk, class_nk = pairs(scores_nrc, config.candidates)
        offsets_np4 = offsets.flatten(0, 1).unflatten(0, (-1, rows * config.classes))
        offsets_nk4 = pick(offsets_np4, row_nk * config.classes + class_nk)
        decoded = decode_offsets(pick(boxes_nr4, row_nk), offsets_nk4, last.deviations)
        scores_nk = above(scores_nk, config.score_threshold)
        return find(clip(decoded, size_hw), scores_nk, class_nk, config)


def _mean(values: Sequence[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else torch.stack(list(values)).mean(dim=0)


def with_masks(
    found: Found, masks_kss: Tensor, size_hw: Sequence[int], threshold: float
) -> dict[str, Tensor]:
    """The network's outputs of what was found and its masks (N * M, S, S) within the boxes."""
    masks_nmss = masks_kss.unflatten(0, (-1, found.boxes.shape[1]))
    used = found.used.unsqueeze(-1).unsqueeze(-1).to(masks_nmss.dtype)
    masks_nmss = masks_nmss * used
    ids_nhw, masks_nmhw = paste_all(masks_nmss, found.boxes, found.used, size_hw, threshold)
    return {**answer(found), "instance_ids": ids_nhw, "masks": masks_nmhw}
