"""Lists of things are compared by what they mean, not by row."""

from __future__ import annotations

import numpy as np
import pytest

from dense_perception.core.boxes import areas, overlaps
from dense_perception.core.card_specs import InputSpec, InstancesSpec
from dense_perception.core.difference import Difference
from dense_perception.core.instance_lists import disagreement, list_difference

SPEC = InstancesSpec("coco", 4)
SIZE = InputSpec(50, 100)
Answer = dict[str, np.ndarray]


def answer(*rows: tuple[tuple[float, float, float, float], float, int]) -> Answer:
    """A batch of one with ``rows`` of box, score and class, and the others unused."""
    found: Answer = {
        "boxes": np.zeros((1, SPEC.count, 4), np.float32),
        "box_scores": np.zeros((1, SPEC.count), np.float32),
        "box_classes": np.zeros((1, SPEC.count), np.uint8),
    }
    for index, (box, score, label) in enumerate(rows):
        found["boxes"][0, index] = box
        found["box_scores"][0, index] = score
        found["box_classes"][0, index] = label
    return found


LEFT, RIGHT, SMALL = (10, 10, 30, 40), (60, 5, 90, 45), (1, 1, 1, 1)
WANT = answer((LEFT, 0.9, 0), (RIGHT, 0.8, 3), (SMALL, 0.2, 1))


def difference(got: Answer, want: Answer = WANT) -> Difference:
    return list_difference(got, want, SPEC, SIZE)


def test_overlaps_are_those_of_counted_pixels() -> None:
    generator = np.random.default_rng(0)
    low = generator.integers(0, 12, (2, 6, 2))
    boxes = np.concatenate([low, low + generator.integers(0, 9, (2, 6, 2))], axis=2)
    masks = np.zeros((2, 6, 24, 24), bool)
    for index in np.ndindex(2, 6):
        left, top, right, bottom = boxes[index]
        masks[(*index, slice(top, bottom), slice(left, right))] = True
    got = overlaps(boxes[0], boxes[1])
    for i, j in np.ndindex(6, 6):
        union = int((masks[0, i] | masks[1, j]).sum())
        shared = int((masks[0, i] & masks[1, j]).sum())
        assert got[i, j] == pytest.approx(shared / union if union else 0)
    assert areas(boxes[0]).tolist() == masks[0].sum((1, 2)).tolist()
    assert areas(np.array([[3, 3, 1, 9]])).tolist() == [0]


def test_rows_that_swap_are_no_difference() -> None:
    assert difference(WANT) == Difference(0, 0)
    near = answer((LEFT, 0.5, 0), (RIGHT, 0.5000001, 3))
    swapped = answer((RIGHT, 0.5000001, 3), (LEFT, 0.5, 0))
    assert difference(swapped, near).max_of_range == 0


def test_a_pair_counts_the_worst_of_its_box_and_its_score() -> None:
    moved = (LEFT[0] + 2, *LEFT[1:])
    got = answer((moved, 0.9, 0), (RIGHT, 0.77, 3), (SMALL, 0.2, 1))
    found = difference(got)
    assert found.max_of_range == pytest.approx(0.03, abs=1e-6)
    assert found.mean_of_range == pytest.approx((0.02 + 0.03 + 0) / 3, abs=1e-6)


def test_a_missing_row_counts_with_its_score_above_the_floor() -> None:
    without = answer((LEFT, 0.9, 0), (SMALL, 0.2, 1))
    # The lowest score of both lists is what a list could hold at least.
    assert difference(without).max_of_range == pytest.approx(0.8 - 0.2, abs=1e-6)
    assert difference(WANT, without).max_of_range == pytest.approx(0.6, abs=1e-6)
    assert difference(answer()).max_of_range == pytest.approx(0.9, abs=1e-6)
    full = answer((LEFT, 0.9, 0), (RIGHT, 0.8, 3), (SMALL, 0.2, 1), ((40, 0, 50, 9), 0.1999, 7))
    other = answer((LEFT, 0.9, 0), (RIGHT, 0.8, 3), (SMALL, 0.2, 1), ((0, 0, 50, 50), 0.1998, 7))
    assert difference(other, full).max_of_range < 2e-4, "either could be the last row"


def test_another_class_is_another_thing() -> None:
    got = answer((LEFT, 0.9, 0), (RIGHT, 0.8, 4), (SMALL, 0.2, 1))
    assert difference(got).max_of_range == pytest.approx(0.6, abs=1e-6)
    nan = answer((LEFT, float("nan"), 0))
    assert difference(nan).max_of_range == np.inf
    assert disagreement(nan, WANT, SIZE) == np.inf


def with_ids(found: Answer, *painted: tuple[tuple[int, ...], int]) -> Answer:
    ids = np.zeros((1, SIZE.height, SIZE.width), np.uint8)
    for (left, top, right, bottom), number in painted:
        ids[0, top:bottom, left:right] = number
    return {**found, "instance_ids": ids}


def test_ids_follow_their_rows() -> None:
    want = with_ids(WANT, (LEFT, 1), (RIGHT, 2))
    swapped = answer((RIGHT, 0.8, 3), (LEFT, 0.8, 0), (SMALL, 0.2, 1))
    same = answer((LEFT, 0.8, 0), (RIGHT, 0.8, 3), (SMALL, 0.2, 1))
    painted = with_ids(swapped, (LEFT, 2), (RIGHT, 1))
    assert difference(painted, with_ids(same, (LEFT, 1), (RIGHT, 2))).max_of_range == 0
    few = with_ids(WANT, (LEFT, 1), (RIGHT, 2), ((0, 0, 1, 9), 1))
    assert difference(few, want).max_of_range == 0, "9 of 5000 pixels on a border"
    many = with_ids(WANT, (LEFT, 1), (RIGHT, 2), ((0, 0, 10, 10), 1))
    assert difference(many, want).max_of_range == pytest.approx(100 / 5000)
    assert disagreement(many, want, SIZE) == pytest.approx(100 / 5000)


def test_masks_are_compared_pair_by_pair() -> None:
    masks = np.zeros((1, SPEC.count, SIZE.height, SIZE.width), np.uint8)
    masks[0, 0], masks[0, 1] = 10, 200
    turned = masks[:, [1, 0, 2, 3]].copy()
    want = {**answer((LEFT, 0.8, 0), (RIGHT, 0.8, 3)), "masks": masks}
    got = {**answer((RIGHT, 0.8, 3), (LEFT, 0.8, 0)), "masks": turned}
    assert difference(got, want).max_of_range == 0
    turned[0, 1, 0, 0] = 62
    assert difference(got, want).max_of_range == pytest.approx(51 / 255)


def test_what_a_coarse_graph_loses_is_weighted_by_scores() -> None:
    assert disagreement(WANT, WANT, SIZE) == 0
    assert disagreement(answer(), answer(), SIZE) == 0
    assert disagreement(answer(), WANT, SIZE) == 1
    # Half of the box's height is left: 0.5 of the union, so it counts at 0.5 and not at 0.75.
    halved = (LEFT[0], LEFT[1], LEFT[2], 25)
    got = answer((halved, 0.9, 0), (RIGHT, 0.8, 3), (SMALL, 0.2, 1))
    assert disagreement(got, WANT, SIZE) == pytest.approx(0.9 / 1.9 / 2, abs=1e-6)
    without = answer((LEFT, 0.9, 0), (RIGHT, 0.8, 3))
    assert disagreement(without, WANT, SIZE) == pytest.approx(0.2 / 3.6, abs=1e-6)
