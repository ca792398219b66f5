"""Which pixels of a frame count, as the benchmarks of depth agree."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.core.prediction import known_only

# Top, bottom, left and right as shares of the height and the width; cut off to whole pixels.
_CROPS = {
    "garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),
    "eigen_kitti": (0.3324324, 0.91351351, 0.0359477, 0.96405229),
    "eigen_nyu": (45 / 480, 471 / 480, 41 / 640, 601 / 640),
}
CROPS = tuple(_CROPS)


@dataclass(frozen=True, slots=True)
class Protocol:
    """Which true depth counts: inside a crop, from ``min_m`` to ``max_m`` metres (both included).

    ``crop`` is one of :data:`CROPS` or None for the whole frame: ``garg`` (Garg 2016) and
    ``eigen_kitti`` (Eigen 2014) for KITTI, ``eigen_nyu`` for NYU Depth v2, whose rows 45 to 470 and
    columns 41 to 600 of 640x480 are scaled to frames of other sizes.

    ``clamp``: predictions are limited to the range before they are compared, as the published
    evaluations of KITTI and NYU do.

    :raises InputError: for an unknown crop or an empty range.
    """

    crop: str | None = None
    min_m: float = 0.0
    max_m: float = math.inf
    clamp: bool = False

    def __post_init__(self) -> None:
        if self.crop is not None and self.crop not in _CROPS:
            raise InputError(f"crop is {self.crop!r}, expected one of {', '.join(CROPS)}")
        if not 0 <= self.min_m < self.max_m:
            raise InputError(
                f"depth counts from {self.min_m:g} to {self.max_m:g} m, which is nothing: give a "
                "range above 0"
            )

    @property
    def text(self) -> str:
        """Which true depth counts, in a few words; equal ones count the same."""
        least = f"{self.min_m:g} to " if self.min_m else "up to "
        parts = [f"{least}{self.max_m:g} m", f"inside {self.crop}" if self.crop else "all pixels"]
        return ", ".join(parts + (["answers limited to that"] if self.clamp else []))

    def truth(self, true_m: np.ndarray) -> np.ndarray:
        """The (H, W) float truth with NaN where it does not count; itself where all of it does."""
        with np.errstate(invalid="ignore"):
            inside = true_m >= self.min_m
            inside &= true_m <= self.max_m
        if self.crop is None and np.count_nonzero(inside) == np.count_nonzero(true_m == true_m):
            return true_m
        if self.crop is not None:
            rows, columns = crop_slices(self.crop, *true_m.shape)
            inner = inside[rows, columns].copy()
            inside[:] = False
            inside[rows, columns] = inner
        return known_only(true_m, inside)

    def answer(self, predicted_m: np.ndarray) -> np.ndarray:
        """The prediction in metres, limited to the range where the protocol says so."""
        if not self.clamp:
            return predicted_m
        return np.clip(predicted_m, self.min_m, self.max_m, dtype=predicted_m.dtype)


KITTI = Protocol("garg", 1e-3, 80, clamp=True)
"""Depth on KITTI's Eigen split, as BTS (Lee 2019), DPT and Depth Anything count it."""
NYU = Protocol("eigen_nyu", 1e-3, 10, clamp=True)
"""Depth on NYU Depth v2, likewise."""


def crop_slices(name: str, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of a crop of :data:`CROPS` in a frame of that size."""
    top, bottom, left, right = _CROPS[name]
    # The smallest share of a pixel more: 45 / 480 * 480 must not become 44.
    rows, columns = ((low, high) for low, high in ((top, bottom), (left, right)))
    return _pixels(rows, height), _pixels(columns, width)


def _pixels(shares: tuple[float, float], side: int) -> slice:
    return slice(*(int(share * side + 1e-9) for share in shares))
