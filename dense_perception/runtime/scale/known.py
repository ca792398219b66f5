"""What the scale of depth may come from, and depths that are known at some pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.core.prediction import DepthMap
from dense_perception.imaging.lenses import project

SCALE_SOURCES = ("none", "factor", "camera_height", "depth", "points", "scan")
MEASURED_SOURCES = ("depth", "points", "scan")
"""Sources that bring known depths with them."""

_MOST_POINTS = 1000
_NEAREST_M = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class KnownDepths:
    """``metres`` (N,) along the optical axis at N places of the image.

    ``across`` and ``down`` (N,) are fractions of its width and height in 0..1, so that they hold
    for a depth map of any size.
    """

    across: np.ndarray
    down: np.ndarray
    metres: np.ndarray

    @classmethod
    def from_depth_image(cls, depth_m: np.ndarray) -> KnownDepths:
        """HxW metres of the same camera, its pixels aligned to the image; NaN or 0 is unknown."""
        rows, columns = np.nonzero(np.isfinite(depth_m) & (depth_m > _NEAREST_M))
        chosen = _some(len(rows))
        rows, columns = rows[chosen], columns[chosen]
        height, width = depth_m.shape
        metres = depth_m[rows, columns].astype(np.float64)
        return cls((columns + 0.5) / width, (rows + 0.5) / height, metres)

    @classmethod
    def from_points(cls, xyz_n3: np.ndarray, intrinsics: Intrinsics) -> KnownDepths:
        """(N, 3) metres in the camera's optical frame (REP 103); what it cannot see is left out."""
        xyz = np.asarray(xyz_n3, np.float64)
        xyz = xyz[np.isfinite(xyz).all(axis=1)]
        xyz = xyz[xyz[:, 2] > _NEAREST_M]
        z = xyz[:, 2]
        columns, rows = project(xyz, intrinsics)
        across = (columns + 0.5) / intrinsics.width
        down = (rows + 0.5) / intrinsics.height
        seen = np.flatnonzero((across >= 0) & (across < 1) & (down >= 0) & (down < 1))
        seen = seen[_some(len(seen))]
        return cls(across[seen], down[seen], z[seen])

    def values(self, depth: DepthMap) -> np.ndarray:
        """What ``depth`` says at these places: the nearest pixel's value, (N,)."""
        height, width = depth.values_hw.shape
        columns = np.minimum((self.across * width).astype(int), width - 1)
        rows = np.minimum((self.down * height).astype(int), height - 1)
        return depth.values_hw[rows, columns]


def _some(count: int) -> np.ndarray:
    """Indices of at most a thousand points, evenly drawn and the same every time."""
    if count <= _MOST_POINTS:
        return np.arange(count)
    return np.random.default_rng(0).permutation(count)[:_MOST_POINTS]
