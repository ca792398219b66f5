"""Depth as the colour camera sees it: from a depth camera, from points, and without the lens.

Depth maps are (H, W) float32 metres along z, 0 where there is none.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.imaging.lenses import bent, pixel_rays
from dense_perception.imaging.transforms import Transform

_NEAREST_M = 0.05
_FILLED = 1.4
# Depths of one surface beside each other; beyond that a pixel lies on another surface.
_SAME_SURFACE = 1.05
_WIDEST_ZOOM = 3.0
# Between the beams of a LiDAR, what lies behind shines through: columns and rows looked around.
_BEAM_GAP = (9, 17)
_HIDDEN = 1.15


class Undistortion:
    """Maps that take the lens out of an image.

    ``camera`` is the pinhole of the result: that of the image, zoomed in just so far that no
    pixel lies outside of it.
    """

    def __init__(self, source: Intrinsics) -> None:
        assert source.lens is not None
        self.camera = replace(source, lens=None)
        zoom = 1.0
        while zoom < _WIDEST_ZOOM and not _is_inside(source, self.camera):
            zoom += 0.01
            self.camera = replace(self.camera, fx=source.fx * zoom, fy=source.fy * zoom)
        columns, rows = np.arange(source.width)[None, :], np.arange(source.height)[:, None]
        u, v = _source_pixels(source, self.camera, *np.broadcast_arrays(columns, rows))
        u, v = (np.nan_to_num(each, nan=-1e4).astype(np.float32) for each in (u, v))
        self._linear = cv2.convertMaps(u, v, cv2.CV_16SC2)
        self._nearest = (u, v)

    def image(self, rgb_hwc: np.ndarray) -> np.ndarray:
        """Colours between pixels are mixed; what the lens does not show is black."""
        first, second = self._linear
        return cv2.remap(rgb_hwc, first, second, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)

    def map(self, values_hw: np.ndarray) -> np.ndarray:
        """Depth or labels: the nearest pixel's, 0 where the lens does not show it."""
        u, v = self._nearest
        return cv2.remap(values_hw, u, v, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)


class Registration:
    """A depth camera's images as a colour camera sees them.

    :param motion: takes points of the depth camera's frame to the colour camera's.
    :param colour: a pinhole; see :class:`Undistortion`.
    """

    def __init__(self, depth: Intrinsics, colour: Intrinsics, motion: Transform) -> None:
        self.colour = colour
        # Where colour pixels are much finer than depth pixels, each of these stands for several;
        # where a little, single pixels stay empty and are filled from those around them.
        self._finer = max(1, int(np.ceil(colour.fx / depth.fx / _FILLED)))
        size = (depth.width * self._finer, depth.height * self._finer)
        x, y = np.broadcast_arrays(*pixel_rays(depth.resized(*size)))
        turn = motion.rotation.astype(np.float32)
        rays = np.stack([x, y, np.ones_like(x)]).reshape(3, -1)
        self._rays = turn @ rays  # NaN where the lens lets nothing in
        self._shift = motion.translation.astype(np.float32)

    def __call__(self, depth_m: np.ndarray) -> np.ndarray:
        """Registers (H, W) of the depth camera; NaN, infinity and 0 are none."""
        depth_m = np.asarray(depth_m, np.float32)
        if self._finer > 1:
            depth_m = _finer(depth_m, self._finer)
        with np.errstate(invalid="ignore"):
            xyz = self._rays * np.where(depth_m > _NEAREST_M, depth_m, np.nan).reshape(-1)
            xyz += self._shift[:, None]
        return _without_gaps(_splat(xyz[0], xyz[1], xyz[2], self.colour))


