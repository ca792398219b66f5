"""Cuts against camera motion, on pictures with structure at every size."""

from __future__ import annotations

import cv2
import numpy as np

from dense_perception.runtime.stabilise import CutDetector


def panorama(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(
            rng.uniform(0, 255, (rows, 4 * rows, 3)).astype(np.float32),
            (1280, 240),
            interpolation=cv2.INTER_CUBIC,
        )
        for rows in (3, 10, 40)
    ]
    return np.clip(np.mean(layers, axis=0) * 1.5 - 64, 0, 255).astype(np.uint8)


def test_motion_is_no_cut_and_another_scene_is() -> None:
    detector, scenes, stamp = CutDetector(), [panorama(1), panorama(2)], 0
    found = []
    for scene in scenes:
        for left in range(0, 900, 20):  # a sixteenth of the field of view each frame
            stamp += 33_000_000
            found.append(detector.is_cut(scene[:, left : left + 320], stamp))
    assert [index for index, cut in enumerate(found) if cut] == [0, 45]


def test_brightness_is_no_cut_and_a_clock_that_jumps_is() -> None:
    detector, view = CutDetector(), panorama(3)[:, :320]
    assert detector.is_cut(view, 0)
    assert not detector.is_cut(view // 2 + 60, 10**8)
    assert detector.is_cut(view, 60 * 10**9)
    assert detector.is_cut(view, 10**9)
    blank = np.full((240, 320, 3), 9, np.uint8)
    detector.is_cut(blank, 2 * 10**9)
    assert not detector.is_cut(blank, 2 * 10**9 + 1)
