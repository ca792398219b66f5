"""Panoptic quality and box precision of validation, in frames that are counted by hand."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from dense_perception.core.camera import Intrinsics
from dense_perception.core.labels import VOID
from dense_perception.data.instance_rows import MOST_ROWS, NOBODY, unknown_rows
from dense_perception.data.sample import Sample
from dense_perception.data.targets import INSTANCE_ROWS
from dense_perception.data.unnumbered import VoidUnnumbered
from dense_perception.training import thing_scores
from dense_perception.training.batches import whole_batches
from dense_perception.training.config import StageConfig
from dense_perception.training.thing_scores import ThingScores

WALL, BOX, CHAIR = 0, 1, 2
THINGS = (BOX, CHAIR)
SIZE = (40, 60)
# Two boxes and a chair, x1, y1, x2, y2, all far apart.
FIRST, SECOND, SEAT = (2, 2, 12, 12), (20, 2, 30, 12), (40, 20, 50, 30)
EMPTY = (2, 25, 12, 35)

Things = list[tuple[tuple[int, int, int, int], int]]


def numbered(boxes: Things) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, labels and the classes of the rows."""
    ids_hw, labels_hw = np.zeros(SIZE, np.int32), np.full(SIZE, WALL, np.uint8)
    classes_k = np.full(MOST_ROWS, NOBODY, np.int64)
    for row, ((x1, y1, x2, y2), label) in enumerate(boxes):
        ids_hw[y1:y2, x1:x2] = row + 1
        labels_hw[y1:y2, x1:x2] = label
        classes_k[row] = label
    return ids_hw, labels_hw, classes_k


def answer(found: Things, *, ids: bool = True) -> dict[str, np.ndarray]:
    """Of a network that is the surer of a thing the earlier it is in the list."""
    count = 6
    boxes_m4, scores_m = np.zeros((count, 4), np.float32), np.zeros(count, np.float32)
    classes_m = np.zeros(count, np.int64)
    for row, (box, label) in enumerate(found):
        boxes_m4[row], scores_m[row], classes_m[row] = box, 0.9 - 0.1 * row, THINGS.index(label)
    outputs: dict[str, np.ndarray] = {
        "boxes": boxes_m4,
        "box_scores": scores_m,
        "box_classes": classes_m,
    }
    if ids:
        outputs["instance_ids"] = numbered(found)[0]
    return {name: array[None] for name, array in outputs.items()}


def judged(
    found: Things, true: Things, *, ids: bool = True, labels: bool = True, crowd: bool = False
) -> dict[str, float]:
    """``crowd``: nobody is to learn the last of the true things."""
    ids_hw, labels_hw, classes_k = numbered(true)
    if crowd:
        classes_k[len(true) - 1] = NOBODY
    targets = {"instance_ids": ids_hw[None], "instance_classes": classes_k[None]}
    if labels:
        targets["segmentation"] = labels_hw[None]
    scores = ThingScores(3, THINGS)
    scores.add(answer(found, ids=ids), targets)
    return scores.figures()


def test_what_is_found_is_counted() -> None:
    # The second box is off by 2 of 10 pixels: 80 of 120 are shared.
    shifted = (22, 2, 32, 12)
    got = judged([(FIRST, BOX), (shifted, BOX)], [(FIRST, BOX), (SECOND, BOX), (SEAT, CHAIR)])
    assert got["things_sq"] == pytest.approx((1 + 80 / 120) / 2 / 2)
    assert got["things_rq"] == got["box_ap50"] == pytest.approx((1 + 0) / 2)
    # Surer of a box on the empty wall than of the two: precision 1/2 and 2/3, raised to 2/3.
    false = [(EMPTY, BOX), (FIRST, BOX), (SECOND, BOX)]
    got = judged(false, [(FIRST, BOX), (SECOND, BOX)])
    assert got["things_pq"] == pytest.approx(2 / 2.5)
    assert got["box_ap50"] == pytest.approx(2 / 3)


def test_boxes_without_masks_are_counted_too() -> None:
    got = judged([(FIRST, BOX)], [(FIRST, BOX), (SEAT, CHAIR)], ids=False, labels=False)
    assert got == {"box_ap50": pytest.approx(0.5)}


@pytest.mark.parametrize("labels", [True, False])
def test_nobody_is_blamed_for_a_crowd(labels: bool) -> None:
    true: Things = [(FIRST, BOX), (SECOND, BOX)]
    found: Things = [((20, 2, 25, 12), CHAIR), ((25, 2, 30, 12), BOX), (FIRST, BOX)]
    assert judged(found, true, labels=labels)["things_pq"] < 1
    got = judged(found, true, labels=labels, crowd=True)
    assert (got["things_pq"], got["box_ap50"]) == (1, 1)
    # Nor is it to be found.
    got = judged(found[2:], true, labels=labels, crowd=True)
    assert (got["things_pq"], got["box_ap50"]) == (1, 1)


