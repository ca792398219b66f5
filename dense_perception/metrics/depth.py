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

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import InputError

_WINDOW = 2  # normals are planes through 5x5 pixels
_FLAT = 0.11  # log depth: a window with larger differences from its middle holds an edge
_STEP = 0.25  # log depth between neighbours that makes an occlusion edge


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


def depth_normals(
    predicted_m: np.ndarray, true_m: np.ndarray, camera: Intrinsics
) -> dict[str, float]:
    """Mean and median angle in degrees between the normals of predicted and true depth.

    Normals are those of least-squares planes through 5x5 pixels, in inverse depth, where a plane is
    linear. Windows with invalid depth or an edge in the truth do not count; NaN where none does.
    """
    true, predicted = (np.asarray(m, np.float64) for m in (true_m, predicted_m))
    valid = np.isfinite(true) & (true > 0) & np.isfinite(predicted) & (predicted > 0)
    log = np.log(np.where(valid, true, 1))
    size = 2 * _WINDOW + 1
    count = np.zeros(tuple(side - size + 1 for side in true.shape), bool)
    flat = ~count
    inner = (slice(_WINDOW, -_WINDOW),) * 2
    for part, mask in zip(_shifts(log), _shifts(valid), strict=True):
        flat &= mask & (np.abs(part - log[inner]) <= _FLAT)
    normals = [_plane_normals(np.where(valid, m, 1.0), camera)[flat] for m in (predicted, true)]
    cosine = np.clip((normals[0] * normals[1]).sum(-1), -1, 1)
    angles = np.degrees(np.arccos(cosine))
    mean, median = (angles.mean(), np.median(angles)) if len(angles) else (np.nan, np.nan)
    return {"depth_normals_mean_deg": float(mean), "depth_normals_median_deg": float(median)}


def edge_share(predicted_m: np.ndarray, true_m: np.ndarray) -> float:
    """How much of the true steps in log depth the prediction makes within four pixels, 0 to 1.

    A step is over 25 % between two neighbours in a row or a column, with smooth depth (5 %) on
    either side. The share of each is limited to 0 to 1; NaN where there is no step.
    """
    shares = []
    for turn in (np.asarray, np.transpose):
        true, predicted = (turn(np.asarray(m, np.float64)) for m in (true_m, predicted_m))
        valid = np.isfinite(true) & (true > 0) & np.isfinite(predicted) & (predicted > 0)
        log, answer = (np.log(np.where(valid, m, 1)) for m in (true, predicted))
        a, b, c, d = (slice(k, log.shape[1] - 3 + k) for k in range(4))
        step = log[:, d] - log[:, a]
        inside = np.abs(log[:, c] - log[:, b])
        smooth = (np.abs(log[:, b] - log[:, a]) < 0.05) & (np.abs(log[:, d] - log[:, c]) < 0.05)
        known = valid[:, a] & valid[:, b] & valid[:, c] & valid[:, d]
        edges = known & smooth & (inside > _STEP)
        shares.append(np.clip((answer[:, d] - answer[:, a])[edges] / step[edges], 0, 1))
    found = np.concatenate(shares)
    return float(found.mean()) if len(found) else float("nan")


def _shifts(values_hw: np.ndarray) -> list[np.ndarray]:
    """The inner part seen from each pixel of the window, row by row."""
    height, width = values_hw.shape
    size = 2 * _WINDOW + 1
    return [
        values_hw[y : height - size + 1 + y, x : width - size + 1 + x]
        for y in range(size)
        for x in range(size)
    ]


def _plane_normals(depth_m: np.ndarray, camera: Intrinsics) -> np.ndarray:
    """(H - 4, W - 4, 3) unit normals of the planes 1/z = a u + b v + c through the windows."""
    offsets = [(x, y) for y in range(-_WINDOW, _WINDOW + 1) for x in range(-_WINDOW, _WINDOW + 1)]
    parts = _shifts(1 / depth_m)
    spread = sum(x * x for x, _ in offsets)
    a = sum(x * part for (x, _), part in zip(offsets, parts, strict=True)) / spread
    b = sum(y * part for (_, y), part in zip(offsets, parts, strict=True)) / spread
    mean = sum(parts) / len(parts)
    height, width = depth_m.shape
    u = np.arange(_WINDOW, width - _WINDOW)[None] - camera.cx
    v = np.arange(_WINDOW, height - _WINDOW)[:, None] - camera.cy
    normal = np.stack([camera.fx * a, camera.fy * b, mean - a * u - b * v], -1)
    return np.asarray(normal / np.linalg.norm(normal, axis=-1, keepdims=True))


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
