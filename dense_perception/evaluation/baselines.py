"""What must be beaten: answers that know the data on average and nothing of the picture."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from dense_perception.core.labels import VOID
from dense_perception.evaluation.truth import TruthFrame
from dense_perception.metrics.protocols import Protocol

ROW_PRIOR, CONSTANT = "row prior", "constant"
_ROWS = 64
_FRAMES_A_SOURCE = 32


@dataclass(frozen=True)
class Prior:
    """What is known of the data on average, from frames spread over it.

    ``rows``: mean inverse depth, 1/m, of that many equal bands of rows from the top, NaN where no
    depth was seen. ``median_m``: median over the frames of their median depth, NaN without any.
    ``label``: the class of most pixels, VOID without any.
    """

    rows: tuple[float, ...] = ()
    median_m: float = float("nan")
    label: int = VOID


class PriorFit:
    """Takes frames one after the other and keeps sums of them: many sources fit in memory."""

    def __init__(self) -> None:
        self._total, self._count = np.zeros(_ROWS), np.zeros(_ROWS)
        self._medians: list[float] = []
        self._labels: Counter[int] = Counter()

    def add(self, truth: TruthFrame, protocol: Protocol) -> None:
        """Of its depth what ``protocol`` counts, as what is judged."""
        if truth.depth_m is not None:
            depth_m = protocol.truth(truth.depth_m)
            known = np.isfinite(depth_m)
            inverse = np.where(known, 1 / np.where(known, depth_m, 1), 0).astype(np.float64)
            band = np.arange(len(known)) * _ROWS // len(known)
            self._total += np.bincount(band, inverse.sum(1), _ROWS)
            self._count += np.bincount(band, known.sum(1), _ROWS)
            if known.any():
                self._medians.append(float(np.median(depth_m[known])))
        if truth.labels_hw is not None:
            used = truth.labels_hw[truth.labels_hw != VOID]
            self._labels.update(dict(enumerate(np.bincount(used).tolist())))

    def prior(self) -> Prior:
        """What the frames have in common."""
        empty = np.full(_ROWS, np.nan)
        rows = np.divide(self._total, self._count, out=empty, where=self._count > 0)
        labels = self._labels
        return Prior(
            tuple(float(row) for row in rows),
            float(np.median(self._medians)) if self._medians else float("nan"),
            max(labels, key=lambda label: (labels[label], -label)) if labels else VOID,
        )


def row_prior(prior: Prior, height: int, width: int) -> np.ndarray:
    """(height, width) float32 metres: the mean inverse depth of each row, between the bands'
    middles on a line; NaN where no depth was ever seen."""
    rows = np.asarray(prior.rows, np.float64)
    middles = (np.arange(len(rows)) + 0.5) / len(rows)
    seen = np.isfinite(rows)
    if not seen.any():
        return np.full((height, width), np.nan, np.float32)
    wanted = (np.arange(height) + 0.5) / height
    inverse = np.interp(wanted, middles[seen], rows[seen])
    return np.repeat((1 / inverse).astype(np.float32)[:, None], width, axis=1)


def most_of_a_source(parts: int) -> tuple[int, int]:
    """Of how many parts, and how many frames of each, a prior is made."""
    taken = min(parts, _FRAMES_A_SOURCE)
    return taken, -(-_FRAMES_A_SOURCE // max(1, taken))
