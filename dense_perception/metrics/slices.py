"""Errors of depth by parts of the pixels: by the true distance, by class.

Sums and counts, because slices of single frames are small: they are added up over frames first.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

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
    """The number of the bin of true distances, finite and positive; int64 of their shape."""
    # A table of half metres: searching among the ends takes ten times longer.
    halves = np.minimum(true_m * _HALF, len(_TABLE) - 1)
    return _TABLE.take(halves.astype(np.intp))


def sliced_errors(
    predicted_m: np.ndarray, true_m: np.ndarray, place: np.ndarray, count: int
) -> dict[str, np.ndarray]:
    """Sums over the pixels of each place, float64 (count,): divide them by ``pixels``.

    ``absrel`` adds abs(p - t) / t, ``d1`` one where p and t are within a factor of 1.25, ``scale``
    p / t, ``pixels`` one for every pixel.

    :param predicted_m: with ``true_m`` finite and positive metres, (n,).
    :param place: (n,) whole numbers below ``count``; others belong nowhere.
    """
    ratio = predicted_m / true_m
    if len(place) and (place.min() < 0 or place.max() >= count):
        inside = (place >= 0) & (place < count)
        place, ratio = place[inside], ratio[inside]
    right = np.maximum(ratio, 1 / ratio) < ratio.dtype.type(1.25)
    # Both outcomes are counted at once.
    counts = np.bincount(2 * place + right, minlength=2 * count).reshape(count, 2)
    return {
        "absrel": np.bincount(place, np.abs(ratio - 1), count),
        "d1": counts[:, 1].astype(np.float64),
        "scale": np.bincount(place, ratio, count),
        "pixels": counts.sum(1).astype(np.float64),
    }
