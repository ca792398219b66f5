"""Boxes, instances, labels and depth from one pass: the small MulT with a stream for centres.

The stream of :mod:`dense_perception.nets.mult_lite` that finds things has three maps: the logit of
the height of centres and the offsets to them. :mod:`dense_perception.nets.centres` groups the
pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.core.errors import InputError
from dense_perception.core.instance_lists import BOXES, CLASSES, IDS, SCORES
from dense_perception.nets.centres import CentreGrouping
from dense_perception.nets.mult import TASKS
from dense_perception.nets.mult_lite import MulTLite, MulTLiteConfig, TaskHead

INSTANCES = "instances"
# The logit of a height of 0.02.
_START_HEIGHT = -3.9


@dataclass(frozen=True)
class PanopticLiteConfig(MulTLiteConfig):
    """The small MulT's, and what is a thing.

    :param stuff: classes that are no things, counted from 0: walls, floors and the like.
    :param count: most things in a picture.
    :param threshold: the least height of a centre, 0 to 1.
    :param min_pixels: the fewest pixels of a thing, at half of the image's size.
    """

    known_tasks: ClassVar[tuple[str, ...]] = (*TASKS, INSTANCES)

    tasks: tuple[str, ...] = ("segmentation", "depth", INSTANCES)
    stuff: tuple[int, ...] = (0, 1, 2)
    count: int = 32
    threshold: float = 0.1
    min_pixels: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        if not {"segmentation", INSTANCES} <= set(self.tasks):
            raise InputError(
                f"tasks are {list(self.tasks)}, expected segmentation and instances among them"
            )
        wrong = [index for index in self.stuff if not 0 <= index < self.classes]
        repeated = len(set(self.stuff)) != len(self.stuff)
        if wrong or repeated or not 0 < len(self.stuff) < self.classes:
            raise InputError(
                f"stuff is {list(self.stuff)}, expected one or more different classes from 0 to "
                f"{self.classes - 1}, and not all of them"
            )
        if not (1 <= self.count <= 100 and 0 < self.threshold < 1 and self.min_pixels >= 1):
            raise InputError(
                f"count is {self.count}, threshold {self.threshold}, min_pixels {self.min_pixels}: "
                "expected 1 to 100, between 0 and 1, and 1 or more"
            )

    @property
    def things(self) -> int:
        """How many classes are things."""
        return len(self.thing_classes)

    @property
    def thing_classes(self) -> tuple[int, ...]:
        """The classes that are things, as ``box_classes`` count them."""
        return tuple(label for label in range(self.classes) if label not in self.stuff)

    def channels_of(self, task: str) -> int:
        return 3 if task == INSTANCES else super().channels_of(task)


class PanopticLite(MulTLite):
    """As :class:`~dense_perception.nets.mult_lite.MulTLite`, but ``labels`` and ``confidence``
    (N, H, W), 0 to 1, in place of logits, merged with the things: ``boxes`` (N, count, 4),
    ``box_scores`` and ``box_classes`` (N, count), which count the things alone, and
    ``instance_ids`` (N, H, W).
    """

    gives_masks = False

    def __init__(self, config: PanopticLiteConfig) -> None:
        super().__init__(config)
        self.grouping = CentreGrouping(
            config.classes, config.stuff, config.count, config.threshold, config.min_pixels
        )
        head = self.heads[INSTANCES]
        assert isinstance(head, TaskHead)
        assert head.out.bias is not None
        nn.init.zeros_(head.out.weight)
        # Next to nowhere is a centre; the heights' four sub-pixels come first.
        nn.init.constant_(head.out.bias[:4], _START_HEIGHT)

    def forward(self, image_nchw: Tensor, focal_px: Tensor | None = None) -> dict[str, Tensor]:
        found = self.maps(image_nchw)
        height, width = image_nchw.shape[-2:]
        logits, centres = found.pop("segmentation"), found.pop(INSTANCES)
        centres = torch.cat([centres[:, :1].sigmoid(), centres[:, 1:]], dim=1)
        stride = width // logits.shape[-1]
        things = self.grouping(logits, centres, stride)

        def enlarged(map_nhw: Tensor) -> Tensor:
            return F.interpolate(map_nhw[:, None], (height, width), mode="nearest")[:, 0]

        return {
            "labels": enlarged(things.labels).to(torch.int32),
            "confidence": enlarged(things.confidence),
            BOXES: things.boxes,
            SCORES: things.scores,
            CLASSES: things.classes,
            IDS: enlarged(things.ids).to(torch.int32),
            **self.in_units(found, width, focal_px),
        }
