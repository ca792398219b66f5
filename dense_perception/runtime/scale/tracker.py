"""Follows the alignment over time: smooth while it drifts, at once where the scene changes."""

from __future__ import annotations

import math

import numpy as np

from dense_perception.core.prediction import DepthKind
from dense_perception.runtime.scale.alignment import Alignment, Fit

CONVERGED_ERROR = 0.05
"""An alignment whose relative standard error is above this is not used."""

_HOLD_S = 2.0
# How fast the relation between a model's numbers and metres wanders, relative, per second.
_DRIFT_PER_SQRT_S = 0.05
# Errors of the points that they share, and that more of them do not average away.
_SHARED_ERROR = 0.01
_CUT_SIGMAS = 4.0


class ScaleTracker:
    """A one-number Kalman filter around :class:`Fit`: its gain, its doubt, its test for surprise.

    A fit that agrees with what is known is averaged in; one that disagrees by more than both
    errors allow replaces it at once, as a cut or a model that saw something new must not be
    smoothed over. Unsound fits are ignored. Times are seconds on the images' clock.
    """

    def __init__(self, hold_s: float = _HOLD_S) -> None:
        self._hold_s = hold_s
        self._alignment: Alignment | None = None
        self._variance = math.inf
        self._seen_s = -math.inf

    def update(self, fit: Fit, now_s: float) -> None:
        """Take the fit of the frame at ``now_s`` into account."""
        if not fit.is_sound or not math.isfinite(fit.error) or fit.error > 4 * CONVERGED_ERROR:
            return
        variance = fit.error**2 + _SHARED_ERROR**2
        before = self._alignment
        waited_s = now_s - self._seen_s
        if before is None or not 0 <= waited_s <= self._hold_s:
            self._replace(fit, variance, now_s)
            return
        known = self._variance + _DRIFT_PER_SQRT_S**2 * waited_s
        if _disagreement(fit, before) > _CUT_SIGMAS * math.sqrt(known + variance):
            self._replace(fit, variance, now_s)
            return
        gain = known / (known + variance)
        self._alignment = _between(before, fit.alignment, gain)
        # Never surer than the errors that all points share.
        self._variance = max((1 - gain) * known, _SHARED_ERROR**2)
        self._seen_s = now_s

    def current(self, now_s: float) -> Alignment | None:
        """What to use for the frame at ``now_s``; ``None`` before convergence and after silence."""
        if self._alignment is None or not 0 <= now_s - self._seen_s <= self._hold_s:
            return None
        return self._alignment if math.sqrt(self._variance) <= CONVERGED_ERROR else None

    def forget(self) -> None:
        """Start again: what was known does not hold for what comes."""
        self._alignment, self._variance, self._seen_s = None, math.inf, -math.inf

    def _replace(self, fit: Fit, variance: float, now_s: float) -> None:
        self._alignment, self._variance, self._seen_s = fit.alignment, variance, now_s


def _disagreement(fit: Fit, before: Alignment) -> float:
    """The larger relative difference of the depths that both give, near and far in the frame."""
    differences = [0.0]
    for value in (fit.near, fit.far):
        new, old = (float(each.metres(np.array(value))) for each in (fit.alignment, before))
        if math.isnan(new) != math.isnan(old):
            return math.inf
        if not math.isnan(new):
            differences.append(abs(math.log(new / old)))
    return max(differences)


def _between(old: Alignment, new: Alignment, gain: float) -> Alignment:
    if new.kind is DepthKind.RELATIVE_INVERSE:
        scale = old.scale + gain * (new.scale - old.scale)
        return Alignment(new.kind, scale, old.shift + gain * (new.shift - old.shift))
    return Alignment(
        new.kind, math.exp(math.log(old.scale) * (1 - gain) + math.log(new.scale) * gain)
    )
