"""Metrics of labels, normals and gray maps, in NumPy and float64; depth has its own module.

Pixels without a truth (void, NaN) do not count; where nothing counts the answer is NaN.
"""

from __future__ import annotations

import numpy as np

from dense_perception.core.errors import InputError

ANGLES_DEG = (11.25, 22.5, 30.0)
"""The usual thresholds for normals, since Fouhey 2013."""


class Confusion:
    """Counts pixels by (true, predicted) class; pixels whose truth is void do not count.

    ``counts`` is int64 of shape (classes, classes + 1): the last column is predictions of no class.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.counts = np.zeros((classes, classes + 1), np.int64)

    def add(self, predicted_hw: np.ndarray, true_hw: np.ndarray) -> None:
        """Both HxW whole numbers; what is not in 0 .. classes - 1 is void.

        :raises InputError: if the shapes differ.
        """
        if predicted_hw.shape != true_hw.shape:
            raise InputError(
                f"the prediction has shape {predicted_hw.shape}, the truth {true_hw.shape}: "
                "resize one of them first"
            )
        valid = (true_hw >= 0) & (true_hw < self.classes)
        true = true_hw[valid].astype(np.int64)
        predicted = predicted_hw[valid].astype(np.int64)
        predicted[(predicted < 0) | (predicted >= self.classes)] = self.classes
        index = true * (self.classes + 1) + predicted
        self.counts += np.bincount(index, minlength=self.counts.size).reshape(self.counts.shape)

    @property
    def pixel_accuracy(self) -> float:
        """Share of the pixels with a true class that were given it; NaN without any."""
        total = int(self.counts.sum())
        return float(np.trace(self.counts)) / total if total else float("nan")

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of each class; NaN where it is neither true nor given."""
        both = np.diagonal(self.counts).astype(np.float64)
        union = self.counts.sum(1) + self.counts[:, :-1].sum(0) - both
        return np.divide(both, union, out=np.full(self.classes, np.nan), where=union > 0)

    @property
    def mean_iou(self) -> float:
        """The mean over the classes that occur; NaN if none does."""
        present = self.iou[np.isfinite(self.iou)]
        return float(present.mean()) if len(present) else float("nan")


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
