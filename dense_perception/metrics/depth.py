"""Depth metrics of one frame against a ground truth, in NumPy.

Every function takes ``predicted_m`` and ``true_m``: metres, one shape. A pixel counts when the
truth is finite and positive (0 and NaN are "no measurement") and the prediction is finite and
positive too; how many truths were answered is ``coverage``. A frame in which nothing counts gives
NaN. Two float32 maps are compared in float32 (good to 1e-6, and several times faster), anything
else in float64. Names and definitions follow Eigen, Puhrsch and Fergus (2014).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np

from dense_perception.core.errors import InputError

KINDS = ("metric", "scaled", "aligned")
"""As answered; times median(truth) / median(prediction) (Zhou 2017); after the best scale and shift
of inverse depth (:func:`align_scale_shift`, MiDaS, Ranftl 2020)."""
ERRORS = ("absrel", "sqrel", "rmse", "rmselog", "log10", "silog", "d1", "d2", "d3")
_OLD_NAMES = {"absrel": "abs_rel", "sqrel": "sq_rel"}
_OLD_ALIGNED = ("absrel", "rmse", "d1", "d2", "d3")


def floats(predicted_m: np.ndarray, true_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays of one type: float32 if both are, else float64.

    :raises InputError: if the shapes differ.
    """
    predicted, true = np.asarray(predicted_m), np.asarray(true_m)
    if predicted.shape != true.shape:
        raise InputError(
            f"prediction has shape {predicted.shape}, truth {true.shape}: resize one of them first"
        )
    small = predicted.dtype == np.float32 and true.dtype == np.float32
    dtype = np.float32 if small else np.float64
    return predicted.astype(dtype, copy=False), true.astype(dtype, copy=False)


def usable(depth_m: np.ndarray) -> np.ndarray:
    """Where depth is finite and positive: bool of its shape."""
    with np.errstate(invalid="ignore"):
        found: np.ndarray = (depth_m > 0) & (depth_m < np.inf)
    return found


