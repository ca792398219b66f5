"""Windows that slide over a picture, and labels from the scores that a network gives for them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from dense_perception.core.windows import window_starts

# Pixels that are looked at together: few enough to stay in a core's own cache.
_BAND = 65536


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
    classes = scores_nkhw.shape[1]
    whole = _Canvas(corners, window, fitted, size)
    # Exponentials stay at most 1 if each pixel's best score is taken off. Everything is linear, so
    # it can go before the enlargement, where there are few pixels.
    highest_nhw = scores_nkhw.max(axis=1)
    best_hw = np.full((size[1], size[0]), -np.inf, np.float32)
    labels_hw = np.zeros((size[1], size[0]), np.uint8)
    total_hw = np.zeros((size[1], size[0]), np.float32)
    step = max(1, _BAND // size[0])
    bands = [slice(top, top + step) for top in range(0, size[1], step)]
    better_hw = np.empty((step, size[0]), bool)
    won_hw = better_hw.view(np.uint8)
    for index in range(classes):
        score_hw = whole(scores_nkhw[:, index] - highest_nhw)
        for rows in bands:
            band_hw, best, labels = score_hw[rows], best_hw[rows], labels_hw[rows]
            better, won = better_hw[: len(band_hw)], won_hw[: len(band_hw)]
            # Labels only grow, so their maximum with the winner's is the winner's; a masked
            # assignment would take ten times as long.
            np.greater(band_hw, best, out=better)
            np.multiply(won, np.uint8(index), out=won)
            np.maximum(labels, won, out=labels)
            np.maximum(best, band_hw, out=best)
            cv2.exp(band_hw, band_hw)
            total_hw[rows] += band_hw
    certainty_hw = cv2.exp(best_hw) / np.maximum(total_hw, np.float32(1e-30))
    return labels_hw, np.rint(np.clip(certainty_hw, 0, 1) * 255).astype(np.uint8)


class _Canvas:
    """One map of the windows at a time, put together and resized; the answer is overwritten."""

    def __init__(
        self,
        corners: Sequence[tuple[int, int]],
        window: int,
        fitted: tuple[int, int],
        size: tuple[int, int],
    ) -> None:
        self._window = window
        self._places = [
            (slice(top, top + window), slice(left, left + window)) for top, left in corners
        ]
        weight_hw = np.zeros((fitted[1], fitted[0]), np.float32)
        for place in self._places:
            weight_hw[place] += 1
        self._share_hw = None if len(corners) == 1 else 1 / weight_hw
        self._canvas_hw = np.empty_like(weight_hw)
        self._part_hw = np.empty((window, window), np.float32)
        self._size = size
        self._whole_hw = self._canvas_hw
        if fitted != size:
            self._whole_hw = np.empty((size[1], size[0]), np.float32)

    def __call__(self, parts_nhw: np.ndarray) -> np.ndarray:
        self._canvas_hw.fill(0)
        side = (self._window, self._window)
        for place, part_hw in zip(self._places, parts_nhw, strict=True):
            cv2.resize(part_hw, side, dst=self._part_hw, interpolation=cv2.INTER_LINEAR)
            self._canvas_hw[place] += self._part_hw
        if self._share_hw is not None:
            self._canvas_hw *= self._share_hw
        if self._whole_hw is not self._canvas_hw:
            cv2.resize(
                self._canvas_hw, self._size, dst=self._whole_hw, interpolation=cv2.INTER_LINEAR
            )
        return self._whole_hw
