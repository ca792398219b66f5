"""Scale jumps and flicker of scenes that move in a known way."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dense_perception.metrics.depth import Matched, TrueDepth
from dense_perception.metrics.temporal import (
    Correspondence,
    flicker,
    median_error,
    moved_by_pose,
)


def test_by_hand() -> None:
    true = np.array([[1.0, 2.0, 0.0], [4.0, 5.0, 6.0]])
    now = Matched(2 * true, TrueDepth(true))
    before = Matched(true * [[1, 1, 1], [1, 3, 1]], TrueDepth(true))
    assert not now.valid_hw[0, 2]
    assert median_error(now) - median_error(before) == pytest.approx(math.log(2))
    whole = np.indices(true.shape).reshape(2, -1)
    same = Correspondence(whole[0], whole[1], whole[0].astype(float), whole[1] + 0.4)
    total, points = flicker(now, before, same)
    assert points == 5
    assert total == pytest.approx(4 * math.log(2) + abs(math.log(2) - math.log(3)))
    gone = Correspondence(whole[0], whole[1], whole[0].astype(float), whole[1] + 3.0)
    assert flicker(now, before, gone) == (0, 0)
    assert math.isnan(median_error(Matched(np.full((2, 3), np.nan), TrueDepth(true))))


def scene(shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Depth of a wall at 4 m with a box at 2 m before it, the camera ``shift`` m to the right;
    and which pixels are of the box."""
    columns = np.arange(160)[None].repeat(120, axis=0)
    rows = np.arange(120)[:, None].repeat(160, axis=1)
    x = (columns - 79.5) / 100 * 2 + shift
    box = (np.abs(x) < 0.4) & (np.abs((rows - 59.5) / 100 * 2) < 0.5)
    return np.where(box, 2.0, 4.0), box


def test_poses_carry_points_over_and_leave_out_what_was_hidden() -> None:
    intrinsics = np.array([[100, 0, 79.5], [0, 100, 59.5], [0, 0, 1]])
    true, box = scene(0.2)
    before, box_before = scene(0.0)
    # The camera moved 0.2 m to the right: points were farther right in the picture before.
    motion = np.array([[1, 0, 0, 0.2], [0, 1, 0, 0], [0, 0, 1, 0]])
    matrix = (
        intrinsics
        @ motion
        @ np.block(
            [[np.linalg.inv(intrinsics), np.zeros((3, 1))], [np.zeros((1, 3)), np.ones((1, 1))]]
        )
    )
    same = moved_by_pose(true, before, matrix, step=1)
    moved = np.where(box[same.rows, same.columns], 10, 5)
    np.testing.assert_allclose(same.before_columns, same.columns + moved)
    np.testing.assert_array_equal(same.before_rows, same.rows)
    rows, columns = (np.rint(i).astype(int) for i in (same.before_rows, same.before_columns))
    np.testing.assert_array_equal(box_before[rows, columns], box[same.rows, same.columns])
    assert len(same.rows) > 0.9 * true.size
    # A prediction with one and the same error everywhere does not flicker, however one moves.
    steady = [Matched(1.3 * z, TrueDepth(z)) for z in (true, before)]
    assert flicker(*steady, same)[0] == pytest.approx(0, abs=1e-6)
    rng = np.random.default_rng(0)
    rough = [Matched(z * rng.lognormal(0, 0.1, z.shape), TrueDepth(z)) for z in (true, before)]
    total, points = flicker(*rough, same)
    # The difference of two independent normal errors of 0.1.
    assert total / points == pytest.approx(0.1 * math.sqrt(2) * math.sqrt(2 / math.pi), rel=0.03)
