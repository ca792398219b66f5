"""How far two answers are apart, in units that suit metres and bytes alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Difference:
    """Largest and mean absolute difference over the reference's range (its max - min)."""

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
        span = float(np.ptp(want.astype(np.float64)))
        largest, mean = float(error.max()), float(error.mean())
        if not np.isfinite(largest) or (span == 0 and largest > 0):
            return cls(float("inf"), float("inf"))
        return cls(largest / span, mean / span) if span else cls(0.0, 0.0)

    def within(self, other: Difference) -> bool:
        return self.max_of_range <= other.max_of_range and self.mean_of_range <= other.mean_of_range
