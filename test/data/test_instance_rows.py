"""Numbers of things become rows of a list; what does not fit, or is not known, is nobody's."""

from __future__ import annotations

import numpy as np

from dense_perception.data.instance_rows import MOST_ROWS, NOBODY, instance_rows


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
