"""Windows that slide over a picture, and labels from the scores that a network gives for them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from dense_perception.core.windows import window_starts


def windows_of(size: tuple[int, int], window: int, stride: int) -> list[tuple[int, int]]:
    """Top and left of every window in a picture of ``size`` (width, height), row by row."""
    return [
        (top, left)
        for top in window_starts(size[1], window, stride)
        for left in window_starts(size[0], window, stride)
    ]


def labels_of_scores(
    scores_nkhw: np.ndarray,
    corners: Sequence[tuple[int, int]],
    window: int,
    fitted: tuple[int, int],
    size: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and confidence, ``uint8`` of ``size``, from the windows' scores.

    Scores (windows, classes, h, w) are enlarged to the window, averaged where windows overlap in
    the picture of ``fitted`` size, and resized to ``size``; only then the best class is chosen.
    Bilinear throughout. Sizes are (width, height). One class at a time: all classes of a large
    picture at once would take hundreds of megabytes.
    """
    count, classes = scores_nkhw.shape[:2]
    weight_hw = np.zeros((fitted[1], fitted[0]), np.float32)
    for top, left in corners:
        weight_hw[top : top + window, left : left + window] += 1
    share_hw = None if count == 1 else 1 / weight_hw
    canvas_hw = np.empty_like(weight_hw)

    def whole(parts: Sequence[np.ndarray]) -> np.ndarray:
        enlarged = [
            cv2.resize(part_hw, (window, window), interpolation=cv2.INTER_LINEAR)
            for part_hw in parts
        ]
        if share_hw is None and fitted == (window, window):
            together_hw = enlarged[0]
        else:
            canvas_hw.fill(0)
            for (top, left), part_hw in zip(corners, enlarged, strict=True):
                canvas_hw[top : top + window, left : left + window] += part_hw
            together_hw = canvas_hw if share_hw is None else canvas_hw * share_hw
        if fitted == size:
            return together_hw.copy()
        return cv2.resize(together_hw, size, interpolation=cv2.INTER_LINEAR)

    # No class exceeds the interpolated maximum: a safe reference for the exponentials.
    bound_hw = whole(list(scores_nkhw.max(axis=1)))
    best_hw = np.full((size[1], size[0]), -np.inf, np.float32)
    labels_hw = np.zeros((size[1], size[0]), np.uint8)
    total_hw = np.zeros((size[1], size[0]), np.float32)
    for index in range(classes):
        score_hw = whole([scores_nkhw[part, index] for part in range(count)])
        score_hw -= bound_hw
        better_hw = score_hw > best_hw
        np.copyto(best_hw, score_hw, where=better_hw)
        labels_hw[better_hw] = index
        total_hw += cv2.exp(score_hw)
    certainty_hw = cv2.exp(best_hw) / np.maximum(total_hw, np.float32(1e-30))
    return labels_hw, np.rint(np.clip(certainty_hw, 0, 1) * 255).astype(np.uint8)
