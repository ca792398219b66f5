"""Resampling: a frame to the network's size, and its answers back, inverse in geometry.

All of it follows the half-pixel convention (pixel centre u goes to (u + 0.5) * scale - 0.5),
the one :meth:`~dense_perception.core.camera.Intrinsics.resized` assumes.
"""

from __future__ import annotations

import cv2
import numpy as np

from dense_perception.core.errors import InputError

_LINEAR_UP_TO = 4 / 3
# Neighbouring unit vectors whose mean is shorter point in opposite directions.
_SHORTEST_NORMAL = 0.05


def resample(
    image: np.ndarray, width: int, height: int, out: np.ndarray | None = None
) -> np.ndarray:
    """Resize HxW or HxWxC pixels: averages areas where a side shrinks, linear where it grows.

    ``out`` may take the result. Where the size is right already, the answer is ``image`` itself.
    """
    source_height, source_width = image.shape[:2]
    for size, method in (
        ((min(width, source_width), min(height, source_height)), cv2.INTER_AREA),
        ((width, height), cv2.INTER_LINEAR),
    ):
        if (image.shape[1], image.shape[0]) != size:
            target = out if size == (width, height) else None
            image = cv2.resize(image, size, dst=target, interpolation=method)
    return image


def prepare(
    rgb_hwc: np.ndarray, width: int, height: int, out_hwc: np.ndarray | None = None
) -> np.ndarray:
    """Stretch an HxWx3 ``uint8`` image to ``width`` x ``height``.

    Averages areas where the image shrinks, interpolates linearly where it grows. Written into
    ``out_hwc`` (C-contiguous uint8 of the target shape) when given; returns the target.

    :raises InputError: if ``out_hwc`` has another shape or dtype.
    """
    shape = (height, width, 3)
    if out_hwc is None:
        out_hwc = np.empty(shape, np.uint8)
    elif out_hwc.shape != shape or out_hwc.dtype != np.uint8 or not out_hwc.flags["C_CONTIGUOUS"]:
        raise InputError(
            f"the buffer is {out_hwc.dtype} {out_hwc.shape}, expected contiguous uint8 {shape}"
        )
    rgb_hwc = _reduced(rgb_hwc, width, height)
    factors = (rgb_hwc.shape[1] / width, rgb_hwc.shape[0] / height)
    if min(factors) >= 1 and 1 < max(factors) <= _LINEAR_UP_TO:
        # Two neighbours cover the area nearly as well, in a tenth of the time.
        result = cv2.resize(rgb_hwc, (width, height), dst=out_hwc, interpolation=cv2.INTER_LINEAR)
    else:
        result = resample(rgb_hwc, width, height, out_hwc)
    if result is not out_hwc:
        np.copyto(out_hwc, result)
    return out_hwc


def _reduced(rgb_hwc: np.ndarray, width: int, height: int) -> np.ndarray:
    """The image averaged over whole blocks of pixels, as far as its sides divide evenly.

    Exact and several times faster than averaging over fractions of pixels, which is left with a
    smaller image to do.
    """
    source_height, source_width = rgb_hwc.shape[:2]
    for factor in range(min(source_width // width, source_height // height), 1, -1):
        if source_width % factor == 0 and source_height % factor == 0:
            size = (source_width // factor, source_height // factor)
            return resample(rgb_hwc, *size)
    return rgb_hwc


def restore(depth_hw: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize an HxW ``float32`` map to ``width`` x ``height``; always a fresh array.

    Interpolates among valid pixels only: NaN neither spreads into valid neighbours nor is filled
    in. A target pixel is NaN where less than half of its support is valid.
    """
    if depth_hw.shape == (height, width):
        return depth_hw.copy()
    valid = np.isfinite(depth_hw)
    if valid.all():
        return resample(depth_hw, width, height)
    filled = np.where(valid, depth_hw, np.float32(0))
    total = resample(filled, width, height)
    weight = resample(valid.astype(np.float32), width, height)
    enough = weight >= 0.5
    result = np.full((height, width), np.nan, np.float32)
    np.divide(total, weight, out=result, where=enough)
    return result


def restore_labels(labels_hw: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize an HxW ``uint8`` map to ``width`` x ``height`` by the nearest pixel; a fresh array.

    Labels have no values in between; the confidence that belongs to them goes the same way.
    """
    if labels_hw.shape == (height, width):
        return labels_hw.copy()
    # Not OpenCV's INTER_NEAREST, which rounds down and so shifts by half a pixel.
    rows = ((np.arange(height) + 0.5) * (labels_hw.shape[0] / height)).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * (labels_hw.shape[1] / width)).astype(np.intp)
    # Columns first, among few rows: whole rows are then copied at once.
    return labels_hw.take(columns, axis=1).take(rows, axis=0)


def restore_gray(gray_hw: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize an HxW ``uint8`` map of strengths to ``width`` x ``height``; always a fresh array."""
    resized = resample(gray_hw, width, height)
    return resized.copy() if resized is gray_hw else resized


def restore_normals(normals_hwc: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize HxWx3 ``float32`` unit vectors to ``width`` x ``height``, unit again; a fresh array.

    A stretched image shows the same scene, so the vectors themselves do not change. NaN where the
    neighbours are unknown, as in :func:`restore`, or cancel each other.
    """
    if normals_hwc.shape[:2] == (height, width):
        return normals_hwc.copy()
    # Plane by plane: NumPy walks contiguous planes several times faster than triples.
    if np.isfinite(normals_hwc).all():
        planes = [resample(plane, width, height) for plane in cv2.split(normals_hwc)]
    else:
        planes = [restore(plane, width, height) for plane in cv2.split(normals_hwc)]
    x_hw, y_hw, z_hw = planes
    length_hw = x_hw * x_hw
    square_hw = y_hw * y_hw
    length_hw += square_hw
    np.multiply(z_hw, z_hw, out=square_hw)
    length_hw += square_hw
    np.sqrt(length_hw, out=length_hw)
    if not length_hw.min() > _SHORTEST_NORMAL:
        length_hw[~(length_hw > _SHORTEST_NORMAL)] = np.nan
    for plane in planes:
        np.divide(plane, length_hw, out=plane)
    return cv2.merge(planes)


def fit_within(width: int, height: int, max_side: int) -> tuple[int, int]:
    """``(width, height)`` scaled down, aspect kept, so that no side exceeds ``max_side``."""
    longest = max(width, height)
    if longest <= max_side:
        return width, height
    scale = max_side / longest
    return max(1, round(width * scale)), max(1, round(height * scale))
