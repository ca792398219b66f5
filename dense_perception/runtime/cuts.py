"""Tells a cut from a moving camera: what was learnt from the frame before no longer holds."""

from __future__ import annotations

import cv2
import numpy as np

_WIDTH, _HEIGHT = 32, 24
_LEAST_CORRELATION = 0.4
# A jump of the clock is a cut too, in either direction.
_MOST_SECONDS = 2.0


class CutDetector:
    """Compares each frame with the one before it, as thumbnails of 32x24 grey pixels.

    The measure is their normalised correlation, which brightness and contrast do not change. A
    camera that turns by less than a third of its field of view from frame to frame keeps it high.
    """

    def __init__(self) -> None:
        self._before: np.ndarray | None = None
        self._stamp_ns = 0

    def is_cut(self, rgb_hwc: np.ndarray, stamp_ns: int) -> bool:
        """Whether HxWx3 ``uint8`` does not continue the frame before; the first frame does not."""
        now = _thumbnail(rgb_hwc)
        before, self._before = self._before, now
        elapsed_s = (stamp_ns - self._stamp_ns) / 1e9
        self._stamp_ns = stamp_ns
        if before is None or not 0 <= elapsed_s <= _MOST_SECONDS:
            return True
        norm = float(np.linalg.norm(now) * np.linalg.norm(before))
        if norm < 1e-3:  # two pictures without any structure
            return False
        return float((now * before).sum()) / norm < _LEAST_CORRELATION


def _thumbnail(rgb_hwc: np.ndarray) -> np.ndarray:
    """Zero-mean grey, 24x32 ``float32``."""
    step = max(1, rgb_hwc.shape[1] // (4 * _WIDTH))
    small = cv2.resize(
        rgb_hwc[::step, ::step, 1], (_WIDTH, _HEIGHT), interpolation=cv2.INTER_AREA
    ).astype(np.float32)
    centred: np.ndarray = small - small.mean()
    return centred
