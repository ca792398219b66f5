"""Label sets: published sizes and landmarks, and colours that can be told apart."""

from __future__ import annotations

import numpy as np
import pytest

from dense_perception.core.labels import LABEL_SETS


@pytest.mark.parametrize(
    ("name", "count", "landmarks"),
    [
        ("ade20k", 150, {0: "wall", 2: "sky", 12: "person", 20: "car", 149: "flag"}),
        ("cityscapes", 19, {0: "road", 11: "person", 13: "car", 18: "bicycle"}),
        ("pascal_context", 60, {0: "background", 1: "aeroplane"}),
        ("coco", 80, {0: "person", 2: "car", 79: "toothbrush"}),
        (
            "coco_panoptic",
            133,
            {79: "toothbrush", 80: "banner", 93: "mirror-stuff", 132: "rug-merged"},
        ),
        ("generated_rooms", 25, {0: "wall", 1: "floor", 24: "other_furniture"}),
    ],
)
def test_published_sets(name: str, count: int, landmarks: dict[int, str]) -> None:
    labels = LABEL_SETS[name].labels
    assert len(labels) == len(set(labels)) == count
    assert {index: labels[index] for index in landmarks} == landmarks
    assert not [label for label in labels if label != label.strip() or not label]


@pytest.mark.parametrize("name", sorted(LABEL_SETS))
def test_colours_are_distinct(name: str) -> None:
    labels = LABEL_SETS[name]
    colors = labels.colors()
    assert colors.shape == (256, 3)
    assert colors.dtype == np.uint8
    used = {tuple(color) for color in colors[: len(labels.labels)].tolist()}
    assert len(used) == len(labels.labels)
    assert not colors[len(labels.labels) :].any()


def test_known_colours() -> None:
    assert LABEL_SETS["cityscapes"].colors()[0].tolist() == [128, 64, 128]
    # PASCAL VOC's own first colours.
    assert LABEL_SETS["coco"].colors()[:3].tolist() == [[128, 0, 0], [0, 128, 0], [128, 128, 0]]