def project_points(xyz_n3: np.ndarray, colour: Intrinsics) -> np.ndarray:
    """Points of a LiDAR or a scan, in the colour camera's frame, as sparse depth.

    A point that lies well behind others around it is hidden from the camera and left out.
    """
    x, y, z = np.asarray(xyz_n3, np.float32).T
    sparse = _splat(x, y, z, colour)
    nearest = np.where(sparse > 0, sparse, np.inf).astype(np.float32)
    kernel = np.ones((_BEAM_GAP[1], _BEAM_GAP[0]), np.uint8)
    around = cv2.erode(nearest, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=np.inf)
    sparse[sparse > _HIDDEN * around] = 0
    return sparse


def _splat(x: np.ndarray, y: np.ndarray, z: np.ndarray, camera: Intrinsics) -> np.ndarray:
    """The nearest point of each pixel."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        inverse = 1 / z
        u, v = x * inverse, y * inverse
        u *= np.float32(camera.fx)
        v *= np.float32(camera.fy)
        u += np.float32(camera.cx + 0.5)
        v += np.float32(camera.cy + 0.5)
        inside = (z > _NEAREST_M) & (u >= 0) & (u < camera.width) & (v >= 0) & (v < camera.height)
        inside &= z < np.inf
        # Of what is outside, the place means nothing and is dropped.
        place = v.astype(np.int32)
        place *= np.int32(camera.width)
        place += u.astype(np.int32)
    z, place = z[inside], place[inside]
    nearest = np.full(camera.height * camera.width, np.inf, np.float32)
    nearest[place] = z
    # Of several points on one pixel any may have stayed; the nearer ones go again, few each time.
    left = np.flatnonzero(z < nearest[place])
    while len(left):
        place, z = place[left], z[left]
        nearest[place] = z
        left = np.flatnonzero(z < nearest[place])
    nearest[np.isinf(nearest)] = 0
    return nearest.reshape(camera.height, camera.width)


def _without_gaps(depth_m: np.ndarray) -> np.ndarray:
    """One or two pixels of a surface that no depth pixel fell on, or only one from behind, filled.

    In inverse depth, where nearer is more and nothing is 0, both are dark gaps, which a closing
    fills. It leaves the surfaces' outlines where they are.
    """
    with np.errstate(divide="ignore"):
        inverse = 1 / depth_m
    inverse[depth_m == 0] = 0
    closed = cv2.morphologyEx(inverse, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    gaps = inverse * np.float32(_SAME_SURFACE) < closed
    depth_m[gaps] = 1 / closed[gaps]
    return depth_m


def _finer(depth_m: np.ndarray, times: int) -> np.ndarray:
    """Inverse depth, which is linear on planes, between pixels of one surface; else the nearest."""
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(depth_m > 0, 1 / depth_m, 0).astype(np.float32)
    size = (depth_m.shape[1] * times, depth_m.shape[0] * times)
    smooth = cv2.resize(inverse, size, interpolation=cv2.INTER_LINEAR)
    nearest = cv2.resize(inverse, size, interpolation=cv2.INTER_NEAREST)
    alike = np.abs(smooth - nearest) < (_SAME_SURFACE - 1) * nearest
    finer = np.where(alike, smooth, nearest)
    with np.errstate(divide="ignore"):
        return np.where(finer > 0, 1 / finer, 0).astype(np.float32)


def _source_pixels(
    source: Intrinsics, target: Intrinsics, columns: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows in the image with the lens, for pixels of the one without."""
    assert source.lens is not None
    x = (columns - target.cx) / target.fx
    y = (rows - target.cy) / target.fy
    x, y = bent(source.lens, x, y)
    return source.fx * x + source.cx, source.fy * y + source.cy


def _is_inside(source: Intrinsics, target: Intrinsics) -> bool:
    """Whether the border of the image without the lens lies inside the image with it."""
    across, down = np.arange(target.width), np.arange(target.height)
    columns = np.concatenate([across, across, 0 * down, 0 * down + target.width - 1])
    rows = np.concatenate([0 * across, 0 * across + target.height - 1, down, down])
    u, v = _source_pixels(source, target, columns, rows)
    inside = (u >= -0.5) & (u <= source.width - 0.5) & (v >= -0.5) & (v <= source.height - 0.5)
    return bool(inside.all())
