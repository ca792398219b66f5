"""Detectors without regions: ATSS (Zhang 2020, arXiv:1912.02424) and GFL (Li 2020,
arXiv:2006.04388).

Every place of the pyramid says class and box of what it lies in. ATSS also says how near to the
middle it is (centerness, Tian 2019), which weighs its score. GFL's score is the quality itself, and
each side of its boxes is a distribution over distances of which the mean is taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dense_perception.core.errors import InputError
from dense_perception.nets.detection.anchors import anchors
from dense_perception.nets.detection.boxes import clip, decode_distances, decode_offsets
from dense_perception.nets.detection.detector import (
    DetectorConfig,
    above,
    answer,
    find,
    image_size,
    pairs,
)
from dense_perception.nets.detection.fpn import FPN
from dense_perception.nets.detection.nms import best, pick

STRIDES = (8, 16, 32, 64, 128)
SCALE = 8.0
DEVIATIONS = (0.1, 0.1, 0.2, 0.2)
_GROUPS = 32
_PRIOR = 0.01  # probability of a thing at a place, before training


@dataclass(frozen=True)
class DenseConfig(DetectorConfig):
    """Of both heads.

    :param overlap: as published, 0.6.
    :param convs: convolutions of each tower.
    :param bins: largest distance of GFL in strides; 0 for ATSS.
    """

    overlap: float = 0.6
    convs: int = 4
    bins: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.convs < 1 or self.bins < 0:
            raise InputError(
                f"convs is {self.convs}, bins {self.bins}: expected 1 or more, and 0 or more"
            )


class Level(NamedTuple):
    """What one level says, P places: ``logits`` (N, P, classes), ``sides`` (N, P, 4) offsets or
    (N, P, 4, bins + 1) logits of distances, ``centerness`` logits (N, P), of ATSS alone, and the
    ``anchors`` (P, 4) of the places with their ``stride``."""

    logits: Tensor
    sides: Tensor
    centerness: Tensor | None
    anchors: Tensor
    stride: int

    @property
    def boxes(self) -> Tensor:
        """(N, P, 4)."""
        if self.centerness is not None:
            return decode_offsets(self.anchors, self.sides, DEVIATIONS)
        middle_p2 = (self.anchors[:, :2] + self.anchors[:, 2:]) / 2
        return decode_distances(middle_p2, integral(self.sides) * self.stride)


def integral(logits: Tensor) -> Tensor:
    """The mean of the distribution over 0, 1, ... in the last dimension (GFL, equation 5)."""
    values = torch.arange(logits.shape[-1], dtype=logits.dtype, device=logits.device)
    return (torch.softmax(logits, dim=-1) * values).sum(dim=-1)


class DenseHead(nn.Module):
    """Two towers of convolutions, one for classes and one for boxes, for all levels."""

    def __init__(self, config: DenseConfig) -> None:
        super().__init__()
        channels = config.channels
        self.bins = config.bins
        self.class_tower = _tower(channels, config.convs)
        self.box_tower = _tower(channels, config.convs)
        self.classify = nn.Conv2d(channels, config.classes, 3, padding=1)
        self.regress = nn.Conv2d(channels, 4 * (config.bins + 1), 3, padding=1)
        self.centerness = None if config.bins else nn.Conv2d(channels, 1, 3, padding=1)
        self.scales = nn.ParameterList(torch.ones(()) for _ in STRIDES)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        assert self.classify.bias is not None
        nn.init.constant_(self.classify.bias, -math.log((1 - _PRIOR) / _PRIOR))

    def forward(self, maps: Sequence[Tensor]) -> list[Level]:
        levels = []
        for index, (stride, map_nchw) in enumerate(zip(STRIDES, maps, strict=True)):
            of_class, of_box = self.class_tower(map_nchw), self.box_tower(map_nchw)
            sides = _places(self.regress(of_box) * self.scales[index])
            centerness = None
            if self.centerness is not None:
                centerness = _places(self.centerness(of_box)).squeeze(-1)
            else:
                sides = sides.unflatten(-1, (4, -1))
            size_hw = (map_nchw.shape[2], map_nchw.shape[3])
            anchors_p4 = anchors(size_hw, stride, SCALE, (1.0,), map_nchw)
            logits = _places(self.classify(of_class))
            levels.append(Level(logits, sides, centerness, anchors_p4, stride))
        return levels


class DenseDetector(nn.Module):
    """A backbone, a feature pyramid from 1/8 to 1/128 and ATSS's or GFL's head.

    ``backbone`` maps (N, 3, H, W) to maps at 1/4, 1/8, 1/16 and 1/32 and says its ``channels``.
    """

    gives_masks = False

    def __init__(self, backbone: nn.Module, config: DenseConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        widths: Sequence[int] = backbone.channels  # type: ignore[assignment]
        self.neck = FPN(widths, config.channels, len(STRIDES), first=1, learnt=True)
        self.head = DenseHead(config)

    def raw(self, image_nchw: Tensor) -> list[Level]:
        """What the losses compare."""
        return self.head(self.neck(self.backbone(image_nchw)))

    def forward(self, image_nchw: Tensor) -> dict[str, Tensor]:
        """``boxes``, ``box_scores`` and ``box_classes``."""
        config = self.config
        scores, boxes, classes = [], [], []
        for level in self.raw(image_nchw):
            scores_nk, row_nk, class_nk = pairs(torch.sigmoid(level.logits), config.candidates)
            scores_nk = above(scores_nk, config.score_threshold)
            if level.centerness is not None:
                near_np = torch.sigmoid(level.centerness)
                scores_nk = scores_nk * near_np.gather(1, row_nk)
            scores.append(scores_nk)
            boxes.append(pick(level.boxes, row_nk))
            classes.append(class_nk)
        scores_nk, places_nk = best(torch.cat(scores, dim=1), config.candidates)
        boxes_nk4 = clip(pick(torch.cat(boxes, dim=1), places_nk), image_size(image_nchw))
        class_nk = torch.cat(classes, dim=1).gather(1, places_nk)
        return answer(find(boxes_nk4, scores_nk, class_nk, config))


def _tower(channels: int, convs: int) -> nn.Sequential:
    # 32 groups of the published 256 channels; of narrow ones groups of 8, where there are as many.
    groups = math.gcd(_GROUPS, max(channels // 8, 1))
    layers: list[nn.Module] = []
    for _ in range(convs):
        layers += [
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(groups, channels),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


def _places(map_nchw: Tensor) -> Tensor:
    """(N, C, H, W) to (N, H * W, C)."""
    return map_nchw.flatten(2).transpose(1, 2)
