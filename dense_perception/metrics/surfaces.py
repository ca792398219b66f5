"""The shape of depth: its normals, its steps and its boundaries.

Masks, types and shapes are those of :mod:`dense_perception.metrics.depth`: (H, W) metres, pixels
count where truth and prediction are finite and positive, NaN where nothing counts.
"""

from __future__ import annotations

import math
from functools import cached_property

import cv2
import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.core.prediction import known_only
from dense_perception.metrics.dense import angle_figures, angles_between
from dense_perception.metrics.depth import floats, usable

_WINDOW = 2  # normals are planes through 5x5 pixels
_SIDE = 2 * _WINDOW + 1
_FLAT = 0.11  # log depth: a window with larger differences from its middle holds an edge
_STEP = 0.25  # log depth between neighbours that makes an occlusion edge
_SMOOTH = 0.05
# Ratios of neighbours from which on Depth Pro sees an occluding contour.
_CONTOURS = np.linspace(1.05, 1.25, 10)
_DIRECTIONS = ((0, 1), (1, 0))  # pixels down and across to the neighbour


class Surfaces:
    """Predicted and true depth whose shapes are compared: (H, W) metres each.

    :raises InputError: if the shapes differ.
    """

    def __init__(self, predicted_m: np.ndarray, true_m: np.ndarray) -> None:
        predicted, true = floats(predicted_m, true_m)
        self._valid = usable(true)
        self._valid &= usable(predicted)
        # Of NaN, which is unknown depth, no comparison is true.
        self._predicted = known_only(predicted, self._valid)
        self._true = known_only(true, self._valid)

    @cached_property
    def _logs(self) -> tuple[np.ndarray, np.ndarray]:
        return np.log(self._predicted), np.log(self._true)

    @cached_property
    def _steps(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """How much larger log depth is one pixel on, of both maps, by direction."""
        return [
            tuple(log[down:, across:] - log[: log.shape[0] - down, : log.shape[1] - across]
                  for log in self._logs)
            for down, across in _DIRECTIONS
        ]  # fmt: skip

    def normals(self, camera: Intrinsics, step: int = 1) -> dict[str, float]:
        """Angles between the normals of predicted and true depth, as
        :func:`~dense_perception.metrics.dense.angle_figures` gives them.

        Normals are those of least-squares planes through 5x5 pixels, in inverse depth, where a
        plane is linear. Windows with invalid depth or an edge in the truth (a pixel that differs by
        over 11 % from the middle) do not count. A wrong scale changes no normal.

        :param step: look at every n-th row and column, for speed.
        """
        if min(self._true.shape) <= 2 * _WINDOW:
            return angle_figures(np.empty(0))
        middles = (slice(_WINDOW, -_WINDOW, step),) * 2
        window = np.ones((_SIDE, _SIDE), np.uint8)
        # NaN spreads no farther than the windows that hold it, which are left out.
        flat = cv2.erode(self._valid.view(np.uint8), window)[middles] > 0
        nearest, farthest = (
            change(self._true, window)[middles] for change in (cv2.erode, cv2.dilate)
        )
        middle = self._true[middles]
        limit = middle.dtype.type(math.exp(_FLAT))
        flat &= farthest <= limit * middle
        flat &= middle <= limit * nearest
        places = np.flatnonzero(flat)
        planes = [
            _plane_normals(m, camera, step, places, flat.shape[1])
            for m in (self._predicted, self._true)
        ]
        return angle_figures(angles_between(*planes))

    def edge_share(self) -> float:
        """How much of the true steps in log depth the prediction makes within four pixels, 0 to 1.

        A step is over 0.25 in ln z between two neighbours in a row or a column, with smooth depth
        (0.05) on either side. The share of each is limited to 0 to 1; NaN where there is no step.
        """
        height, width = self._true.shape
        predicted, true = (log.ravel() for log in self._logs)
        shares = []
        for (down, across), (_, steps) in zip(_DIRECTIONS, self._steps, strict=True):
            rows, columns = _places(np.abs(steps) > _STEP)
            inner = (rows >= down) & (columns >= across)
            inner &= (rows + 2 * down < height) & (columns + 2 * across < width)
            first, on = (rows * width + columns)[inner], down * width + across
            # The four pixels a, b, c, d of which b and c are on either side of the step.
            a, b, c, d = (true[first + k * on] for k in (-1, 0, 1, 2))
            smooth = (np.abs(b - a) < _SMOOTH) & (np.abs(d - c) < _SMOOTH)
            made = predicted[first + 2 * on] - predicted[first - on]
            shares.append(np.clip(made[smooth] / (d - a)[smooth], 0, 1))
        found = np.concatenate(shares)
        return float(found.mean()) if len(found) else math.nan

    def boundary_f1(self) -> float:
        """F-score of the occluding contours: Depth Pro (Bochkovskii 2024), section 3.2.

        A contour lies between two neighbours whose depths have a ratio above a threshold. Contours
        agree where prediction and truth have one between the same pixels, in the same direction
        (which of both is in front, along rows and columns: four directions). Precision and recall
        are means over the directions; the F-score is a mean over ten thresholds from 1.05 to 1.25,
        weighted with them. A direction that has no contour in either map is left out (the authors
        count it as missed, so that a perfect answer would not be one); NaN where the truth has none
        at all.
        """
        width = self._true.shape[1]
        maps = [m.ravel() for m in (self._predicted, self._true)]
        least = math.log(_CONTOURS[0]) - 1e-5  # exact comparisons follow
        recalls, precisions = [], []
        any_true = False
        for (down, across), logs in zip(_DIRECTIONS, self._steps, strict=True):
            rows, columns = _places((np.abs(logs[0]) > least) | (np.abs(logs[1]) > least))
            first, on = rows * width + columns, down * width + across
            ratios = [m[first + on].astype(np.float64) / m[first] for m in maps]
            for turned in (ratios, [1 / ratio for ratio in ratios]):
                # How many thresholds each exceeds; those that both exceed are hits.
                answer, truth = (np.searchsorted(_CONTOURS, ratio) for ratio in turned)
                hits, said, there = (
                    _exceeding(each) for each in (np.minimum(answer, truth), answer, truth)
                )
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


def _places(found_hw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of what is true; ``np.nonzero`` takes several times longer."""
    rows, columns = np.divmod(np.flatnonzero(found_hw), found_hw.shape[1])
    return rows, columns


def _exceeding(counts: np.ndarray) -> np.ndarray:
    """Of numbers of thresholds that are exceeded: how many exceed each threshold."""
    found = np.bincount(counts, minlength=len(_CONTOURS) + 1)
    return np.asarray(found[::-1].cumsum()[-2::-1])


def _mean_known(rows: list[np.ndarray]) -> np.ndarray:
    stack = np.stack(rows)
    known = np.isfinite(stack)
    count = known.sum(0)
    total = np.where(known, stack, 0).sum(0)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


def _plane_normals(
    depth_m: np.ndarray, camera: Intrinsics, step: int, places: np.ndarray, across: int
) -> list[np.ndarray]:
    """x, y, z of the unit normals of the planes 1/z = a u + b v + c through the windows at
    ``places`` among every ``step``-th row and column, ``across`` in a row; each (N,)."""
    inverse, dtype = 1 / depth_m, depth_m.dtype.type
    ones = np.ones(_SIDE, dtype)
    slope = np.arange(-_WINDOW, _WINDOW + 1).astype(dtype)
    middles = (slice(_WINDOW, -_WINDOW, step),) * 2

    def weighted(columns: np.ndarray, rows: np.ndarray, total: float) -> np.ndarray:
        sums = cv2.sepFilter2D(inverse, -1, columns, rows)
        return np.asarray(sums[middles].ravel().take(places)) / dtype(total)

    a, b = weighted(slope, ones, 50), weighted(ones, slope, 50)
    mean = weighted(ones, ones, 25)
    rows, columns = (step * index.astype(dtype) for index in np.divmod(places, across))
    u, v = columns + dtype(_WINDOW - camera.cx), rows + dtype(_WINDOW - camera.cy)
    parts = [dtype(camera.fx) * a, dtype(camera.fy) * b, mean - a * u - b * v]
    length = np.sqrt(parts[0] ** 2 + parts[1] ** 2 + parts[2] ** 2)
    return [part / length for part in parts]
