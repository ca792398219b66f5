"""Identities of things on generated walks."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from dense_perception.core.labels import LABEL_SETS
from dense_perception.core.prediction import Instances

pytest.importorskip("trackers")
from dense_perception.runtime.tracking import Tracker

STEP_NS = 100_000_000


def found(*rows: tuple[int, float, float]) -> Instances:
    """Things of 60 x 80 pixels: class, x and y of the middle; scores fall from .9."""
    boxes = [(x - 30, y - 40, x + 30, y + 40) for _, x, y in rows]
    scores = 0.9 - 0.1 * np.arange(len(rows), dtype=np.float32)
    return Instances(
        np.array(boxes, np.float32).reshape(-1, 4),
        scores.astype(np.float32),
        np.array([row[0] for row in rows], np.uint8),
        LABEL_SETS["coco"],
    )


def walk(frame: int, generator: np.random.Generator) -> list[tuple[int, float, float]]:
    """A person to the right, a chair and a table to the left, as the camera turns; with noise."""
    at = {0: (80 + 6 * frame, 200), 56: (400 - 3 * frame, 120), 60: (560 - 3 * frame, 300)}
    return [
        (label, x + generator.normal(0, 1), y + generator.normal(0, 1))
        for label, (x, y) in at.items()
    ]


def test_identities_survive_five_hidden_frames() -> None:
    generator = np.random.default_rng(0)
    tracker = Tracker(0.5, 2.0)
    names: dict[int, set[int]] = {0: set(), 56: set(), 60: set()}
    for frame in range(60):
        things = walk(frame, generator)
        generator.shuffle(things)
        if 20 <= frame < 25:
            things = [each for each in things if each[0] != 0]
        if 40 <= frame < 45:
            things = []
        known = tracker.follow(found(*things), frame * STEP_NS)
        if frame > 0 and things and frame not in (25, 45):
            assert len(known) == len(things), frame
        assert known.track_ids_n is not None
        for label, number in zip(known.classes_n, known.track_ids_n, strict=True):
            names[int(label)].add(int(number))
    assert [len(each) for each in names.values()] == [1, 1, 1], "one identity each"
    assert len(set.union(*names.values())) == 3


def test_a_thing_that_was_gone_for_long_is_another_one() -> None:
    tracker = Tracker(0.5, 0.5)
    for frame in (0, 1, 20, 21):
        known = tracker.follow(found((0, 100, 100)), frame * STEP_NS)
        assert len(known) == frame % 2, "known from the second frame on"
    assert known.track_ids_n is not None
    assert known.track_ids_n.tolist() == [2]


def test_where_time_goes_back_all_begins_anew() -> None:
    said: list[str] = []
    tracker = Tracker(0.5, 2.0, said.append)
    for stamp_s in (100, 101, 3, 4):
        known = tracker.follow(found((0, 100, 100)), stamp_s * 10**9)
    assert known.track_ids_n is not None
    assert known.track_ids_n.tolist() == [1]
    assert ["identities begin anew" in text for text in said] == [True]
    assert len(tracker.follow(found(), 5 * 10**9)) == 0
    assert len(tracker.follow(found((0, 100, 100)), 5 * 10**9 - 1000)) == 0, "out of order"
    assert "older than the one before it" in said[1]
    tracker.follow(found((0, 100, 100)), 5 * 10**9 + 1000)
    assert len(said) == 2, "in order again"


def test_images_of_one_stamp_keep_their_things() -> None:
    said: list[str] = []
    tracker = Tracker(0.5, 2.0, said.append)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the library's own
        for stamp_ns in (0, 0, 0, STEP_NS, STEP_NS):
            known = tracker.follow(found((0, 100, 100)), stamp_ns)
    assert known.track_ids_n is not None
    assert known.track_ids_n.tolist() == [1]
    assert ["same stamp" in text for text in said] == [True] * 3


def test_other_settings_keep_identities() -> None:
    tracker = Tracker(0.5, 0.5)
    things = ((0, 100, 100), (56, 300, 300), (60, 500, 200))  # scores .9, .8, .7
    for frame in range(2):
        tracker.follow(found(*things[:2]), frame * STEP_NS)
    tracker.adjust(0.75, 5.0)
    for frame in (2, 3):
        known = tracker.follow(found(*things), frame * STEP_NS)
        assert known.track_ids_n is not None
        assert known.track_ids_n.tolist() == [1, 2], "the third is not begun with"
    # Hidden for longer than was waited for before.
    known = tracker.follow(found(*things[:2]), 23 * STEP_NS)
    assert known.track_ids_n is not None
    assert known.track_ids_n.tolist() == [1, 2]
    tracker.adjust(0.65, 0.5)
    for frame in (24, 25):
        known = tracker.follow(found(*things), frame * STEP_NS)
    assert known.track_ids_n is not None
    assert known.track_ids_n.tolist() == [1, 2, 3]


def test_ids_follow_the_rows() -> None:
    tracker = Tracker(0.5, 2.0)
    things = found((0, 100, 100), (56, 300, 300))
    ids_hw = np.array([[1, 2], [0, 1]], np.uint8)
    with_ids = Instances(things.boxes_n4, things.scores_n, things.classes_n, things.labels, ids_hw)
    tracker.follow(found((56, 300, 300)), 0)
    known = tracker.follow(with_ids, STEP_NS)
    assert known.names == ("chair",)
    assert known.ids_hw is not None
    np.testing.assert_array_equal(known.ids_hw, [[0, 1], [0, 0]])
