"""Scale from the camera's height: a robust plane through the floor that the model sees.

A plane at the distance h from the camera, whose normal n points down to it, has ``n . P = h``; with
``P = Z r``, r the pixel's ray of unit depth, this is ``1/Z = (n . r) / h``: inverse depth is affine
in the pixel, whatever the scale. So the plane is found in the image without knowing it.
"""

from __future__ import annotations

import math

import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.core.prediction import DepthKind, DepthMap, LabelMap
from dense_perception.imaging.lenses import pixel_rays
from dense_perception.runtime.scale.alignment import Alignment, Fit, typical_values

FLOOR_NAMES = frozenset(
    {
        *("floor", "flooring", "rug", "carpet", "road", "route", "sidewalk", "pavement", "ground"),
        *("earth", "path", "grass", "parking", "terrain", "dirt track", "dirt"),
    }
)
"""Labels that lie on the plane the robot stands on, in the label sets of the cards."""

_SAMPLE = 3000
_TRIES = 400
_TOLERANCE = 0.02
# Of the image; without labels a smaller one may as well be a table or a shelf.
_LEAST_SHARE, _LEAST_SHARE_LABELLED = 0.15, 0.04
_LEAST_SPREAD = 0.12  # of the image's height, else the plane's slope is a guess
_MOST_TILT = math.radians(10.0)  # between the floor and what the mounting says
_TILT_SIGMA = math.radians(2.0)  # how exactly mountings are known, and robots stay level
_PITCH_SIGMA = math.radians(0.5)  # where it has to be known
# What a floor spans of the frame's inverse depths if it went on over the whole picture, at least.
_LEAST_RISE = 0.25
_ALIKE = 50  # neighbouring pixels share their errors: so many count as one


def fit_floor(
    depth: DepthMap,
    intrinsics: Intrinsics,
    height_m: float,
    pitch_deg: float = 0.0,
    labels: LabelMap | None = None,
    seed: int = 0,
) -> Fit | None:
    """The alignment that puts the floor ``height_m`` below the camera; ``None`` if none is seen.

    Where ``labels`` name a floor (:data:`FLOOR_NAMES`) only its pixels are used; else the floor is
    the largest level plane with nothing below it. ``pitch_deg`` is how far the camera looks down.
    Planes tilted by more than ten degrees against that are no floors. For ``relative_inverse`` it
    has to be exact, as there the unknown shift looks like a tilt: an error of e moves 1/Z by
    ``tan(e) / height_m`` everywhere, so the error at the frame's median depth for half a degree is
    part of the fit's.
    """
    reach = typical_values(depth)
    rays, rows, inverse = _sample(depth, intrinsics, labels, seed)
    if reach is None or len(inverse) < 100:
        return None
    is_relative_inverse = depth.kind is DepthKind.RELATIVE_INVERSE
    # A shift makes relative residuals meaningless; then they are taken against the spread.
    if is_relative_inverse:
        spread = float(np.subtract(*np.percentile(inverse, (95, 5))))
        allowed = np.full_like(inverse, _TOLERANCE * spread)
    else:
        allowed = _TOLERANCE * inverse
    pitch = math.radians(pitch_deg)
    search = _Search(rays, inverse, allowed, pitch, any_shift=is_relative_inverse)
    found = search.floor(np.random.default_rng(seed))
    if found is None:
        return None
    plane, inside = found
    share = inside.sum() / _SAMPLE
    covered = np.subtract(*np.percentile(rows[inside], (95, 5))) / depth.values_hw.shape[0]
    least = _LEAST_SHARE if labels is None else _LEAST_SHARE_LABELLED
    if share < least or covered < _LEAST_SPREAD:
        return None
    error = search.error(plane, inside)
    alignment = _alignment(depth.kind, plane, height_m, pitch)
    if is_relative_inverse:
        seen_m = alignment.metres(depth.values_hw[::4, ::4])
        if not np.isfinite(seen_m).any():
            return None
        error = math.hypot(error, math.tan(_PITCH_SIGMA) * float(np.nanmedian(seen_m)) / height_m)
    # The pixels of one frame are no independent witnesses, so their number is left out.
    return Fit(alignment, error, *reach, int(inside.sum()), int(inside.sum()))


