"""The shape of depth: its normals, its steps and its boundaries.

Masks, types and shapes are those of :mod:`dense_perception.metrics.depth`: (H, W) metres, pixels
count where truth and prediction are finite and positive, NaN where nothing counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.metrics.dense import angle_figures, angles_between
from dense_perception.metrics.depth import floats, usable

_WINDOW = 2  # normals are planes through 5x5 pixels
_FLAT = 0.11  # log depth: a window with larger differences from its middle holds an edge
_STEP = 0.25  # log depth between neighbours that makes an occlusion edge
_SMOOTH = 0.05
# Ratios of neighbours from which on Depth Pro sees an occluding contour.
_CONTOURS = np.linspace(1.05, 1.25, 10)
_DIRECTIONS = ((0, 1), (1, 0))  # pixels down and across to the neighbour


def depth_normals(
    predicted_m: np.ndarray, true_m: np.ndarray, camera: Intrinsics, step: int = 1
) -> dict[str, float]:
    """Angles between the normals of predicted and true depth, as
    :func:`~dense_perception.metrics.dense.angle_figures` gives them.

    Normals are those of least-squares planes through 5x5 pixels, in inverse depth, where a plane is
    linear. Windows with invalid depth or an edge in the truth (a pixel that differs by over 11 %
    from the middle) do not count. A wrong scale changes no normal.

    :param step: look at every n-th row and column, for speed.
    """
    predicted, true = floats(predicted_m, true_m)
    if min(true.shape) <= 2 * _WINDOW:
        return angle_figures(np.empty(0))
    valid = usable(true) & usable(predicted)
    log = np.log(np.where(valid, true, 1))
    middle = log[_WINDOW:-_WINDOW:step, _WINDOW:-_WINDOW:step]
    flat = _window(valid, step, np.logical_and)
    flat &= _window(log, step, np.maximum) - middle <= _FLAT
    flat &= middle - _window(log, step, np.minimum) <= _FLAT
    normals = [_plane_normals(np.where(valid, m, 1), camera, step, flat) for m in (predicted, true)]
    return angle_figures(angles_between(*normals))


def edge_share(predicted_m: np.ndarray, true_m: np.ndarray) -> float:
    """How much of the true steps in log depth the prediction makes within four pixels, 0 to 1.

    A step is over 0.25 in ln z between two neighbours in a row or a column, with smooth depth
    (0.05) on either side. The share of each is limited to 0 to 1; NaN where there is no step.
    """
    predicted, true = _known(predicted_m, true_m)
    height, width = true.shape
    shares = []
    for down, across in _DIRECTIONS:
        rows, columns = _where_steep(true, down, across, math.exp(_STEP))
        inner = (rows >= down) & (columns >= across)
        inner &= (rows + 2 * down < height) & (columns + 2 * across < width)
        rows, columns = rows[inner], columns[inner]
        # The four pixels a, b, c, d of which b and c are on either side of the step.
        places = [(rows + k * down, columns + k * across) for k in (-1, 0, 1, 2)]
        a, b, c, d = (np.log(true[place]) for place in places)
        # Of NaN, which is unknown depth, none of these is true.
        smooth = (np.abs(b - a) < _SMOOTH) & (np.abs(d - c) < _SMOOTH)
        made = np.log(predicted[places[3]]) - np.log(predicted[places[0]])
        shares.append(np.clip(made[smooth] / (d - a)[smooth], 0, 1))
    found = np.concatenate(shares)
    return float(found.mean()) if len(found) else math.nan


def boundary_f1(predicted_m: np.ndarray, true_m: np.ndarray) -> float:
    """F-score of the occluding contours: Depth Pro (Bochkovskii 2024), section 3.2.

    A contour lies between two neighbours whose depths have a ratio above a threshold. Contours
    agree where prediction and truth have one between the same pixels, in the same direction
    (which of both is in front, along rows and columns: four directions). Precision and recall are
    means over the directions; the F-score is a mean over ten thresholds from 1.05 to 1.25, weighted
    with them. A direction that has no contour in either map is left out (the authors count it as
    missed, so that a perfect answer would not be one); NaN where the truth has none at all.
    """
    maps = _known(predicted_m, true_m)
    recalls, precisions = [], []
    any_true = False
    for down, across in _DIRECTIONS:
        steep = [_where_steep(m, down, across, float(_CONTOURS[0])) for m in maps]
        rows, columns = np.concatenate(steep, axis=1)
        rows, columns = np.unravel_index(
            np.unique(rows * maps[0].shape[1] + columns), maps[0].shape
        )
        steps = [
            m[rows + down, columns + across].astype(np.float64) / m[rows, columns] for m in maps
        ]
        for turned in (steps, [1 / step for step in steps]):
            answer, truth = (step[:, None] > _CONTOURS for step in turned)
            hits, said, there = ((answer & truth).sum(0), answer.sum(0), truth.sum(0))
            any_true |= bool(there.any())
            neither = (said == 0) & (there == 0)
            recalls.append(np.where(neither, np.nan, hits / np.maximum(there, 1)))
            precisions.append(np.where(neither, np.nan, hits / np.maximum(said, 1)))
    if not any_true:
        return math.nan
    recall, precision = _mean_known(recalls), _mean_known(precisions)
    total = recall + precision
    scores = np.divide(2 * recall * precision, total, out=np.zeros_like(total), where=total > 0)
    # Steep thresholds where neither map has a contour say nothing.
    weights = np.where(np.isfinite(recall), _CONTOURS, 0)
    return float((np.nan_to_num(scores) * weights).sum() / weights.sum())


def _known(predicted_m: np.ndarray, true_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with NaN where either is unknown."""
    predicted, true = floats(predicted_m, true_m)
    nothing = predicted.dtype.type(np.nan)
    known = usable(true) & usable(predicted)
    return np.where(known, predicted, nothing), np.where(known, true, nothing)


