"""Numbers of things become rows of a list; what does not fit, or is not known, is nobody's."""

from __future__ import annotations

import numpy as np

from dense_perception.data.instance_rows import MOST_ROWS, NOBODY, UNNUMBERED, instance_rows


def test_things_are_numbered_by_size() -> None:
    numbers = np.zeros((4, 6), np.uint16)
    numbers[0] = 700  # a wall
    numbers[1, :2] = 5
    numbers[2] = 900
    numbers[3, :3] = 6  # a crowd
    ids, classes = instance_rows(numbers, {700: 1, 5: 3, 900: 2, 6: 0}, stuff=(1,))
    expected = np.zeros((4, 6), np.int32)
    expected[2], expected[3, :3], expected[1, :2] = 1, 2, 3
    assert np.array_equal(ids, expected)
    assert classes.tolist() == [1, NOBODY, 2] + [NOBODY] * (MOST_ROWS - 3)


def test_too_many_things_share_a_row_that_nobody_learns() -> None:
    numbers = np.repeat(np.arange(1, MOST_ROWS + 21), 2).reshape(2, -1)
    numbers[numbers <= 5] = 1
    ids, classes = instance_rows(numbers, dict.fromkeys(range(1, 200), 4))
    assert ids.min() == 1
    assert ids.max() == MOST_ROWS
    assert (ids == 1).sum() == 10
    assert (classes[:-1] == 3).all()
    assert classes[-1] == NOBODY
    all_fit = instance_rows(np.arange(1, MOST_ROWS + 1)[None], dict.fromkeys(range(1, 101), 4))
    assert (all_fit[1] == 3).all()


def test_what_has_no_number_is_in_the_last_row() -> None:
    numbers = np.array([[UNNUMBERED, UNNUMBERED, 3, 0]])
    ids, classes = instance_rows(numbers, {3: 2, UNNUMBERED: 0})
    assert ids.tolist() == [[MOST_ROWS, MOST_ROWS, 1, 0]]
    assert classes.tolist() == [1] + [NOBODY] * (MOST_ROWS - 1)
    # As many things as there are rows: the last one is in it, too, and not learnt.
    numbers = np.array([[*range(1, MOST_ROWS + 1), UNNUMBERED]])
    ids, classes = instance_rows(numbers, {**dict.fromkeys(range(1, MOST_ROWS + 1), 2)})
    assert (classes == NOBODY).tolist() == [False] * (MOST_ROWS - 1) + [True]
    assert ids[0, -2:].tolist() == [MOST_ROWS] * 2
    # A thing of a class that has this number is one like others.
    ids, classes = instance_rows(numbers[:, -1:], {UNNUMBERED: 2})
    assert (ids.tolist(), classes[0]) == ([[1]], 1)
