"""How far two answers are apart, in units that suit metres and bytes alike, and may be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from dense_perception.core.card import ModelCard


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


TOLERANCES = {
    "fp32": Difference(1e-3, 1e-4),
    "fp16": Difference(0.02, 0.002),
    "int8": Difference(0.05, 0.005),
    "fp8": Difference(0.05, 0.005),
}
"""By precision: how far a runtime may be from ONNX Runtime, where a file's card states nothing.

What export states in a card is never less.
"""


def tolerance(card: ModelCard) -> Difference:
    """How far a runtime may be from ONNX Runtime with this card's file."""
    default = TOLERANCES[card.precision]
    return Difference(
        float(card.parity.get("max_of_range", default.max_of_range)),
        float(card.parity.get("mean_of_range", default.mean_of_range)),
    )
