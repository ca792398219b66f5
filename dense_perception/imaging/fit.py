"""A picture to the network and maps back, by the rule of the model's card.

The numbers are in :mod:`dense_perception.core.fitting`. ``stretch`` with ``area`` is what the
package's own networks are trained with; the other methods are those of the published networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from dense_perception.core.card import ModelCard
from dense_perception.core.card_specs import InputSpec
from dense_perception.core.fitting import (
    at_least,
    multiple_size,
    network_size,
    scaled_size,
    window_starts,
)
from dense_perception.imaging.resize import prepare, restore

_METHODS = {"cubic": cv2.INTER_CUBIC, "linear": cv2.INTER_LINEAR}


def network_input(
    rgb_hwc: np.ndarray, spec: InputSpec, out_hwc: np.ndarray | None = None
) -> np.ndarray:
    """An HxWx3 ``uint8`` picture at the network's size; written into ``out_hwc`` if given.

    :raises InputError: if ``out_hwc`` has another shape or dtype.
    """
    height, width = rgb_hwc.shape[:2]
    size = network_size(spec, width, height)
    if spec.interpolation == "area":
        return prepare(rgb_hwc, *size, out_hwc)
    if spec.resize == "windows":
        fitted = scaled(rgb_hwc, spec)
        fitted = _resized(fitted, at_least(fitted.shape[1], fitted.shape[0], spec.width), spec)
    else:
        fitted = _resized(rgb_hwc, size, spec)
    # Already of this size: a copy into the buffer, or into a new array.
    return prepare(fitted, *size, out_hwc)


def scaled(rgb_hwc: np.ndarray, spec: InputSpec, scale: float = 1.0) -> np.ndarray:
    """One view of a picture for windows: its scale, then its sides enlarged to multiples.

    Two steps with pixels of whole bytes between them, as mmsegmentation resizes.
    """
    height, width = rgb_hwc.shape[:2]
    view_hwc = _resized(rgb_hwc, scaled_size(spec, width, height, scale), spec)
    return _resized(view_hwc, multiple_size(spec, view_hwc.shape[1], view_hwc.shape[0]), spec)


def views(rgb_hwc: np.ndarray, card: ModelCard, scales: Sequence[float]) -> list[np.ndarray]:
    """A picture at several scales of its network's size, each made from the picture itself.

    A card that stretches is a square window's here: its short side, aspect kept.
    """
    spec = card.input
    if spec.free:
        return [network_input(rgb_hwc, _times(spec, scale)) for scale in scales]
    if spec.resize == "stretch":
        assert card.segmentation is not None
        side = card.segmentation.window or min(spec.height, spec.width)
        spec = InputSpec(
            side, side, "windows", interpolation="linear", short_side=side, long_side=8192
        )
    return [scaled(rgb_hwc, spec, scale) for scale in scales]


def _times(spec: InputSpec, scale: float) -> InputSpec:
    step = spec.multiple
    height, width = (
        max(1, round(side * scale / step)) * step for side in (spec.height, spec.width)
    )
    return replace(spec, height=height, width=width)


def _resized(rgb_hwc: np.ndarray, size: tuple[int, int], spec: InputSpec) -> np.ndarray:
    if (rgb_hwc.shape[1], rgb_hwc.shape[0]) == size:
        return rgb_hwc
    # Without antialiasing, as the authors' code: their weights know these pixels.
    return cv2.resize(rgb_hwc, size, interpolation=_METHODS[spec.interpolation])


def restore_depth(depth_hw: np.ndarray, width: int, height: int, method: str) -> np.ndarray:
    """A ``float32`` map back at ``width`` x ``height`` by the card's method; a fresh array.

    ``linear`` averages areas where the map shrinks. ``corners`` is bilinear with the corners'
    pixel centres on each other, ``cubic`` stays within the map's own range. A map with NaN goes the
    way of ``linear``, which keeps NaN where it is.
    """
    if method == "linear" or depth_hw.shape == (height, width) or not np.isfinite(depth_hw).all():
        return restore(depth_hw, width, height)
    if method == "corners":
        return _along_columns(_along_columns(depth_hw, height).T, width).T.copy()
    restored_hw = cv2.resize(depth_hw, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(restored_hw, depth_hw.min(), depth_hw.max(), out=restored_hw)


def _along_columns(map_hw: np.ndarray, height: int) -> np.ndarray:
    """Bilinear along the first axis, first and last row on each other."""
    rows = map_hw.shape[0]
    positions = np.linspace(0, rows - 1, height) if height > 1 else np.zeros(1)
    first = np.minimum(positions.astype(np.intp), max(rows - 2, 0))
    share = (positions - first).astype(np.float32)[:, None]
    return map_hw[first] * (1 - share) + map_hw[np.minimum(first + 1, rows - 1)] * share


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
