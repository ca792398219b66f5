"""Whether a confidence means what it says: reliability and its expected error (Guo 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dense_perception.core.errors import InputError

BINS = 15
"""Of equal width from 0 to 1, as Guo 2017 and those after him."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """Sums over pixels for each of :data:`BINS` bins, float64 (BINS,); they add up over frames.

    ``said`` is the sum of the confidences, ``right`` counts the pixels that were right, ``pixels``
    all. Bin i holds confidences above i / BINS up to (i + 1) / BINS; 0 is in the first.
    """

    said: np.ndarray
    right: np.ndarray
    pixels: np.ndarray


def calibration_error(said: np.ndarray, right: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """The expected calibration error of sums as in :class:`Reliability`, over the last axis: the
    mean over the pixels of abs(share right - mean confidence) of their bin, 0 to 1.

    NaN where there are no pixels.
    """
    total = pixels.sum(-1)
    gap = np.abs(right - said).sum(-1)
    return np.divide(gap, total, out=np.full(np.shape(total), np.nan), where=total > 0)


def reliability(confidence_hw: np.ndarray, right_hw: np.ndarray) -> Reliability:
    """How often answers of each confidence are right.

    What is right is the caller's: the true class, or depth within a factor of 1.25 of the true one
    (then the confidence of a depth is judged as that of a label is).

    :param confidence_hw: the pixels that count, any shape: uint8 in units of 1/255, or 0 to 1.
    :param right_hw: bool of the same shape.
    :raises InputError: if the shapes differ.
    """
    if confidence_hw.shape != right_hw.shape:
        raise InputError(
            f"the confidence has shape {confidence_hw.shape}, what is right {right_hw.shape}"
        )
    if confidence_hw.dtype == np.uint8:
        # 256 confidences and two outcomes: count them first.
        index = confidence_hw.ravel().astype(np.int64) + 256 * right_hw.ravel().astype(np.int64)
        counts = np.bincount(index, minlength=512).reshape(2, 256).astype(np.float64)
        values, pixels, right = np.arange(256) / 255, counts.sum(0), counts[1]
    else:
        values = confidence_hw.ravel().astype(np.float64)
        pixels, right = np.ones(len(values)), right_hw.ravel().astype(np.float64)
    place = np.clip(np.ceil(values * BINS).astype(np.int64) - 1, 0, BINS - 1)
    sums = [np.bincount(place, weight, BINS) for weight in (values * pixels, right, pixels)]
    return Reliability(*sums)
