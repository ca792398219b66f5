"""What knows nothing of a picture and must be beaten: a depth for each row, one for all.

Rows are averaged in inverse depth over the very truth that is compared with: an advantage that no
model has. In rooms the row says a lot, for the floor is below.
"""

from __future__ import annotations

import numpy as np

from dense_perception.metrics.depth import usable

_ROWS = 120


class RowPrior:
    """Mean inverse depth by row, of frames of any size: 120 rows from the top to the bottom.

    ``sums`` and ``counts`` are float64 (120,); those of several priors add up.
    """

    def __init__(self) -> None:
        self.sums = np.zeros(_ROWS)
        self.counts = np.zeros(_ROWS)

    def add(self, true_m: np.ndarray) -> None:
        """A truth, (H, W) metres; pixels that are not finite and positive do not count."""
        known = usable(true_m)
        inverse = np.divide(1, true_m, out=np.zeros(true_m.shape), where=known)
        rows = np.arange(len(true_m)) * _ROWS // len(true_m)
        self.sums += np.bincount(rows, inverse.sum(1), _ROWS)
        self.counts += np.bincount(rows, known.sum(1), _ROWS)

    def by_row(self, height: int, width: int) -> np.ndarray:
        """Depth (height, width) float32 metres; rows that nobody measured are as their nearest.

        NaN everywhere if nothing was measured.
        """
        known = np.flatnonzero(self.counts)
        if not len(known):
            return np.full((height, width), np.nan, np.float32)
        inverse = self.sums[known] / self.counts[known]
        rows = (np.arange(height) + 0.5) * _ROWS / height - 0.5
        column = 1 / np.interp(rows, known, inverse)
        return np.repeat(column.astype(np.float32)[:, None], width, axis=1)

    def constant(self, height: int, width: int) -> np.ndarray:
        """One depth everywhere, of the mean inverse depth; float32 metres, NaN without any."""
        total = self.counts.sum()
        value = total / self.sums.sum() if total else np.nan
        return np.full((height, width), value, np.float32)