def _where_steep(
    depth_m: np.ndarray, down: int, across: int, ratio: float
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels whose neighbour below or to the right is nearer or farther by
    over that ratio."""
    height, width = depth_m.shape
    near, far = depth_m[: height - down, : width - across], depth_m[down:, across:]
    # A little less, so that rounding loses none: exact comparisons are the caller's.
    limit = depth_m.dtype.type(ratio * (1 - 1e-6))
    rows, columns = np.nonzero((far > limit * near) | (near > limit * far))
    return rows, columns


def _mean_known(rows: list[np.ndarray]) -> np.ndarray:
    stack = np.stack(rows)
    known = np.isfinite(stack)
    count = known.sum(0)
    total = np.where(known, stack, 0).sum(0)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


def _window(values_hw: np.ndarray, step: int, combine: np.ufunc) -> np.ndarray:
    """``combine`` over the 5x5 windows about every ``step``-th inner pixel."""
    across = _combined(_shifts(values_hw, step), combine)
    return _combined(_shifts(across.T, step), combine).T


def _shifts(rows_hw: np.ndarray, step: int) -> list[np.ndarray]:
    """The five neighbours along the row about every ``step``-th inner pixel."""
    width = rows_hw.shape[1] - 2 * _WINDOW
    return [rows_hw[:, k : k + width : step] for k in range(2 * _WINDOW + 1)]


def _combined(shifts: Sequence[np.ndarray], combine: np.ufunc = np.add) -> np.ndarray:
    """The sum, or what else, of all: in one array, for new ones cost more than the sums."""
    result: np.ndarray = combine(shifts[0], shifts[1])
    for shift in shifts[2:]:
        combine(result, shift, out=result)
    return result


def _slope(shifts: Sequence[np.ndarray]) -> np.ndarray:
    """Least-squares slope through five neighbours, times 10."""
    result: np.ndarray = shifts[4] - shifts[0]
    result *= 2
    result += shifts[3]
    result -= shifts[1]
    return result


def _plane_normals(
    depth_m: np.ndarray, camera: Intrinsics, step: int, wanted: np.ndarray
) -> list[np.ndarray]:
    """x, y, z of the unit normals of the planes 1/z = a u + b v + c through the ``wanted`` windows,
    each (N,)."""
    along = _shifts(1 / depth_m, step)
    down = _shifts(_combined(along).T, step)
    a = _combined(_shifts(_slope(along).T, step)).T[wanted] / 50
    b = _slope(down).T[wanted] / 50
    mean = _combined(down).T[wanted] / 25
    dtype = depth_m.dtype.type
    rows, columns = (step * index.astype(dtype) for index in np.nonzero(wanted))
    u, v = columns + dtype(_WINDOW - camera.cx), rows + dtype(_WINDOW - camera.cy)
    parts = [dtype(camera.fx) * a, dtype(camera.fy) * b, mean - a * u - b * v]
    length = np.sqrt(_combined([part * part for part in parts]))
    return [part / length for part in parts]