def valid_pixels(predicted_m: np.ndarray, true_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pixels that count, as two flat arrays.

    :raises InputError: if the shapes differ.
    """
    predicted, true = floats(predicted_m, true_m)
    valid = usable(true) & usable(predicted)
    return predicted[valid], true[valid]


def coverage(predicted_m: np.ndarray, true_m: np.ndarray) -> float:
    """Share of the measured pixels that have a usable prediction."""
    predicted, true = floats(predicted_m, true_m)
    measured = usable(true)
    count = int(np.count_nonzero(measured))
    return np.count_nonzero(measured & usable(predicted)) / count if count else math.nan


def abs_rel(predicted_m: np.ndarray, true_m: np.ndarray) -> float:
    """mean(\\|p - t\\| / t)."""
    p, t = valid_pixels(predicted_m, true_m)
    return float(np.mean(np.abs(p - t) / t)) if len(p) else math.nan


def delta(predicted_m: np.ndarray, true_m: np.ndarray, power: int = 1) -> float:
    """Share of pixels with max(p / t, t / p) < 1.25^power."""
    p, t = valid_pixels(predicted_m, true_m)
    return _below(np.maximum(p / t, t / p), power) if len(p) else math.nan


def errors(ratio: np.ndarray, true_m: np.ndarray) -> dict[str, float]:
    """Every error of :data:`ERRORS` from r = p / t and t, the flat arrays of the pixels that count.

    ==========  ================================================================================
    absrel      mean(\\|r - 1\\|)
    sqrel       mean((r - 1)^2 t), metres
    rmse        sqrt(mean(((r - 1) t)^2)), metres
    rmselog     sqrt(mean((ln r)^2))
    log10       mean(\\|log10 r\\|)
    silog       100 sqrt(mean((ln r)^2) - mean(ln r)^2), as KITTI's benchmark counts it
    d1, d2, d3  share of pixels with max(r, 1 / r) < 1.25, 1.25^2, 1.25^3
    ==========  ================================================================================
    """
    if not len(ratio):
        return dict.fromkeys(ERRORS, math.nan)
    found = {}
    # Everything goes through one scratch array: new ones of a megabyte cost more than the sums.
    log, scratch = np.log(ratio), np.empty_like(ratio)
    worst = np.maximum(ratio, np.divide(1, ratio, out=scratch), out=scratch)
    for power in (1, 2, 3):
        found[f"d{power}"] = _below(worst, power)
    relative = ratio - 1
    found["absrel"] = float(np.mean(np.abs(relative, out=scratch)))
    metres = np.multiply(relative, true_m, out=scratch)
    found["sqrel"] = float(np.mean(np.multiply(relative, metres, out=relative)))
    found["rmse"] = math.sqrt(np.mean(np.square(metres, out=scratch)))
    found["rmselog"] = math.sqrt(np.mean(np.square(log, out=scratch)))
    found["log10"] = float(np.mean(np.abs(log, out=scratch))) / math.log(10)
    centred = np.subtract(log, np.mean(log), out=scratch)
    found["silog"] = 100 * math.sqrt(np.mean(np.square(centred, out=scratch)))
    return {name: found[name] for name in ERRORS}


def depth_figures(
    predicted_m: np.ndarray,
    true_m: np.ndarray,
    max_m: float = math.inf,
    kinds: Collection[str] = KINDS,
) -> dict[str, float]:
    """``metric.absrel`` and all others of ``kinds``, ``coverage``, and with ``metric`` ``scale``.

    ``scale`` is median(p) / median(t), which ``scaled`` divides by.

    :param max_m: the farthest that aligned depth may be; see :func:`align_scale_shift`.
    :raises InputError: if the shapes differ.
    """
    predicted, true = floats(predicted_m, true_m)
    measured = usable(true)
    valid = measured & usable(predicted)
    p, t = predicted[valid], true[valid]
    found: dict[str, float] = {}
    ratio = p / t
    if "metric" in kinds:
        found |= {f"metric.{name}": value for name, value in errors(ratio, t).items()}
    if "metric" in kinds or "scaled" in kinds:
        scale = _median(p) / _median(t) if len(p) else math.nan
        if "metric" in kinds:
            found["scale"] = scale
        if "scaled" in kinds:
            scaled = errors(ratio / ratio.dtype.type(scale), t)
            found |= {f"scaled.{name}": value for name, value in scaled.items()}
    if "aligned" in kinds:
        ratio = _aligned(p, t, p, max_m)
        ratio /= t
        aligned = errors(ratio, t)
        found |= {f"aligned.{name}": value for name, value in aligned.items()}
    count = int(np.count_nonzero(measured))
    found["coverage"] = len(p) / count if count else math.nan
    return found


def align_scale_shift(
    predicted_m: np.ndarray, true_m: np.ndarray, max_m: float = math.inf
) -> np.ndarray:
    """The prediction after the best scale and shift in inverse depth, of its shape.

    Finds s, b that minimise sum((s / p + b - 1 / t)^2) over the pixels that count and returns
    1 / (s / p + b). Where the aligned inverse depth is below 1 / ``max_m``, or not positive, the
    answer is ``max_m``, or without one the largest true depth of the frame, so that no pixel
    escapes being counted. A constant prediction gets s = 0. NaN where the prediction is not finite
    and positive, or nothing counts.
    """
    predicted, true = floats(predicted_m, true_m)
    answered = usable(predicted)
    valid = answered & usable(true)
    result = np.full(predicted.shape, np.nan, predicted.dtype)
    if valid.any():
        result[answered] = _aligned(predicted[valid], true[valid], predicted[answered], max_m)
    return result


def evaluate(
    predicted_m: np.ndarray, true_m: np.ndarray, max_m: float = math.inf
) -> dict[str, float]:
    """Metric and aligned errors of one frame and the coverage, by the names of ``evaluate --json``.

    ``abs_rel``, ``sq_rel``, ``rmse``, ``log10``, ``silog``, ``d1`` to ``d3``, of the aligned ones
    ``aligned_abs_rel``, ``aligned_rmse`` and ``aligned_d1`` to ``aligned_d3``, and ``coverage``.
    """
    found = depth_figures(predicted_m, true_m, max_m, ("metric", "aligned"))
    metric = [name for name in ERRORS if name != "rmselog"]
    return {
        **{_OLD_NAMES.get(name, name): found[f"metric.{name}"] for name in metric},
        **{
            f"aligned_{_OLD_NAMES.get(name, name)}": found[f"aligned.{name}"]
            for name in _OLD_ALIGNED
        },
        "coverage": found["coverage"],
    }


def average(frames: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean over frames of each metric, leaving out frames where it is NaN."""
    names = list(frames[0]) if frames else []
    means = {}
    for name in names:
        values = np.array([frame[name] for frame in frames], dtype=np.float64)
        values = values[np.isfinite(values)]
        means[name] = float(values.mean()) if len(values) else math.nan
    return means


def _aligned(p: np.ndarray, t: np.ndarray, asked: np.ndarray, max_m: float) -> np.ndarray:
    """``asked`` aligned as ``p`` is to ``t``: flat arrays, all usable."""
    if not len(p):
        return np.full(asked.shape, np.nan, asked.dtype)
    x, y = 1 / p, 1 / t
    x_mean, y_mean = np.mean(x), np.mean(y)
    centred_x = np.subtract(x, x_mean, out=x)
    centred_y = np.subtract(y, y_mean, out=y)
    both = float(np.mean(np.multiply(centred_x, centred_y, out=y)))
    spread = float(np.mean(np.square(centred_x, out=x)))
    # A prediction that is constant up to rounding has no slope to fit.
    rounding = max(1e-20, (8 * float(np.finfo(p.dtype).eps)) ** 2)
    slope = 0.0 if spread <= rounding * float(x_mean) ** 2 else both / spread
    shift = float(y_mean) - slope * float(x_mean)
    farthest = max_m if math.isfinite(max_m) else float(np.max(t))
    with np.errstate(over="ignore"):
        inverse = p.dtype.type(slope) / asked
    inverse += p.dtype.type(shift)
    np.maximum(inverse, p.dtype.type(1 / farthest), out=inverse)
    return np.divide(1, inverse, out=inverse)


def _below(worst: np.ndarray, power: int) -> float:
    return int(np.count_nonzero(worst < worst.dtype.type(1.25**power))) / len(worst)


def _median(values: np.ndarray) -> float:
    """As ``np.median`` of flat finite values, but six times faster: it looks for no NaN."""
    middle = len(values) // 2
    parted = np.partition(values, middle)
    upper = float(parted[middle])
    return upper if len(values) % 2 else (float(parted[:middle].max()) + upper) / 2
