"""Which pixels of two successive pictures show the same surface, from the pictures alone."""

from __future__ import annotations

import cv2
import numpy as np

from dense_perception.imaging.resize import flow_size
from dense_perception.metrics.temporal import Correspondence

# Flow is sought in pictures of about this many columns: enough for depth, and a few milliseconds.
_SOUGHT_WIDTH = 320
# There and back again must end this near, in pixels of the sought picture: else it is hidden.
_BACK = 1.0


def correspondence(
    rgb_hwc: np.ndarray, rgb_before_hwc: np.ndarray, height: int, width: int, step: int = 4
) -> Correspondence:
    """Where the pixels of a frame were in the one before, on a grid of ``step`` pixels.

    Dense inverse search (Kroeger 2016, OpenCV) both ways; a point whose way there and back does
    not close within a pixel (Sundaram 2010) is hidden in one of them and left out.

    :param rgb_hwc: with ``rgb_before_hwc`` the pictures, uint8, of one size.
    :param height: with ``width`` the size of the maps whose pixels are wanted.
    """
    scale = min(1.0, _SOUGHT_WIDTH / rgb_hwc.shape[1])
    sought_width, sought_height = flow_size(rgb_hwc, scale)
    now, before = (_gray(rgb, sought_height, sought_width) for rgb in (rgb_hwc, rgb_before_hwc))
    # OpenCV's types know DISOpticalFlow.create alone, which OpenCV 4.5 lacks.
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)  # type: ignore[attr-defined]
    there = search.calc(now, before, None)
    back = search.calc(before, now, None)
    rows, columns = (
        index.ravel() for index in np.mgrid[step // 2 : height : step, step // 2 : width : step]
    )
    # Pixel centres of the maps in the sought picture and back again.
    across, down = sought_width / width, sought_height / height
    x = (columns + 0.5) * across - 0.5
    y = (rows + 0.5) * down - 0.5
    motion = _sample(there, x, y)
    before_x, before_y = x + motion[:, 0], y + motion[:, 1]
    closing = motion + _sample(back, before_x, before_y)
    seen = (np.abs(closing) <= _BACK).all(axis=1)
    seen &= (before_x >= 0) & (before_x <= sought_width - 1)
    seen &= (before_y >= 0) & (before_y <= sought_height - 1)
    return Correspondence(
        rows[seen],
        columns[seen],
        (before_y[seen] + 0.5) / down - 0.5,
        (before_x[seen] + 0.5) / across - 0.5,
    )


def _gray(rgb_hwc: np.ndarray, height: int, width: int) -> np.ndarray:
    gray = cv2.cvtColor(rgb_hwc, cv2.COLOR_RGB2GRAY)
    return cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA)


def _sample(flow_hwc: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Flow at points, linearly, (N, 2); those outside get that of the border."""
    # remap takes no more than 32767 points a row.
    points = [each.astype(np.float32)[:, None] for each in (x, y)]
    found = [
        cv2.remap(flow_hwc, each[0], each[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for each in zip(*(np.array_split(p, len(p) // 30_000 + 1) for p in points), strict=True)
    ]
    return np.concatenate(found)[:, 0]
