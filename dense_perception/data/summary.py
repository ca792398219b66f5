"""What is in a corpus: how deep, how complete, and which classes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from dense_perception.core.errors import TrainingError
from dense_perception.data.corpus import Corpus

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
EDGES_M = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 40.0)
"""Bounds of the histogram's bins; the last bin has no upper bound."""
# The largest finite float16: the bit patterns of positive ones grow with their values.
_LARGEST_CODE = 0x7BFF


@dataclass(frozen=True)
class CorpusSummary:
    """Shares are of all pixels, from 0 to 1.

    ``source`` is everything else that corpus.json says. ``depth_m`` maps quantiles, as texts, to
    metres; it is empty where no pixel has depth. ``histogram`` has a share for each bin that
    :data:`EDGES_M` begins. ``classes`` maps names to shares, the largest first; it is empty
    without labels.
    """

    name: str
    frames: int
    width: int
    height: int
    source: dict[str, Any]
    without_depth: float
    depth_m: dict[str, float]
    histogram: list[float]
    classes: dict[str, float]


def summarise(corpus: Corpus) -> CorpusSummary:
    """Count every pixel of a corpus, with a progress bar on stderr.

    :raises TrainingError: if a label is above the classes that the description names.
    """
    # Depth is float16, so that a count for each of its bit patterns gives exact quantiles.
    counts = np.zeros(1 << 16, np.int64)
    labels = np.zeros(1 << 8, np.int64)
    has_labels = False
    for index in tqdm(range(len(corpus)), unit="frame", disable=None, file=sys.stderr):
        sample = corpus[index]
        codes = np.asarray(sample.depth_m, np.float16).view(np.uint16)
        counts += np.bincount(codes.ravel(), minlength=len(counts))
        if sample.labels_hw is not None:
            has_labels = True
            labels += np.bincount(sample.labels_hw.ravel(), minlength=len(labels))
    pixels = int(counts.sum())
    metres = np.arange(1, _LARGEST_CODE + 1, dtype=np.uint16).view(np.float16).astype(np.float64)
    known = counts[1 : _LARGEST_CODE + 1]
    bins, _ = np.histogram(metres, [*EDGES_M, np.inf], weights=known)
    taken = {"schema", "name", "frames", "width", "height", "classes"}
    return CorpusSummary(
        name=corpus.name,
        frames=len(corpus),
        width=corpus.width,
        height=corpus.height,
        source={key: v for key, v in corpus.description.items() if key not in taken},
        without_depth=1 - int(known.sum()) / pixels,
        depth_m=_quantiles(metres, known),
        histogram=[float(count) / pixels for count in bins],
        classes=_classes(corpus, labels) if has_labels else {},
    )


def _quantiles(metres: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    total = int(counts.sum())
    if not total:
        return {}
    reached = np.cumsum(counts)
    places = np.searchsorted(reached, [quantile * total for quantile in QUANTILES])
    return {f"{q:g}": float(metres[place]) for q, place in zip(QUANTILES, places, strict=True)}


def _classes(corpus: Corpus, counts: np.ndarray) -> dict[str, float]:
    names = corpus.description.get("classes") or []
    used = np.flatnonzero(counts)
    if names and used[-1] >= len(names):
        raise TrainingError(
            f"{corpus.root} has label {used[-1]}, corpus.json names {len(names)} classes: its "
            "classes and its label images do not belong together"
        )
    shares = {
        (str(names[label]) if names else f"class {label}" if label else "none"): float(
            counts[label] / counts.sum()
        )
        for label in used
    }
    return dict(sorted(shares.items(), key=lambda item: -item[1]))
