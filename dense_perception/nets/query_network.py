"""Networks of queries: each says what it found and where, and merging makes the answers of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from dense_perception.core.errors import InputError
from dense_perception.nets.mask2former import merging

# What a card's `predicts` may say, and the tasks that it stands for.
PREDICTS: Mapping[str, tuple[str, ...]] = {
    "semantic": ("segmentation",),
    "instance": ("instances",),
    "panoptic": ("segmentation", "instances"),
}


class QueryPrediction(NamedTuple):
    """What the queries say after one layer.

    ``class_logits_bqk`` (B, Q, classes + 1), the last for "no object"; ``mask_logits_bqhw``
    (B, Q, rows, columns), one for a square of pixels. Of learned queries that have not seen the
    image yet, the class logits are one set for all frames: (1, Q, classes + 1).
    """

    class_logits_bqk: Tensor
    mask_logits_bqhw: Tensor


@dataclass(frozen=True)
class QueryConfig:
    """What is predicted, and how the queries' answers are merged.

    :param predicts: ``semantic``, ``instance`` or ``panoptic``.
    :param classes: all that are told apart, without "no object".
    :param thing_classes: of a panoptic network, the classes of things; the others are stuff.
        ``box_classes`` are indices into them.
    :param count: rows in the list of instances.
    :param instance_threshold: the score that an instance has at least; the authors keep all.
    :param panoptic_threshold: what the class probability of a segment exceeds.
    :param overlap_threshold: the part of its mask that a panoptic segment wins at least.
    """

    predicts: str = "panoptic"
    classes: int = 133
    thing_classes: tuple[int, ...] = tuple(range(80))
    count: int = 100
    queries: int = 100
    instance_threshold: float = 0.0
    panoptic_threshold: float = 0.8
    overlap_threshold: float = 0.8

    def __post_init__(self) -> None:
        if self.predicts not in PREDICTS:
            raise InputError(f"predicts is {self.predicts!r}, expected one of {list(PREDICTS)}")
        for name in ("classes", "count", "queries"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least 1")
        most = {
            "semantic": self.count,
            "instance": self.queries * self.classes,
            "panoptic": self.queries,
        }[self.predicts]
        if self.count > most:
            raise InputError(
                f"count is {self.count}, expected at most {most} with {self.queries} queries and "
                f"{self.classes} classes"
            )
        if self.predicts == "panoptic" and (
            len(set(self.thing_classes)) != len(self.thing_classes)
            or not all(0 <= thing < self.classes for thing in self.thing_classes)
        ):
            raise InputError(
                f"thing_classes is {list(self.thing_classes)}, expected different ones below "
                f"{self.classes}"
            )

    @property
    def tasks(self) -> tuple[str, ...]:
        """What is predicted, in the words of training and export."""
        return PREDICTS[self.predicts]

    @property
    def things(self) -> int:
        """How many classes of things are told apart."""
        return len(self.thing_classes) if self.predicts == "panoptic" else self.classes


class QueryNetwork(nn.Module):
    """A network whose :meth:`raw` gives the queries' predictions.

    :param stride: the side in pixels of the square that a mask logit stands for.
    """

    needs_focal = False
    depth_kind = None

    def __init__(self, config: QueryConfig, stride: int) -> None:
        super().__init__()
        self.config = config
        self.stride = stride
        self.gives_masks = config.predicts == "instance"

    def raw(self, image_nchw: Tensor) -> list[QueryPrediction]:
        """What the losses compare: the predictions after each layer, the last one's last."""
        raise NotImplementedError

    def forward(self, image_nchw: Tensor) -> dict[str, Tensor]:
        """The task's entries at the image's size: see :mod:`.mask2former.merging`."""
        config = self.config
        classes_bqk, masks_bqhw = self.raw(image_nchw)[-1]
        size_hw = (image_nchw.shape[2], image_nchw.shape[3])
        masks_bqhw = merging.enlarge(masks_bqhw, size_hw, self.stride)
        if config.predicts == "semantic":
            return merging.semantic(classes_bqk, masks_bqhw)
        if config.predicts == "instance":
            return merging.instances(
                classes_bqk, masks_bqhw, config.count, config.instance_threshold
            )
        return merging.panoptic(
            classes_bqk,
            masks_bqhw,
            config.count,
            config.panoptic_threshold,
            config.overlap_threshold,
            config.thing_classes,
        )
