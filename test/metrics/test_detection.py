"""Average precision against cases done by hand, and a loop over overlaps and recalls."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import pytest

from dense_perception.core.boxes import overlaps
from dense_perception.core.errors import InputError
from dense_perception.metrics import detection
from dense_perception.metrics.detection import (
    DetectionScores,
    FoundThings,
    TrueThing,
    mask_of_rle,
    rle_of_counts,
    rle_of_mask,
    rle_of_polygons,
)

Box = tuple[float, float, float, float]
Row = tuple[Box, float, int]


def found(rows: Sequence[Row], masks: Sequence[np.ndarray] | None = None) -> FoundThings:
    return FoundThings(
        np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[1] for row in rows], np.float32),
        np.array([row[2] for row in rows], np.uint8),
        None if masks is None else [rle_of_mask(mask) for mask in masks],
    )


def box_of(sides: np.ndarray) -> Box:
    left, top, right, bottom = (float(np.float32(side)) for side in sides)
    return left, top, right, bottom


def test_a_case_by_hand() -> None:
    """Two chairs: the second answer is wrong, the third right: precision 1, then 2 / 3."""
    scores = DetectionScores(("chair", "table"))
    left, right = (0, 0, 40, 40), (50, 0, 90, 40)
    answers: list[Row] = [(left, 0.9, 0), ((0, 50, 40, 90), 0.8, 0), (right, 0.7, 0)]
    scores.add(100, 100, found(answers), [TrueThing(left, 0), TrueThing(right, 0)])
    got = scores.boxes()
    # Recall .5 is at 1; of the 101 recalls 0 to .5 are 51, the other 50 have 2 / 3.
    assert got.ap == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert got.ap50 == pytest.approx(got.ap)
    assert got.recall == 1
    assert got.by_class == {"chair": pytest.approx(got.ap)}, "no table occurs"
    assert got.ap_medium == pytest.approx(got.ap)
    assert np.isnan(got.ap_small)
    assert scores.masks() is None


def test_crowds_and_empty_pictures() -> None:
    scores = DetectionScores(("person",))
    crowd = TrueThing((0, 0, 100, 50), 0, crowd=True)
    person = TrueThing((0, 60, 30, 100), 0)
    inside: list[Row] = [((10, 0, 30, 40), 0.99, 0), ((40, 0, 60, 40), 0.98, 0)]
    scores.add(100, 100, found([*inside, (person.box, 0.5, 0)]), [crowd, person])
    assert scores.boxes().ap == pytest.approx(1), "what is found in a crowd counts nowhere"
    scores.add(100, 100, found([]), [])
    assert scores.boxes().ap == pytest.approx(1)
    scores.add(100, 100, found([((0, 0, 9, 9), 0.7, 0)]), [])
    assert scores.boxes().ap == pytest.approx(0.5), "a thing found where there is none"
    none = DetectionScores(("person",))
    none.add(9, 9, found([]), [])
    assert np.isnan(none.boxes().ap)
    none.add(9, 9, found([]), [person])
    assert none.boxes().ap == 0


def naive_ap(pictures: list[tuple[list[Row], list[Box]]], least: float) -> float:
    """One class without crowds: match greedily, then read precision at 101 recalls."""
    judged: list[tuple[float, bool]] = []
    for rows, true in pictures:
        free = set(range(len(true)))
        for box, score, _ in sorted(rows, key=lambda row: -row[1]):
            shares = {n: overlaps(np.array([box]), np.array([true[n]]))[0, 0] for n in free}
            best = max(shares, key=lambda n: shares[n], default=None)
            hit = best is not None and shares[best] >= least
            if best is not None and hit:
                free.remove(best)
            judged.append((score, hit))
    total = sum(len(true) for _, true in pictures)
    hits = np.cumsum([hit for _, hit in sorted(judged, key=lambda each: -each[0])])
    recall, precision = hits / total, hits / np.arange(1, len(hits) + 1)
    at = [precision[recall >= r].max(initial=0) for r in np.linspace(0, 1, 101)]
    return float(np.mean(at))


def test_generated_pictures_count_as_a_loop_does() -> None:
    generator = np.random.default_rng(2)
    pictures: list[tuple[list[Row], list[Box]]] = []
    scores = DetectionScores(("thing",))
    for _ in range(8):
        low = generator.uniform(0, 150, (5, 2))
        true = np.concatenate([low, low + generator.uniform(20, 50, (5, 2))], axis=1)
        moved = true + generator.normal(0, 4, true.shape)
        wrong = np.tile(generator.uniform(0, 50, 2), 2) + np.array([0, 0, 30, 30])
        rows: list[Row] = [
            (box_of(box), float(np.float32(generator.random())), 0) for box in (*moved[:4], wrong)
        ]
        boxes = [box_of(box) for box in true]
        pictures.append((rows, boxes))
        scores.add(200, 200, found(rows), [TrueThing(box, 0) for box in boxes])
    got = scores.boxes()
    each = [naive_ap(pictures, least) for least in np.linspace(0.5, 0.95, 10)]
    assert got.ap50 == pytest.approx(each[0], abs=1e-6)
    assert got.ap75 == pytest.approx(each[5], abs=1e-6)
    assert got.ap == pytest.approx(np.mean(each), abs=1e-6)
    assert 0.1 < got.ap < 0.9


def test_masks_by_hand() -> None:
    true_hw, half_hw = np.zeros((2, 60, 60), bool)
    true_hw[10:50, 10:50], half_hw[10:50, 10:38] = True, True
    scores = DetectionScores(("thing",))
    thing = TrueThing((10, 10, 50, 50), 0, mask=rle_of_mask(true_hw))
    # The box is perfect, the mask covers 70 % of it: right at .50, .55, .60, .65 and .70.
    scores.add(60, 60, found([((10, 10, 50, 50), 0.9, 0)], [half_hw]), [thing])
    assert scores.boxes().ap == pytest.approx(1)
    masks = scores.masks()
    assert masks is not None
    assert masks.ap == pytest.approx(0.5)


def test_polygons_outside_of_the_picture_are_cut_off() -> None:
    mask = mask_of_rle(rle_of_polygons([[-20, 4, 8, 4, 8, 100, -20, 100]], 30, 20))
    assert mask.shape == (20, 30)
    np.testing.assert_array_equal(mask, np.pad(np.ones((16, 8), bool), ((4, 0), (0, 22))))
    assert not mask_of_rle(rle_of_polygons([[50, 50, 60, 50, 60, 60]], 30, 20)).any()
    crowd = mask_of_rle(rle_of_counts([20, 40, 540], 30, 20))
    np.testing.assert_array_equal(np.nonzero(crowd.any(axis=0))[0], [1, 2])


def test_what_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = DetectionScores(("thing",))
    with pytest.raises(InputError, match="classes 0 to 3, expected 0 to 0"):
        scores.add(9, 9, found([((0, 0, 1, 1), 0.5, 3)]), [TrueThing((0, 0, 1, 1), 0)])
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(InputError, match=r"pip install 'dense_perception\[detection\]'"):
        detection.DetectionScores(("thing",))
