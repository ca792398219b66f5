"""One camera's depth made metric by the chosen source, frame after frame."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dense_perception.core.camera import Frame, Intrinsics
from dense_perception.core.errors import InputError
from dense_perception.core.prediction import DepthKind, Prediction
from dense_perception.runtime.scale.alignment import (
    MIN_POINTS,
    Alignment,
    Fit,
    fit_alignment,
)
from dense_perception.runtime.scale.floor import fit_floor
from dense_perception.runtime.scale.known import SCALE_SOURCES, KnownDepths
from dense_perception.runtime.scale.tracker import CONVERGED_ERROR, ScaleTracker
from dense_perception.runtime.stabilise import CutDetector

_JITTER = 0.01


@dataclass(frozen=True)
class ScaleSettings:
    """Where the scale comes from; only the entries of that source are used.

    ``factor``: metres per unit of the model; of inverse depth, metres times the model's value, with
    its shift taken as 0. ``camera_height_m``: of the camera over the floor.
    ``camera_pitch_deg``: how far it looks down.

    :raises InputError: for a source that is none of :data:`SCALE_SOURCES`.
    """

    source: str = "none"
    factor: float = 1.0
    camera_height_m: float = 1.0
    camera_pitch_deg: float = 0.0

    def __post_init__(self) -> None:
        if self.source not in SCALE_SOURCES:
            raise InputError(f"scale source is {self.source!r}, expected one of {SCALE_SOURCES}")


class MetricScale:
    """Turns the predictions of one camera metric once their scale is known.

    Relative depth stays relative until then; metric depth, whose scale a source may correct, is
    withheld until then. ``status`` is a sentence about the last frame.
    """

    def __init__(self) -> None:
        self.status = ""
        self.is_unknown = False
        self._tracker = ScaleTracker()
        self._cuts = CutDetector()
        self._seen: Intrinsics | None = None

    def apply(
        self,
        frame: Frame,
        prediction: Prediction,
        settings: ScaleSettings,
        known: KnownDepths | None = None,
    ) -> Prediction:
        """``prediction`` with its depth in metres, where the scale is known.

        ``known``: depths measured at about the frame's time, ``None`` if none came; the sources
        ``depth``, ``points`` and ``scan`` need them.
        """
        depth = prediction.depth
        if depth is None or settings.source == "none":
            return prediction
        if settings.source == "factor":
            alignment: Alignment | None = self._fixed(depth.kind, settings)
        else:
            now_s = frame.stamp_ns / 1e9
            if self._cuts.is_cut(frame.rgb_hwc, frame.stamp_ns):
                self._tracker.forget()
            # A scale is that of one lens: an assumed field of view ends when camera_info arrives.
            if self._seen is None or not _alike(self._seen, prediction.intrinsics):
                self._tracker.forget()
                self._seen = prediction.intrinsics
            fit = _fit(prediction, settings, known)
            if fit is not None:
                self._tracker.update(fit, now_s)
            alignment = self._tracker.current(now_s)
            self.status = _status(settings.source, fit, alignment, known)
        self.is_unknown = alignment is None
        if alignment is not None:
            return replace(prediction, depth=alignment.applied(depth))
        return replace(prediction, depth=None) if depth.kind is DepthKind.METRIC else prediction

    def _fixed(self, kind: DepthKind, settings: ScaleSettings) -> Alignment:
        # Inverse depth is per metre: twice the metres is half of it.
        inverse = kind is DepthKind.RELATIVE_INVERSE
        scale = 1 / settings.factor if inverse else settings.factor
        self.status = f"depth is scaled by {settings.factor:g}"
        if inverse:
            self.status = (
                f"depth is {settings.factor:g} over the model's value, the shift taken as 0: a "
                "measured scale_source finds the shift too"
            )
        return Alignment(kind, scale)


def _alike(before: Intrinsics, now: Intrinsics) -> bool:
    """Whether rays differ by less than what a calibration or an autofocus jitters."""
    if (before.width, before.height, before.lens) != (now.width, now.height, now.lens):
        return False
    focal = max(abs(now.fx / before.fx - 1), abs(now.fy / before.fy - 1))
    centre = max(abs(now.cx - before.cx) / now.width, abs(now.cy - before.cy) / now.height)
    return focal < _JITTER and centre < _JITTER


def _fit(prediction: Prediction, settings: ScaleSettings, known: KnownDepths | None) -> Fit | None:
    depth = prediction.depth
    assert depth is not None
    if settings.source == "camera_height":
        return fit_floor(
            depth,
            prediction.intrinsics,
            settings.camera_height_m,
            settings.camera_pitch_deg,
            prediction.labels,
        )
    if known is None:
        return None
    return fit_alignment(depth, known.values(depth), known.metres)


def _status(
    source: str, fit: Fit | None, alignment: Alignment | None, known: KnownDepths | None
) -> str:
    if alignment is not None:
        shift = f" and shift {alignment.shift:.4g}" if alignment.shift else ""
        return f"depth is metric by scale {alignment.scale:.4g}{shift} from {source}"
    if source == "camera_height" and fit is not None:
        return (
            f"no scale yet: the floor gives it within {fit.error:.0%}, expected "
            f"{CONVERGED_ERROR:.0%}: show more floor, or measure depth (scale_source), as for a "
            "relative_inverse model half a degree of camera_pitch_deg is much in a scene many "
            "camera heights deep"
        )
    if source == "camera_height":
        return "no scale yet: no floor is seen well enough (camera_height_m, camera_pitch_deg)"
    if known is None:
        return f"no scale yet: no {source} at the images' time"
    count = len(known.metres)
    if fit is None or count < MIN_POINTS:
        return f"no scale yet: {count} points of {source} in the image, expected {MIN_POINTS}"
    return (
        f"no scale yet: {fit.inliers} of {fit.points} points of {source} agree, within "
        f"{fit.error:.0%}; expected half of them, within {CONVERGED_ERROR:.0%}"
    )
