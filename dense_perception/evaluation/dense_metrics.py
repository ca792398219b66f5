"""Metrics of labels, normals and gray maps, in NumPy and float64; depth has its own module.

Each works on one frame and on any shape. Pixels without a truth (VOID, NaN) do not count; where
nothing counts the answer is NaN.
"""

from __future__ import annotations

import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.core.labels import VOID

ANGLES_DEG = (11.25, 22.5, 30.0)
"""The usual thresholds for normals, since Fouhey 2013."""


def confusion(predicted: np.ndarray, true: np.ndarray, classes: int) -> np.ndarray:
    """(classes, classes) int64: how often row's truth was answered with column's label.

    Add up those of several frames. A prediction that is no class is counted as none.

    :raises InputError: if the shapes differ.
    """
    if predicted.shape != true.shape:
        raise InputError(f"labels have shape {predicted.shape}, the truth {true.shape}")
    counted = (true != VOID) & (true < classes) & (predicted < classes)
    flat = true[counted].astype(np.int64) * classes + predicted[counted]
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)


def segmentation_metrics(counts: np.ndarray) -> dict[str, float]:
    """``miou``: mean intersection over union of the classes that occur in truth or answer;
    ``pixel_accuracy``: share of right pixels.
    """
    hits = np.diag(counts).astype(np.float64)
    union = counts.sum(0) + counts.sum(1) - hits
    occurs = union > 0
    total = float(counts.sum())
    return {
        "miou": float((hits[occurs] / union[occurs]).mean()) if occurs.any() else float("nan"),
        "pixel_accuracy": float(hits.sum() / total) if total else float("nan"),
    }


def normal_metrics(predicted_hwc: np.ndarray, true_hwc: np.ndarray) -> dict[str, float]:
    """Angles in degrees between unit vectors: mean, median, and the shares below 11.25, 22.5, 30.

    :raises InputError: if the shapes differ.
    """
    if predicted_hwc.shape != true_hwc.shape:
        raise InputError(f"normals have shape {predicted_hwc.shape}, the truth {true_hwc.shape}")
    cosine = (predicted_hwc.astype(np.float64) * true_hwc.astype(np.float64)).sum(axis=-1)
    angles = np.degrees(np.arccos(np.clip(cosine[np.isfinite(cosine)], -1, 1)))
    if not len(angles):
        nothing = float("nan")
        return dict.fromkeys(_normal_names(), nothing)
    values = [angles.mean(), np.median(angles), *((angles < limit).mean() for limit in ANGLES_DEG)]
    return {name: float(value) for name, value in zip(_normal_names(), values, strict=True)}


def mean_absolute_error(predicted: np.ndarray, true: np.ndarray) -> float:
    """L1 per pixel, in the maps' own unit.

    :raises InputError: if the shapes differ.
    """
    if predicted.shape != true.shape:
        raise InputError(f"the map has shape {predicted.shape}, the truth {true.shape}")
    error = np.abs(predicted.astype(np.float64) - true.astype(np.float64))
    error = error[np.isfinite(error)]
    return float(error.mean()) if error.size else float("nan")


def _normal_names() -> list[str]:
    shares = [f"normals_below_{limit:g}".replace(".", "_") for limit in ANGLES_DEG]
    return ["normals_mean_deg", "normals_median_deg", *shares]
