"""What the detectors have in common: their settings and how their answer is laid out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dense_perception.core.errors import InputError
from dense_perception.nets.detection.nms import best, pad_rows, pick, suppress

_MOST_THINGS = 255
MOST_PICKED = 3840
"""Rows that TensorRT's TopK can pick."""


@dataclass(frozen=True)
class DetectorConfig:
    """Of every detector. The published ones have 80 classes and 256 channels.

    :param count: rows of the answer.
    :param score_threshold: what scores less is no thing.
    :param overlap: IoU above which the lower one of two boxes of a class falls.
    :param candidates: pairs of box and class that are compared with each other, those with the
        highest scores; the published detectors compare all above the threshold.
    """

    classes: int = 80
    channels: int = 256
    count: int = 100
    score_threshold: float = 0.05
    overlap: float = 0.5
    candidates: int = 1000

    def __post_init__(self) -> None:
        if not 1 <= self.classes <= _MOST_THINGS or self.channels < 1:
            raise InputError(
                f"classes is {self.classes}, channels {self.channels}: expected 1 to "
                f"{_MOST_THINGS} classes and a channel or more"
            )
        if not 1 <= self.count <= self.candidates <= MOST_PICKED:
            raise InputError(
                f"count is {self.count}, candidates {self.candidates}: expected 1 <= count <= "
                f"candidates <= {MOST_PICKED}"
            )
        if not (0 <= self.score_threshold < 1 and 0 < self.overlap <= 1):
            raise InputError(
                f"score_threshold is {self.score_threshold}, overlap {self.overlap}: expected "
                "shares of 1"
            )

    @property
    def tasks(self) -> tuple[str, ...]:
        """What is predicted, in the words of training and export."""
        return ("instances",)

    @property
    def things(self) -> int:
        """How many classes of things are told apart."""
        return self.classes


class Found(NamedTuple):
    """``boxes`` (N, M, 4), ``scores`` (N, M) falling, ``classes`` (N, M) int64, ``used`` bool.

    ``rows`` (N, M) int64 say which candidate each was. Unused rows are zero, behind the others.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    used: Tensor
    rows: Tensor


def find(boxes_nk4: Tensor, scores_nk: Tensor, classes_nk: Tensor, config: DetectorConfig) -> Found:
    """Suppression within each class, and the ``count`` best of what is left.

    :param boxes_nk4: by falling score, clipped to the image. Boxes without area and scores of 0
        are no candidates.
    """
    sides = boxes_nk4[..., 2:] - boxes_nk4[..., :2]
    valid_nk = (scores_nk > 0) & (sides > 0).all(dim=-1)
    kept_nk = suppress(boxes_nk4, valid_nk, config.overlap, classes_nk)
    # Kept ones are above 0, others at it; the order among equal ones does not matter there.
    ranked = torch.where(kept_nk, scores_nk, torch.zeros_like(scores_nk))
    scores_nm, rows_nm = best(ranked, config.count)
    scores_nm, rows_nm = pad_rows(scores_nm, config.count), pad_rows(rows_nm, config.count)
    used_nm = scores_nm > 0
    boxes_nm4 = pick(boxes_nk4, rows_nm) * used_nm.unsqueeze(-1).to(boxes_nk4.dtype)
    classes_nm = classes_nk.gather(1, rows_nm) * used_nm.to(torch.int64)
    return Found(boxes_nm4, scores_nm, classes_nm, used_nm, rows_nm)


def answer(found: Found) -> dict[str, Tensor]:
    """The network's outputs of what was found, without masks."""
    return {"boxes": found.boxes, "box_scores": found.scores, "box_classes": found.classes}


def above(scores: Tensor, threshold: float) -> Tensor:
    """Scores, 0 where they are not above the threshold."""
    return scores * (scores > threshold).to(scores.dtype)


def pairs(scores_nrc: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The ``count`` best pairs of row and class: scores, rows and classes, (N, K) each."""
    rows, classes = scores_nrc.shape[1:]
    scores_nk, places_nk = best(scores_nrc.flatten(1), count)
    # Looked up: runtimes divide whole numbers in different ways.
    row_of = torch.arange(rows, device=scores_nrc.device).repeat_interleave(classes)
    class_of = torch.arange(classes, device=scores_nrc.device).repeat(rows)
    places = places_nk.flatten()
    found = (table.index_select(0, places) for table in (row_of, class_of))
    row_nk, class_nk = (values.reshape(places_nk.shape) for values in found)
    return scores_nk, row_nk, class_nk


def image_size(image_nchw: Tensor) -> Sequence[int]:
    """Height and width."""
    return image_nchw.shape[-2:]
