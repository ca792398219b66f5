"""Metrics of labels, normals and gray maps, in NumPy; depth has its own modules.

Pixels without a truth (void, NaN) do not count; where nothing counts the answer is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dense_perception.core.errors import InputError

ANGLES_DEG = (11.25, 22.5, 30.0)
"""The usual thresholds for normals, since Fouhey 2013."""
_WITHIN = tuple(f"within_{int(limit)}" for limit in ANGLES_DEG)


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

    def sparse(self) -> dict[tuple[int, int], int]:
        """The counts that are not 0 by (true, predicted); ``classes`` is "no class"."""
        places = np.argwhere(self.counts).tolist()
        return {(true, given): int(self.counts[true, given]) for true, given in places}

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


def angle_figures(angles_deg: np.ndarray) -> dict[str, float]:
    """``mean_deg``, ``median_deg``, and ``within_11``, ``within_22``, ``within_30``: the shares
    below 11.25, 22.5 and 30 degrees; an angle that is not finite does not count."""
    angles = angles_deg[np.isfinite(angles_deg)]
    if not len(angles):
        return dict.fromkeys(("mean_deg", "median_deg", *_WITHIN), float("nan"))
    shares = {
        name: int(np.count_nonzero(angles < limit)) / len(angles)
        for name, limit in zip(_WITHIN, ANGLES_DEG, strict=True)
    }
    return {
        "mean_deg": float(angles.mean()),
        "median_deg": float(np.median(angles)),
        **shares,
    }


def angles_between(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> np.ndarray:
    """Angles in degrees between unit vectors, each given as its x, y and z of one shape.

    From the chord: the cosine of equal vectors of float32 is 0.02 degrees away from 1.
    """
    square = sum((a - b) ** 2 for a, b in zip(first, second, strict=True))
    return np.asarray(np.degrees(2 * np.arcsin(np.minimum(np.sqrt(square) / 2, 1))))


def normal_figures(predicted_hwc: np.ndarray, true_hwc: np.ndarray) -> dict[str, float]:
    """Angles between unit vectors (NaN = unknown), as :func:`angle_figures` gives them.

    :raises InputError: if the shapes differ.
    """
    if predicted_hwc.shape != true_hwc.shape:
        raise InputError(f"normals have shape {predicted_hwc.shape}, the truth {true_hwc.shape}")
    vectors = [[m[..., axis] for axis in range(3)] for m in (predicted_hwc, true_hwc)]
    return angle_figures(angles_between(*vectors))


def mean_absolute_error(predicted: np.ndarray, true: np.ndarray) -> float:
    """L1 per pixel, in the maps' own unit.

    :raises InputError: if the shapes differ.
    """
    if predicted.shape != true.shape:
        raise InputError(f"the map has shape {predicted.shape}, the truth {true.shape}")
    error = np.abs(predicted.astype(np.float64) - true.astype(np.float64))
    error = error[np.isfinite(error)]
    return float(error.mean()) if error.size else float("nan")
