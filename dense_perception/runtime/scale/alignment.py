"""From a model's numbers to metres: their relation, and a robust fit of it to known depths."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dense_perception.core.prediction import DepthKind, DepthMap

MIN_POINTS = 8
"""Fewer points than this are no evidence: two free numbers and outliers among them."""

_MAX_PAIRS = 600
_TUKEY = 4.685  # 95 % efficiency for normal residuals
_MAD_TO_SIGMA = 1.4826
# No depth of a network or a sensor is better than this, whatever a few points agree on.
_LEAST_SIGMA = 0.003


@dataclass(frozen=True, slots=True)
class Alignment:
    """``metres = scale * value``, or for ``relative_inverse`` ``1/metres = scale * value + shift``.

    ``kind`` is that of the values, which may be metric already: then ``scale`` corrects them.
    """

    kind: DepthKind
    scale: float
    shift: float = 0.0

    def metres(self, values: np.ndarray) -> np.ndarray:
        """Any shape, ``float32``; NaN where the values are, and where the depth is not positive."""
        values = np.asarray(values, np.float32)
        if self.kind is not DepthKind.RELATIVE_INVERSE:
            metres = values * np.float32(self.scale)
            return np.where(metres > 0, metres, np.float32(np.nan))
        inverse = values * np.float32(self.scale) + np.float32(self.shift)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(inverse > 0, 1 / inverse, np.float32(np.nan))

    def applied(self, depth: DepthMap) -> DepthMap:
        """The map in metres."""
        return DepthMap(self.metres(depth.values_hw), DepthKind.METRIC)


@dataclass(frozen=True, slots=True)
class Fit:
    """An alignment and how far it can be trusted.

    ``error``: relative standard error of the depths it gives, the worse of that at ``near`` and at
    ``far``, two values of the model between which most of the frame lies. ``inliers`` of ``points``
    agree with it.
    """

    alignment: Alignment
    error: float
    near: float
    far: float
    inliers: int
    points: int

    @property
    def is_sound(self) -> bool:
        """Do enough points agree, and at least half of them?"""
        return self.inliers >= MIN_POINTS and 2 * self.inliers >= self.points


def typical_values(depth: DepthMap) -> tuple[float, float] | None:
    """The values of the frame's tenth and ninetieth percentile; ``None`` without enough of them."""
    sample = depth.values_hw[::4, ::4].reshape(-1)
    sample = sample[np.isfinite(sample)]
    if len(sample) < MIN_POINTS:
        return None
    low, high = np.percentile(sample, (10, 90))
    return float(low), float(high)


def fit_alignment(
    depth: DepthMap, values: np.ndarray, metres: np.ndarray, seed: int = 0
) -> Fit | None:
    """The alignment that most of the points agree with; up to half of them may be wrong.

    ``values`` are the model's at the points whose depth is known to be ``metres``, both of N
    numbers; ``depth`` is the whole map. Residuals are relative depth errors, so near and far count
    alike. A high-breakdown start (the shortest half, or the best of many pairs by its median
    residual: Rousseeuw 1984) is refined by iteratively reweighted least squares with Tukey's
    weights. ``None`` if there are too few points or nothing to agree on.
    """
    reach = typical_values(depth)
    usable = np.isfinite(values) & np.isfinite(metres) & (metres > 0)
    if depth.kind is not DepthKind.RELATIVE_INVERSE:
        usable &= values > 0
    x, z = values[usable].astype(np.float64), metres[usable].astype(np.float64)
    if reach is None or len(x) < MIN_POINTS:
        return None
    if depth.kind is DepthKind.RELATIVE_INVERSE:
        return _scale_and_shift(x, z, reach, np.random.default_rng(seed))
    return _scale(depth.kind, x, z, reach)


