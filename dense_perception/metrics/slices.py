"""Errors of depth by parts of the pixels: by the true distance, by class.

Sums and counts, because slices of single frames are small: they are added up over frames first.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from dense_perception.metrics.depth import floats, usable

DISTANCES_M = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 40.0, 80.0, math.inf)
"""Ends of the bins of true distance: one holds its lower end, not its upper one."""
_HALF = 2  # every end but the last is a whole number of these parts of a metre
_TABLE = np.repeat(
    np.arange(len(DISTANCES_M) - 1),
    [*np.diff(np.array(DISTANCES_M[:-1]) * _HALF).astype(int), 1],
)


def distance_names() -> list[str]:
    """``0-0.5``, ..., ``40-80``, ``80-inf``: the bins in metres."""
    ends = [f"{end:g}" for end in DISTANCES_M]
    return [f"{low}-{high}" for low, high in itertools.pairwise(ends)]


def distance_place(true_m: np.ndarray) -> np.ndarray:
    """The number of each pixel's bin of true distance, -1 where there is no truth; (H, W) int64."""
    known = usable(true_m)
    # A table of half metres: searching among the ends takes ten times longer.
    halves = np.minimum(np.where(known, true_m, 0) * _HALF, len(_TABLE) - 1)
    return np.where(known, _TABLE[halves.astype(np.int64)], -1)


def sliced_errors(
    predicted_m: np.ndarray, true_m: np.ndarray, place_hw: np.ndarray, count: int
) -> dict[str, np.ndarray]:
    """Sums over the pixels of each place, float64 (count,): divide them by ``pixels``.

    ``absrel`` adds abs(p - t) / t, ``d1`` one where p and t are within a factor of 1.25, ``scale``
    p / t, ``pixels`` one for every pixel that counts as in :mod:`dense_perception.metrics.depth`.

    :param place_hw: (H, W) whole numbers below ``count``; others belong nowhere.
    """
    predicted, true = floats(predicted_m, true_m)
    valid = usable(predicted) & usable(true) & (place_hw >= 0) & (place_hw < count)
    place = place_hw[valid]
    ratio = predicted[valid] / true[valid]
    right = np.maximum(ratio, 1 / ratio) < 1.25
    return {
        "absrel": np.bincount(place, np.abs(ratio - 1), count),
        "d1": np.bincount(place, right, count),
        "scale": np.bincount(place, ratio, count),
        "pixels": np.bincount(place, minlength=count).astype(np.float64),
    }
