"""Depth metrics of one frame against a ground truth, in NumPy and float64.

Every function takes ``predicted_m`` and ``true_m``: metres, one shape, any dtype. A pixel counts
when the truth is finite and positive (0 and NaN are "no measurement") and the prediction is
finite and positive too; how many truths were answered is :func:`coverage`. A frame in which
nothing counts gives NaN. Names and definitions follow Eigen, Puhrsch and Fergus (2014); those
with ``aligned_`` are taken after :func:`align_scale_shift`, as MiDaS (Ranftl 2020) does it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dense_perception.core.errors import InputError


def valid_pixels(predicted_m: np.ndarray, true_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pixels that count, as two flat float64 arrays.

    :raises InputError: if the shapes differ.
    """
    predicted = np.asarray(predicted_m, dtype=np.float64)
    true = np.asarray(true_m, dtype=np.float64)
    if predicted.shape != true.shape:
        raise InputError(
            f"prediction has shape {predicted.shape}, truth {true.shape}: resize one of them first"
        )
    with np.errstate(invalid="ignore"):
        valid = np.isfinite(true) & (true > 0) & np.isfinite(predicted) & (predicted > 0)
    return predicted[valid], true[valid]


def coverage(predicted_m: np.ndarray, true_m: np.ndarray) -> float:
    """Share of the measured pixels that have a usable prediction."""
    true = np.asarray(true_m, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        measured = int(np.count_nonzero(np.isfinite(true) & (true > 0)))
    return len(valid_pixels(predicted_m, true_m)[0]) / measured if measured else float("nan")


def abs_rel(predicted_m: np.ndarray, true_m: np.ndarray) -> float:
    """mean(\\|p - t\\| / t)."""
    return _mean(lambda p, t: np.abs(p - t) / t, predicted_m, true_m)


def sq_rel(predicted_m: np.ndarray, true_m: np.ndarray) -> float:
    """mean((p - t)^2 / t), metres."""
    return _mean(lambda p, t: (p - t) ** 2 / t, predicted_m, true_m)


def rmse(predicted_m: np.ndarray, true_m: np.ndarray) -> float:
    """sqrt(mean((p - t)^2)), metres."""
    return float(np.sqrt(_mean(lambda p, t: (p - t) ** 2, predicted_m, true_m)))


def log10_error(predicted_m: np.ndarray, true_m: np.ndarray) -> float:
    """mean(\\|log10 p - log10 t\\|)."""
    return _mean(lambda p, t: np.abs(np.log10(p) - np.log10(t)), predicted_m, true_m)


def silog(predicted_m: np.ndarray, true_m: np.ndarray) -> float:
    """100 sqrt(mean(d^2) - mean(d)^2) with d = ln p - ln t: KITTI's scale-invariant error."""
    p, t = valid_pixels(predicted_m, true_m)
    return float(100 * np.std(np.log(p) - np.log(t))) if len(p) else float("nan")


def delta(predicted_m: np.ndarray, true_m: np.ndarray, power: int = 1) -> float:
    """Share of pixels with max(p / t, t / p) < 1.25^power."""
    return _mean(lambda p, t: np.maximum(p / t, t / p) < 1.25**power, predicted_m, true_m)


def align_scale_shift(
    predicted_m: np.ndarray, true_m: np.ndarray, max_m: float = float("inf")
) -> np.ndarray:
    """The prediction after the best scale and shift in inverse depth.

    Finds s, b that minimise sum((s / p + b - 1 / t)^2) over the pixels that count and returns
    1 / (s / p + b), float64 of the prediction's shape. Where the aligned inverse depth is below
    1 / ``max_m``, or not positive, the answer is ``max_m``, or without one the largest true
    depth of the frame, so that no pixel escapes being counted. A constant prediction gets s = 0.
    NaN where the prediction is not finite and positive, or nothing counts.
    """
    predicted = np.asarray(predicted_m, dtype=np.float64)
    p, t = valid_pixels(predicted, true_m)
    if not len(p):
        return np.full(predicted.shape, np.nan)
    x, y = 1 / p, 1 / t
    spread = np.mean((x - x.mean()) ** 2)
    # A prediction that is constant up to rounding has no slope to fit.
    flat = spread <= 1e-20 * np.mean(x**2)
    scale = 0.0 if flat else float(np.mean((x - x.mean()) * (y - y.mean())) / spread)
    shift = float(y.mean() - scale * x.mean())
    farthest = max_m if np.isfinite(max_m) else float(t.max())
    with np.errstate(divide="ignore", invalid="ignore"):
        aligned = 1 / np.maximum(scale / predicted + shift, 1 / farthest)
        usable = np.isfinite(predicted) & (predicted > 0)
    return np.where(usable, aligned, np.nan)


def evaluate(
    predicted_m: np.ndarray, true_m: np.ndarray, max_m: float = float("inf")
) -> dict[str, float]:
    """All metrics of one frame, by name."""
    aligned = align_scale_shift(predicted_m, true_m, max_m)
    return {
        "abs_rel": abs_rel(predicted_m, true_m),
        "sq_rel": sq_rel(predicted_m, true_m),
        "rmse": rmse(predicted_m, true_m),
        "log10": log10_error(predicted_m, true_m),
        "silog": silog(predicted_m, true_m),
        "d1": delta(predicted_m, true_m, 1),
        "d2": delta(predicted_m, true_m, 2),
        "d3": delta(predicted_m, true_m, 3),
        "aligned_abs_rel": abs_rel(aligned, true_m),
        "aligned_rmse": rmse(aligned, true_m),
        "aligned_d1": delta(aligned, true_m, 1),
        "aligned_d2": delta(aligned, true_m, 2),
        "aligned_d3": delta(aligned, true_m, 3),
        "coverage": coverage(predicted_m, true_m),
    }


def average(frames: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean over frames of each metric, leaving out frames where it is NaN."""
    names = list(frames[0]) if frames else []
    means = {}
    for name in names:
        values = np.array([frame[name] for frame in frames], dtype=np.float64)
        values = values[np.isfinite(values)]
        means[name] = float(values.mean()) if len(values) else float("nan")
    return means


def _mean(
    error: Callable[[np.ndarray, np.ndarray], np.ndarray],
    predicted_m: np.ndarray,
    true_m: np.ndarray,
) -> float:
    p, t = valid_pixels(predicted_m, true_m)
    return float(np.mean(error(p, t))) if len(p) else float("nan")