def _scale(kind: DepthKind, x: np.ndarray, z: np.ndarray, reach: tuple[float, float]) -> Fit:
    logs = np.log(z / x)
    centre = _shortest_half(logs)
    sigma, weights = 0.0, np.ones_like(logs)
    for _ in range(20):
        sigma, weights = _tukey(logs - centre)
        before, centre = centre, float(np.average(logs, weights=weights))
        if abs(centre - before) < 1e-6:
            break
    inliers = int((weights > 0).sum())
    error = max(sigma, _LEAST_SIGMA) / math.sqrt(weights.sum())
    return Fit(Alignment(kind, math.exp(centre)), error, *reach, inliers, len(x))


def _shortest_half(values: np.ndarray) -> float:
    """The mean of the shortest interval that holds half of the numbers."""
    ordered = np.sort(values)
    half = len(ordered) // 2 + 1
    widths = ordered[half - 1 :] - ordered[: len(ordered) - half + 1]
    start = int(widths.argmin())
    return float(ordered[start : start + half].mean())


def _tukey(residuals: np.ndarray) -> tuple[float, np.ndarray]:
    """Robust standard deviation around zero, and each residual's weight."""
    sigma = max(_MAD_TO_SIGMA * float(np.median(np.abs(residuals))), _LEAST_SIGMA)
    inside = np.clip(1 - (residuals / (_TUKEY * sigma)) ** 2, 0, None)
    return sigma, inside**2


def _scale_and_shift(
    x: np.ndarray, z: np.ndarray, reach: tuple[float, float], rng: np.random.Generator
) -> Fit | None:
    """``(a x + b) z = 1`` at every point: linear, and its residual is the relative depth error."""
    start = _best_pair(x, z, rng)
    if start is None:
        return None
    solution = np.array(start)
    # Around the middle of the values the two unknowns are nearly independent of each other.
    middle = float(np.median(x))
    design = np.stack([(x - middle) * z, z], axis=1)
    solution[1] += solution[0] * middle
    sigma, weights = 0.0, np.ones_like(x)
    for _ in range(20):
        sigma, weights = _tukey(design @ solution - 1)
        root = np.sqrt(weights)[:, None]
        before = solution
        solution = np.linalg.lstsq(design * root, root[:, 0], rcond=None)[0]
        if np.allclose(solution, before, rtol=1e-6, atol=0):
            break
    slope, level = float(solution[0]), float(solution[1])
    information = (design * weights[:, None]).T @ design
    if slope <= 0 or np.linalg.cond(information) > 1e12:
        return None
    covariance = np.linalg.inv(information) * sigma**2
    error = 0.0
    for value in reach:
        row = np.array([value - middle, 1.0])
        inverse = float(row @ solution)
        if inverse > 0:  # else the far end of the frame is at infinity, and its error no matter
            error = max(error, math.sqrt(float(row @ covariance @ row)) / inverse)
    alignment = Alignment(DepthKind.RELATIVE_INVERSE, slope, level - slope * middle)
    return Fit(alignment, error or 1.0, *reach, int((weights > 0).sum()), len(x))


def _best_pair(
    x: np.ndarray, z: np.ndarray, rng: np.random.Generator
) -> tuple[float, float] | None:
    """Scale and shift through the two points whose line has the least median residual."""
    first, second = np.triu_indices(len(x), k=1) if len(x) <= 40 else _random_pairs(len(x), rng)
    apart = x[first] - x[second]
    # Two points of almost one value fix no slope.
    wide = np.abs(apart) > 0.05 * (np.percentile(x, 90) - np.percentile(x, 10))
    wide &= apart != 0
    first, second, apart = first[wide], second[wide], apart[wide]
    slopes = (1 / z[first] - 1 / z[second]) / apart
    shifts = 1 / z[first] - slopes * x[first]
    rising = slopes > 0
    slopes, shifts = slopes[rising, None], shifts[rising, None]
    if len(slopes) == 0:
        return None
    residuals = np.abs((slopes * x + shifts) * z - 1)
    best = int(np.median(residuals, axis=1).argmin())
    return float(slopes[best, 0]), float(shifts[best, 0])


def _random_pairs(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    first = rng.integers(0, count, _MAX_PAIRS)
    return first, (first + rng.integers(1, count, _MAX_PAIRS)) % count
