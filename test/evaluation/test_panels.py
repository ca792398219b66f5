"""Pictures of answered frames: colours mean what the captions say."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from dense_perception.core.camera import Frame
from dense_perception.core.labels import LabelSet
from dense_perception.core.prediction import Instances
from dense_perception.evaluation import panels
from dense_perception.evaluation.contestants import Answer
from dense_perception.evaluation.judge import Judge
from dense_perception.evaluation.shown import panels_of
from dense_perception.evaluation.truth import TruthFrame
from dense_perception.metrics.protocols import Protocol

RGB = np.full((48, 640, 3), 128, np.uint8)


def test_depth_errors_are_blue_where_nearer_and_red_where_farther() -> None:
    true = np.full((48, 640), 2.0, np.float32)
    predicted = true.copy()
    predicted[:, :160] *= 1 - panels.DEPTH_LIMIT  # nearer
    predicted[:, 160:320] *= 1 + panels.DEPTH_LIMIT
    true[:, 480:] = 0
    drawn = panels.depth_panels(RGB, true, predicted)
    assert {each.shape for each in (drawn.image, drawn.truth, drawn.prediction, drawn.error)} == {
        (24, panels.MAX_SIDE, 3)
    }
    nearer, farther, right, unknown = (drawn.error[12, k].astype(int) for k in (40, 120, 200, 280))
    assert nearer[2] > nearer[0] + 100
    assert farther[0] > farther[2] + 100
    assert right.min() > 240
    assert unknown.max() == 0
    assert drawn.truth[12, 280].max() == 0
    # What the prediction makes of the pixels with truth can be told apart, too.
    ends = 2 * (1 - panels.DEPTH_LIMIT), 2 * (1 + panels.DEPTH_LIMIT)
    assert (drawn.near_m, drawn.far_m) == pytest.approx(ends)
    assert len({tuple(drawn.prediction[12, k]) for k in (40, 120, 200)}) == 3
    # The same depth has the same colour in both.
    assert (drawn.truth[12, 200] == drawn.prediction[12, 200]).all()


def test_labels_are_orange_where_wrong_and_black_where_void() -> None:
    labels = LabelSet("two", ("floor", "wall"))
    true = np.zeros((48, 640), np.uint8)
    true[:, 320:] = 255
    predicted = np.zeros_like(true)
    predicted[:, 160:] = 1
    drawn = panels.label_panels(RGB, true, predicted, labels)
    right, wrong, void = (drawn.error[12, k].astype(int) for k in (40, 120, 280))
    assert np.ptp(right) == 0 < right[0]
    assert wrong[0] > wrong[2] + 150
    assert void.max() == 0
    assert (drawn.prediction[12, 120] == labels.colors()[1]).all()


def test_normals_are_white_where_right() -> None:
    true = np.zeros((48, 640, 3), np.float32)
    true[..., 2] = -1
    predicted = true.copy()
    predicted[:, :320] = (1, 0, 0)
    drawn = panels.normal_panels(RGB, true, predicted)
    assert drawn.error[12, 200].min() > 240
    assert drawn.error[12, 40, 1] < 80


def test_things_are_found_missed_or_false() -> None:
    """Boxes in the corners of a black picture, of which one is found and one is not there."""
    black = np.zeros((60, 80, 3), np.uint8)

    def things(*boxes: tuple[int, ...]) -> Instances:
        scores = np.linspace(0.9, 0.1, len(boxes)).astype(np.float32)
        kinds = np.zeros(len(boxes), np.uint8)
        return Instances(np.array(boxes, np.float32), scores, kinds, LabelSet("", ("chair",)))

    true, found = things((0, 0, 20, 20), (60, 0, 80, 20)), things((0, 0, 20, 20), (0, 40, 20, 60))
    right = np.array([True, False])
    drawn = panels.thing_panels(black, true, found, right, right)
    blue, orange, violet = (drawn.error[y, x].tolist() for y, x in ((0, 10), (0, 70), (59, 10)))
    assert (blue, orange, violet) == ([33, 102, 172], [230, 97, 1], [84, 39, 136])
    assert drawn.error[30, 40].tolist() == [64, 64, 64], "the picture in gray"
    assert drawn.truth[59, 10].max() == 0
    assert drawn.prediction[59, 10].max() > 0


def test_what_is_found_in_void_is_neither_false_nor_in_the_way() -> None:
    """On the left a chair and below it a crowd of no class, on the right a chair without a
    number. As many things are drawn as there are: one."""
    labels_hw, instances_hw = np.zeros((60, 80), np.int64), np.zeros((60, 80), np.uint16)
    labels_hw[:20, :20] = labels_hw[:20, 60:] = 1
    instances_hw[:20, :20], instances_hw[40:, :20] = 1, 2
    truth = TruthFrame(
        "r",
        "k",
        Frame(np.zeros((60, 80, 3), np.uint8)),
        None,
        labels_hw,
        ("wall", "chair", "TABLE"),
        instances_hw=instances_hw,
        instance_labels={1: 2, 2: 0},
    )
    left, right, below = (0, 0, 20, 20), (60, 0, 80, 20), (0, 42, 18, 60)
    blue, orange, violet, gray = (33, 102, 172), (230, 97, 1), (84, 39, 136), (64, 64, 64)
    for found, colours in (
        ([("Chair", right), ("table", below), ("Chair", left)], (blue, gray, gray)),
        ([("table", right), ("Chair", left)], (orange, violet, gray)),
    ):
        names = ("Chair", "table")
        things = Instances(
            np.array([box for _, box in found], np.float32),
            np.linspace(0.9, 0.1, len(found)).astype(np.float32),
            np.array([names.index(name) for name, _ in found], np.uint8),
            LabelSet("", names),
        )
        drawn = panels_of("things", Judge(truth, Protocol()), Answer(instances=things))
        assert drawn is not None
        seen = tuple(tuple(drawn.error[y, x].tolist()) for y, x in ((0, 10), (0, 70), (59, 10)))
        assert seen == colours


def test_written_panels_are_small_pictures_below_the_folder(tmp_path: Path) -> None:
    true = np.linspace(1, 4, 48 * 640, dtype=np.float32).reshape(48, 640)
    paths = panels.write_panels(panels.depth_panels(RGB, true, true), tmp_path, "0003")
    assert paths["error"] == "pictures/0003-error.jpg"
    read = {kind: cv2.imread(str(tmp_path / path)) for kind, path in paths.items()}
    assert list(read) == ["image", "truth", "prediction", "error"]
    assert all(picture.shape == (24, panels.MAX_SIDE, 3) for picture in read.values())
