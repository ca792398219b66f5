"""Pixels of things that have no number, by hand."""

from __future__ import annotations

import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.data.instance_rows import UNNUMBERED
from dense_perception.data.sample import Sample
from dense_perception.data.unnumbered import Numbering, VoidUnnumbered, numbering_of, parts_of

WALL, CHAIR, TABLE = 1, 2, 3
LABELS = np.array([[2, 2, 0, 3, 3], [1, 1, 1, 1, 1], [2, 2, 2, 3, 0]], np.uint8)
NUMBERS = np.array([[9, 9, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 5, 5]], np.uint16)


class Named(list[Sample]):
    name, classes, keys = "here", ("wall", "chair", "table"), ("a", "b")

    def frame(self, key: str) -> Sample:
        return self[self.keys.index(key)]


def sample(numbers: np.ndarray | None = NUMBERS) -> Sample:
    return Sample(
        np.zeros((3, 5, 3), np.uint8),
        np.ones((3, 5), np.float32),
        Intrinsics.from_fov(5, 3, 60),
        LABELS,
        instances_hw=numbers,
        instance_labels={9: CHAIR, 5: TABLE},
    )


def test_they_are_one_thing_of_no_class() -> None:
    first, second = sample(), sample(None)
    frames = VoidUnnumbered([first, second], frozenset({CHAIR, TABLE}))
    assert frames[1] is second
    found = frames[0]
    assert found.instances_hw is not None
    void = found.instances_hw == UNNUMBERED
    assert void.tolist() == [
        [False, False, False, True, True],
        [False] * 5,
        [True, True, True, False, False],
    ]
    assert np.array_equal(found.instances_hw[~void], NUMBERS[~void])
    assert found.instance_labels == {9: CHAIR, 5: TABLE, UNNUMBERED: 0}
    assert first.instances_hw is NUMBERS
    assert not (NUMBERS == UNNUMBERED).any()
    walls = VoidUnnumbered([first], frozenset({WALL}))[0].instances_hw
    assert walls is not None
    assert walls[1].tolist() == [UNNUMBERED] * 5
    assert VoidUnnumbered([first], frozenset())[0] is first


def test_a_thing_that_has_their_number_gets_another() -> None:
    taken = np.where(NUMBERS == 9, UNNUMBERED, NUMBERS).astype(np.uint16)
    frame = Sample(
        np.zeros((3, 5, 3), np.uint8),
        np.ones((3, 5), np.float32),
        Intrinsics.from_fov(5, 3, 60),
        LABELS,
        instances_hw=taken,
        instance_labels={UNNUMBERED: CHAIR, 5: TABLE},
    )
    found = VoidUnnumbered([frame], frozenset({TABLE}))[0]
    assert found.instances_hw is not None
    assert found.instances_hw[0].tolist() == [1, 1, 0, UNNUMBERED, UNNUMBERED]
    assert found.instance_labels == {1: CHAIR, 5: TABLE, UNNUMBERED: 0}


def test_they_are_counted_and_named() -> None:
    numbered = NUMBERS.copy()
    numbered[0, 3:], numbered[2, :3] = 6, 7
    found = numbering_of(Named([sample(), sample(numbered)]))
    assert found == Numbering(
        2, frozenset({CHAIR, TABLE}), (frozenset({WALL, CHAIR, TABLE}), frozenset({WALL}))
    )
    text = found.problem("here", {CHAIR, TABLE}, Named.classes)
    assert "here: in 1 of 2 frames" in text
    assert "(chair, table)" in text
    assert found.problem("here", {4}, Named.classes) == ""


def test_parts_are_connected_and_of_one_class() -> None:
    rows, labels = parts_of(NUMBERS == 0, LABELS)
    assert labels == [0, WALL, CHAIR, TABLE]
    assert rows.tolist() == [[0, 0, 1, 4, 4], [2] * 5, [3, 3, 3, 0, 0]]
