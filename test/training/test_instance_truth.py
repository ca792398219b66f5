"""Which classes are things to a network, and what is said of their pixels without a number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dense_perception.core.camera import Intrinsics
from dense_perception.data.sample import Sample
from dense_perception.training.instance_truth import thing_classes

WALL, CHAIR, TABLE = 1, 2, 3
PANOPTIC = {"family": "panoptic", "variant": "lite0", "classes": 3, "stuff": [0]}
DETECTOR = {"family": "mask_rcnn", "variant": "vit_comer_tiny", "classes": 3}


class Rooms:
    """Walls and tables have no numbers, of the chairs one has."""

    name, classes, keys = "rooms", ("wall", "chair", "table"), ("a", "b")

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Sample:
        labels_hw = np.array([[WALL, WALL, CHAIR, CHAIR, TABLE]], np.uint8)
        return Sample(
            np.zeros((1, 5, 3), np.uint8),
            np.ones((1, 5), np.float32),
            Intrinsics.from_fov(5, 1, 60),
            labels_hw,
            instances_hw=np.array([[0, 0, 8 * index, 8, 0]], np.uint16),
            instance_labels={8: CHAIR},
        )

    def frame(self, key: str) -> Sample:
        return self[self.keys.index(key)]


@pytest.mark.parametrize(
    ("network", "things", "named"),
    [
        (
            PANOPTIC,
            {CHAIR, TABLE},
            "in 2 of 2 frames that were looked at, pixels of things (chair,",
        ),
        # What its corpora never number is background to a network without labels.
        (DETECTOR, {CHAIR}, "in 1 of 2 frames that were looked at, pixels of things (chair) have"),
    ],
)
def test_things_without_a_number_are_named(
    network: dict[str, Any], things: set[int], named: str
) -> None:
    found, (problem,) = thing_classes(network, [Rooms()])
    assert found == things
    assert named in problem
    assert problem.startswith("rooms: ")
