"""Correspondence of pictures that move in a known way."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dense_perception.evaluation.flow import correspondence


def test_a_moved_picture_is_found_again_and_what_came_in_is_left_out() -> None:
    rng = np.random.default_rng(0)
    wide = cv2.GaussianBlur(rng.integers(0, 256, (240, 400, 3)).astype(np.uint8), (0, 0), 3)
    now, before = wide[:, 12:332], wide[:, :320]
    same = correspondence(now, before, 120, 160)  # maps of half the size
    moved = same.before_columns - same.columns
    assert np.median(moved) == pytest.approx(6, abs=0.1)
    assert np.mean(np.abs(moved - 6) < 0.5) > 0.97
    assert np.mean(np.abs(same.before_rows - same.rows) < 0.5) > 0.97
    # The last six columns were outside of the picture before.
    assert np.mean(same.columns >= 155) < 0.01
    assert len(same.rows) > 0.8 * (120 / 4) * (160 / 4)


@pytest.mark.parametrize("size_hw", [(1, 4000), (4000, 1), (20, 500), (3, 3)])
def test_odd_pictures_do_not_end_the_process(size_hw: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), np.uint8)
    same = correspondence(noise, noise, 20, 20)
    assert np.allclose(same.before_rows, same.rows, atol=1)
    assert np.allclose(same.before_columns, same.columns, atol=1)
