"""Things drawn over the picture: masks tinted, boxes framed, with names and scores."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from dense_perception.core.labels import LabelSet
from dense_perception.core.prediction import Instances
from dense_perception.imaging.resize import resample

_COLORS = LabelSet("instances", tuple(str(number) for number in range(1, 256))).colors()[:255]


def color_of(number: int) -> tuple[int, int, int]:
    """RGB of an id: the same in every frame, never black."""
    red, green, blue = (int(value) for value in _COLORS[(number - 1) % len(_COLORS)])
    return red, green, blue


def instance_overlay(
    rgb_hwc: np.ndarray,
    found: Instances,
    width: int,
    height: int,
    opacity: float,
    *,
    texts: Sequence[str] | None = None,
) -> np.ndarray:
    """HxWx3 ``uint8`` RGB of ``width`` x ``height``; the best things are drawn last, on top.

    ``texts`` stand at the boxes in place of names and scores; an empty one is none.

    ``rgb_hwc`` of another size is resized. A tracked thing's identity stands before its name.
    """
    shown = resample(rgb_hwc, width, height)
    shown = shown.copy() if shown is rgb_hwc else shown
    if found.ids_hw is not None and len(found) and opacity > 0:
        shown = _tinted(shown, found.ids_hw, found.numbers, opacity)
    scale = max(0.4, min(width, height) / 900)
    for row in range(len(found) - 1, -1, -1):
        number = int(found.numbers[row])
        name = texts[row] if texts is not None else f"{found.names[row]} {found.scores_n[row]:.2f}"
        if found.track_ids_n is not None and name:
            name = f"{number} {name}"
        _frame(shown, found.boxes_n4[row], color_of(number), name, scale)
    return shown


def _tinted(
    rgb_hwc: np.ndarray, ids_hw: np.ndarray, numbers_n: np.ndarray, opacity: float
) -> np.ndarray:
    table = np.zeros((max(256, len(numbers_n) + 1), 3), np.uint8)
    for row, number in enumerate(numbers_n):
        table[row + 1] = color_of(int(number))
    tint = cv2.applyColorMap(ids_hw, table[:256, None]) if ids_hw.itemsize == 1 else table[ids_hw]
    mixed = cv2.addWeighted(rgb_hwc, 1 - opacity, tint, opacity, 0)
    nobody = (ids_hw == 0).view(np.uint8)
    cv2.copyTo(rgb_hwc, nobody, mixed)
    return mixed


def _frame(
    rgb_hwc: np.ndarray,
    box: np.ndarray,
    color: tuple[int, int, int],
    name: str,
    scale: float,
) -> None:
    """A rectangle on the outermost pixels of the box; a name stands on a ground of its colour."""
    left, top = (int(side) for side in np.floor(box[:2]))
    right, bottom = (int(side) - 1 for side in np.ceil(box[2:]))
    cv2.rectangle(rgb_hwc, (left, top), (max(right, left), max(bottom, top)), color, 1)
    if not name:
        return
    (wide, high), below = cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    base = top - below if top - below - high >= 0 else min(top + high + below, len(rgb_hwc) - 1)
    left = max(0, min(left, rgb_hwc.shape[1] - wide))
    cv2.rectangle(rgb_hwc, (left, base - high), (left + wide, base + below), color, -1)
    is_bright = 299 * color[0] + 587 * color[1] + 114 * color[2] > 128_000
    ink = (0, 0, 0) if is_bright else (255, 255, 255)
    place = (left, base)
    cv2.putText(rgb_hwc, name, place, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, 1, cv2.LINE_AA)
