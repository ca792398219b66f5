"""How steady depth is from one frame to the next.

Both figures look at the error e = ln p - ln t of depth p against truth t, so that a scene that
really moves, or a camera that comes nearer, is no unsteadiness.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dense_perception.metrics.depth import Matched, median, usable

_THIN = 4


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


def median_error(matched: Matched) -> float:
    """The median of e over every fourth of the pixels that count; NaN without any. Its change from
    one frame to the next is the jump of the scale."""
    error = np.log(matched.predicted_m[::_THIN] / matched.true_m[::_THIN])
    return median(error) if len(error) else math.nan


def flicker(now: Matched, before: Matched, same: Correspondence) -> tuple[float, float]:
    """The sum of abs(e - e before) over the corresponding points, and the number of them.

    The frame before is read at the nearest pixel: interpolating would mix two surfaces at a depth
    edge. Points where either is unknown do not count.
    """
    height, width = now.valid_hw.shape
    rows = np.rint(same.before_rows).astype(np.int64)
    columns = np.rint(same.before_columns).astype(np.int64)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    error = _error_at(now, same.rows[inside], same.columns[inside])
    change = np.abs(error - _error_at(before, rows[inside], columns[inside]))
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


def _error_at(matched: Matched, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """e at some pixels, NaN where it is unknown."""
    known = matched.valid_hw[rows, columns]
    result = np.full(len(rows), np.nan, matched.predicted_m.dtype)
    places = rows[known], columns[known]
    result[known] = np.log(matched.answer_hw[places] / matched.truth.metres_hw[places])
    return result