@pytest.mark.parametrize("labelled", [True, False])
def test_things_without_a_number_are_void(labelled: bool) -> None:
    ids_hw, labels_hw, _ = numbered([(FIRST, BOX), (SEAT, BOX)])
    ids_hw[ids_hw == 2] = 0
    frame = Sample(
        np.zeros((*SIZE, 3), np.uint8),
        np.zeros(SIZE, np.float32),
        Intrinsics.from_fov(SIZE[1], SIZE[0], 60),
        labels_hw + 1,
        instances_hw=ids_hw.astype(np.uint16),
        instance_labels={1: BOX + 1},
    )
    stage = StageConfig(width=SIZE[1], height=SIZE[0], batch=1)
    frames = VoidUnnumbered([frame], frozenset(label + 1 for label in THINGS))
    (batch,) = whole_batches(frames, [0], stage, [INSTANCE_ROWS])
    targets = {name: each.numpy() for name, each in batch.targets.items()}
    for found, expected in (
        ([(SEAT, BOX)], 1.0),
        ([(EMPTY, BOX)], 0.5),
        # Void is a crowd of its class alone, but no segment's.
        ([(SEAT, CHAIR)], 1.0),
    ):
        scores = ThingScores(3, THINGS, labelled=labelled)
        scores.add(answer([*found, (FIRST, BOX)]), targets)
        figures = scores.figures()
        assert figures["box_ap50"] == pytest.approx(expected)
        assert (figures["things_pq"] == 1) == (found[0][0] == SEAT)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (EMPTY, 1.0),
        # Beside the void, but inside the box around it: first of two, so precision is 1/2.
        ((20, 15, 30, 23), 0.5),
        # With 4 and with 5 of 10 columns on the void.
        ((8, 15, 18, 23), 0.5),
        ((7, 15, 17, 23), 1.0),
    ],
)
def test_pixels_without_a_class_are_void_in_boxes(
    found: tuple[int, int, int, int], expected: float
) -> None:
    """The void is an L along the left and the lower edge, and fills most of a true box."""
    ids_hw, labels_hw, classes_k = numbered([(FIRST, BOX)])
    ids_hw[2:10, 4:12] = 0  # an angle of 2 columns and 2 rows is left of the box's pixels
    labels_hw[:, :12] = np.where(ids_hw[:, :12] > 0, BOX, VOID)
    labels_hw[24:] = VOID
    targets = {"instance_ids": ids_hw[None], "instance_classes": classes_k[None]}
    targets["segmentation"] = labels_hw[None]
    scores = ThingScores(3, THINGS)
    scores.add(answer([(found, BOX), (FIRST, BOX)], ids=False), targets)
    assert scores.figures()["box_ap50"] == pytest.approx(expected)


def test_a_frame_without_any_label_has_no_void_for_boxes() -> None:
    ids_hw, labels_hw, classes_k = numbered([(FIRST, BOX)])
    targets = {"instance_ids": ids_hw[None], "instance_classes": classes_k[None]}
    targets["segmentation"] = np.full_like(labels_hw, VOID)[None]
    scores = ThingScores(3, THINGS)
    scores.add(answer([(EMPTY, BOX), (FIRST, BOX)]), targets)
    assert scores.figures()["box_ap50"] == pytest.approx(0.5)


def test_frames_whose_things_are_unknown_do_not_count() -> None:
    ids_hw, classes_k = unknown_rows(*SIZE)
    targets = {"instance_ids": ids_hw[None], "instance_classes": classes_k[None]}
    scores = ThingScores(3, THINGS)
    scores.add(answer([(FIRST, BOX), (SEAT, CHAIR)]), targets)
    assert scores.figures() == {}


def test_things_of_a_few_pixels_do_not_count() -> None:
    small = (40, 2, 44, 6)
    got = judged([(FIRST, BOX)], [(FIRST, BOX), (small, BOX)])
    assert (got["things_pq"], got["box_ap50"]) == (1, 1)
    got = judged([(small, BOX), (FIRST, BOX)], [(FIRST, BOX), (small, BOX)])
    assert (got["things_pq"], got["box_ap50"]) == (1, 1)


def test_without_the_library_only_precision_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    missing = thing_scores.why_no_precision()
    assert missing is not None
    assert "no box_ap50" in missing
    assert "faster-coco-eval" in missing
    assert judged([(FIRST, BOX)], [(FIRST, BOX)]).keys() == {"things_pq", "things_sq", "things_rq"}
