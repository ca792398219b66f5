"""How steady depth is from one frame to the next.

Both figures look at the error e = ln p - ln t of depth p against truth t, so that a scene that
really moves, or a camera that comes nearer, is no unsteadiness.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dense_perception.metrics.depth import floats, usable


@dataclass(frozen=True, slots=True)
class Correspondence:
    """Where the pixels of a frame were in the one before: a grid of points seen in both.

    ``rows``, ``columns`` are whole pixels of the frame, (N,); ``before_rows``, ``before_columns``
    (N,) float where the same surface was before. Hidden and doubtful points are left out.
    """

    rows: np.ndarray
    columns: np.ndarray
    before_rows: np.ndarray
    before_columns: np.ndarray


def log_error(predicted_m: np.ndarray, true_m: np.ndarray) -> np.ndarray:
    """ln p - ln t of (H, W) metres; NaN where either is not finite and positive.

    :raises InputError: if the shapes differ.
    """
    predicted, true = floats(predicted_m, true_m)
    known = usable(predicted) & usable(true)
    result = np.full(true.shape, np.nan, true.dtype)
    np.log(np.divide(predicted, true, out=result, where=known), out=result, where=known)
    return result


def scale_jump(error: np.ndarray, error_before: np.ndarray) -> float:
    """The change of the median of :func:`log_error`, between two frames; NaN without any."""
    medians = [_median(each[np.isfinite(each)]) for each in (error, error_before)]
    return medians[0] - medians[1]


def flicker(
    error: np.ndarray, error_before: np.ndarray, same: Correspondence
) -> tuple[float, float]:
    """The sum of abs(e - e before) over the corresponding points, and the number of them.

    ``error`` and ``error_before`` are :func:`log_error` of both frames, (H, W). The one before is
    read at the nearest pixel: interpolating would mix two surfaces at a depth edge. Points where
    either is unknown do not count.
    """
    height, width = error.shape
    rows = np.rint(same.before_rows).astype(np.int64)
    columns = np.rint(same.before_columns).astype(np.int64)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    now = error[same.rows[inside], same.columns[inside]]
    change = np.abs(now - error_before[rows[inside], columns[inside]])
    change = change[np.isfinite(change)]
    return float(change.sum(dtype=np.float64)), float(len(change))


def moved_by_pose(
    true_m: np.ndarray,
    true_before_m: np.ndarray,
    pixels_from_before: np.ndarray,
    step: int = 4,
    tolerance: float = 0.05,
) -> Correspondence:
    """Correspondence of a static scene from its depth and the camera's motion.

    A point that lies outside the frame before, or whose depth there is off by over ``tolerance``
    (it was hidden, or moved by itself), is left out.

    :param true_m: with ``true_before_m`` the (H, W) truth of both frames, metres.
    :param pixels_from_before: (3, 4) float64, from (u z, v z, z, 1) of the frame to (u z, v z, z)
        of the one before: K T K^-1 with T the frame's pose in the camera before.
    :param step: take every n-th row and column.
    """
    height, width = true_m.shape
    rows, columns = (
        index.ravel() for index in np.mgrid[step // 2 : height : step, step // 2 : width : step]
    )
    z = true_m[rows, columns].astype(np.float64)
    known = usable(z)
    rows, columns, z = rows[known], columns[known], z[known]
    points = np.stack([columns * z, rows * z, z, np.ones(len(z))])
    x, y, depth = pixels_from_before @ points
    with np.errstate(divide="ignore", invalid="ignore"):
        u, v = x / depth, y / depth
        seen = (depth > 0) & (u > -0.5) & (u < width - 0.5) & (v > -0.5) & (v < height - 0.5)
    rows, columns, u, v, depth = (each[seen] for each in (rows, columns, u, v, depth))
    there = true_before_m[np.rint(v).astype(np.int64), np.rint(u).astype(np.int64)]
    with np.errstate(invalid="ignore"):
        same = np.abs(there / depth - 1) <= tolerance
    return Correspondence(rows[same], columns[same], v[same], u[same])


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else math.nan
