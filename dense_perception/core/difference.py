"""How far two answers are apart, in units that suit metres and bytes alike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Difference:
    """Largest and mean absolute difference over the reference's range.

    The range is its max - min, of bytes 255.
    """

    max_of_range: float
    mean_of_range: float

    @classmethod
    def between(cls, got: np.ndarray, want: np.ndarray) -> Difference:
        """NaN anywhere, or a range of nothing with a difference, counts as infinitely far.

        Of whole numbers a difference of one is rounding, and counts as none.
        """
        error = np.abs(got.astype(np.float64) - want.astype(np.float64))
        if np.issubdtype(want.dtype, np.integer):
            error = np.maximum(error - 1, 0)
        # Bytes are shares of 255: a map that is dark all over must not blow up its rounding.
        span = 255.0 if want.dtype == np.uint8 else float(np.ptp(want.astype(np.float64)))
        largest, mean = float(error.max()), float(error.mean())
        if not np.isfinite(largest) or (span == 0 and largest > 0):
            return cls(float("inf"), float("inf"))
        return cls(largest / span, mean / span) if span else cls(0.0, 0.0)

    @classmethod
    def worst(cls, found: Iterable[Difference]) -> Difference:
        """The largest of each; of none, no difference."""
        kept = [cls(0.0, 0.0), *found]
        return cls(max(d.max_of_range for d in kept), max(d.mean_of_range for d in kept))

    def within(self, other: Difference) -> bool:
        return self.max_of_range <= other.max_of_range and self.mean_of_range <= other.mean_of_range