def _sample(
    depth: DepthMap, intrinsics: Intrinsics, labels: LabelMap | None, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rays (N, 3), image rows (N,) and inverse depths (N,) of pixels drawn at random."""
    values_hw = depth.values_hw
    usable = np.isfinite(values_hw)
    if depth.kind is not DepthKind.RELATIVE_INVERSE:
        usable &= values_hw > 0
    if labels is not None:
        floor = [i for i, name in enumerate(labels.labels.labels) if is_floor(name)]
        usable &= np.isin(labels.values_hw, floor)
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, values_hw.size, _SAMPLE)
    pixels = pixels[usable.reshape(-1)[pixels]]
    rows, columns = np.divmod(pixels, values_hw.shape[1])
    x_rays, y_rays = np.broadcast_arrays(*pixel_rays(intrinsics))
    x, y = x_rays[rows, columns].astype(np.float64), y_rays[rows, columns].astype(np.float64)
    seen = np.isfinite(x)
    rows, columns, x, y = rows[seen], columns[seen], x[seen], y[seen]
    rays = np.stack([x, y, np.ones_like(x)], axis=1)
    values = values_hw[rows, columns].astype(np.float64)
    return rays, rows, values if depth.kind is DepthKind.RELATIVE_INVERSE else 1 / values


def is_floor(name: str) -> bool:
    """Whether a label's name is a floor's; names may list synonyms after commas or semicolons."""
    words = name.lower().replace(";", ",").split(",")
    return any(word.strip() in FLOOR_NAMES for word in words)


class _Search:
    """Planes (3,) with ``rays @ plane = inverse``; ``any_shift``: the last number may be off."""

    def __init__(
        self,
        rays: np.ndarray,
        inverse: np.ndarray,
        allowed: np.ndarray,
        pitch: float,
        *,
        any_shift: bool,
    ) -> None:
        self._rays, self._inverse, self._allowed = rays, inverse, allowed
        self._any_shift = any_shift
        self._down = np.array([0.0, 1.0, 0.0])
        # What a level floor has none of: slope across the image, and along the line of sight.
        self._across = np.array([[1.0, 0.0, 0.0]])
        self._least_slope = 0.0
        if any_shift:  # then a wall straight ahead is a floor without slope
            spread = float(np.subtract(*np.percentile(inverse, (95, 5))))
            self._least_slope = _LEAST_RISE * spread / max(float(np.ptp(rays[:, 1])), 1e-6)
        else:
            self._down = np.array([0.0, math.cos(pitch), math.sin(pitch)])
            self._across = np.array([[1.0, 0, 0], [0, -math.sin(pitch), math.cos(pitch)]])

    def floor(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray] | None:
        """The floor and which pixels lie on it.

        Of the level planes, the one with the most pixels on it, less those below it: nothing is
        below a floor, while a table has the floor below.
        """
        triples = rng.integers(0, len(self._inverse), (_TRIES, 3))
        corners, heights = self._rays[triples], self._inverse[triples]
        solid = np.abs(np.linalg.det(corners)) > 1e-4
        planes = np.linalg.solve(corners[solid], heights[solid][..., None])[..., 0]
        planes = planes[self._level(planes)]
        if len(planes) == 0:
            return None
        residuals = (self._inverse - planes @ self._rays.T) / self._allowed
        score = (np.abs(residuals) < 1).sum(axis=1) - (residuals < -2).sum(axis=1)
        plane = planes[int(score.argmax())]
        for _ in range(5):
            inside = self._on(plane)
            if inside.sum() < _ALIKE:
                return None
            rows, targets = self._equations(plane, inside)
            plane = np.linalg.lstsq(rows, targets, rcond=None)[0]
        return (plane, self._on(plane)) if self._level(plane[None])[0] else None

    def error(self, plane: np.ndarray, inside: np.ndarray) -> float:
        """Relative standard error of what becomes the scale: the plane's length, or its slope."""
        rows, _ = self._equations(plane, inside)
        direction = self._down * (self._down @ plane) if self._any_shift else plane
        covariance = np.linalg.inv(rows.T @ rows)
        return math.sqrt(float(direction @ covariance @ direction)) / float(direction @ direction)

    def _on(self, plane: np.ndarray) -> np.ndarray:
        return np.abs(self._inverse - self._rays @ plane) < self._allowed

    def _level(self, planes: np.ndarray) -> np.ndarray:
        across = np.linalg.norm(planes @ self._across.T, axis=1)
        slope = planes @ self._down
        level: np.ndarray = (across < math.tan(_MOST_TILT) * slope) & (slope > self._least_slope)
        return level

    def _equations(self, plane: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Least squares, each row in standard deviations: the pixels, then the mounting."""
        weights = 1 / (self._allowed[inside] * math.sqrt(_ALIKE))
        tilt = self._across / (math.tan(_TILT_SIGMA) * float(self._down @ plane))
        rows = np.vstack([self._rays[inside] * weights[:, None], tilt])
        targets = np.concatenate([self._inverse[inside] * weights, np.zeros(len(tilt))])
        return rows, targets


def _alignment(kind: DepthKind, plane: np.ndarray, height_m: float, pitch: float) -> Alignment:
    if kind is not DepthKind.RELATIVE_INVERSE:
        return Alignment(kind, height_m * float(np.linalg.norm(plane)))
    # plane = a n / h + (0, 0, b) with n = (sin roll cos pitch, cos roll cos pitch, sin pitch).
    per_metre = height_m * float(np.hypot(plane[0], plane[1])) / math.cos(pitch)
    hidden = float(plane[2]) - per_metre / height_m * math.sin(pitch)
    return Alignment(kind, 1 / per_metre, -hidden / per_metre)
