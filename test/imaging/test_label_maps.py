"""Masks and overlays against loops over the pixels."""

from __future__ import annotations

import numpy as np
import pytest

from dense_perception.core.labels import LabelSet
from dense_perception.core.relabel import relabelling
from dense_perception.imaging.label_maps import overlay, relabel

FOUR = LabelSet("four", ("road", "car", "sky", "tree"))


@pytest.mark.parametrize("first", [0, 1, 1000])
def test_relabel_is_the_table_pixel_by_pixel(first: int) -> None:
    labels_hw = np.random.default_rng(0).choice([0, 1, 2, 3, 9, 255], (7, 5)).astype(np.uint8)
    mapping = relabelling(FOUR, ["a: car", "b: road, tree"], first_label=first)
    got = relabel(labels_hw, mapping)
    assert got.dtype == mapping.table.dtype
    for row in range(7):
        for column in range(5):
            name = dict(enumerate(FOUR.labels)).get(int(labels_hw[row, column]))
            wanted = {"car": first, "road": first + 1, "tree": first + 1}.get(name, mapping.void)
            assert got[row, column] == wanted


def test_wide_labels() -> None:
    many = LabelSet("many", tuple(f"class {number}" for number in range(300)))
    mapping = relabelling(many, ["last: class 299", "rest: *"])
    labels_hw = np.array([[299, 3, 298, 65535]], np.uint16)
    assert relabel(labels_hw, mapping).tolist() == [[0, 1, 1, 255]]


def test_overlay_mixes_colours_and_leaves_void_alone() -> None:
    rng = np.random.default_rng(1)
    rgb_hwc = rng.integers(0, 256, (6, 8, 3), np.uint8)
    labels_hw = rng.choice([0, 1, 2, 3, 255], (6, 8)).astype(np.uint8)
    mapping = relabelling(FOUR, ["solid: car, tree", "ground: road"])
    colors = LabelSet("groups", ("solid", "ground")).colors()
    got = overlay(rgb_hwc, labels_hw, mapping, 0.25).astype(int)
    for row in range(6):
        for column in range(8):
            group = {0: 1, 1: 0, 3: 0}.get(int(labels_hw[row, column]))
            wanted = rgb_hwc[row, column].astype(float)
            if group is not None:
                wanted = 0.75 * wanted + 0.25 * colors[group]
            assert np.abs(got[row, column] - wanted).max() <= 0.51


def test_overlay_brings_the_picture_to_the_masks_size() -> None:
    rgb_hwc = np.full((8, 12, 3), 90, np.uint8)
    labels_hw = np.full((4, 6), 255, np.uint8)
    got = overlay(rgb_hwc, labels_hw, relabelling(FOUR), 0.5)
    assert got.shape == (4, 6, 3)
    assert (got == 90).all()
