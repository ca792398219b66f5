"""Depth as the colour camera sees it: from a depth camera, from points, and without the lens.

Depth maps are (H, W) float32 metres along z, 0 where there is none.
"""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.imaging.lenses import bent, pixel_rays
from dense_perception.imaging.transforms import Transform

_NEAREST_M = 0.05
_FARTHEST_M = 1e6
# So many points at once stay in the processor's cache from one step to the next.
_BLOCK = 1 << 14
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


def shrunk_depth(depth_m: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Depth at a smaller ``size`` (width, height): the nearest pixel's, else of those it covers.

    A pixel of the result has the depth of the known pixel that is nearest to its centre among
    those that it covers, so that hairline gaps do not become wide ones. A map that is enlarged
    along either side has the nearest pixel's.
    """
    height, width = depth_m.shape
    small = cv2.resize(depth_m, size, interpolation=cv2.INTER_NEAREST)
    pitch_x, pitch_y = width / size[0], height / size[1]
    if pitch_x < 1 or pitch_y < 1:
        return small
    # What covers nothing known, as the inside of a wide hole, is not looked at again.
    share = cv2.resize((depth_m > 0).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    rows, columns = np.nonzero(~(small > 0) & (share > 0))
    centre_y, centre_x = (rows + 0.5) * pitch_y - 0.5, (columns + 0.5) * pitch_x - 0.5
    first_y, first_x = (np.ceil(c - p / 2) for c, p in ((centre_y, pitch_y), (centre_x, pitch_x)))
    closest = np.full(rows.size, np.inf)
    for down in range(math.floor(pitch_y) + 1):
        for right in range(math.floor(pitch_x) + 1):
            y, x = (first_y + down).astype(int), (first_x + right).astype(int)
            off_y, off_x = np.abs(y - centre_y), np.abs(x - centre_x)
            covered = (off_y <= pitch_y / 2) & (off_x <= pitch_x / 2) & (y < height) & (x < width)
            values_m = depth_m[np.minimum(y, height - 1), np.minimum(x, width - 1)]
            distance = off_y**2 + off_x**2
            taken = covered & (values_m > 0) & (distance < closest)
            closest[taken] = distance[taken]
            small[rows[taken], columns[taken]] = values_m[taken]
    return small


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
        rays = np.stack([x, y, np.ones_like(x)]).reshape(3, -1).astype(np.float64)
        # Depth times the first, plus the second, is column and row times z, and z: the camera's
        # matrix is in them already. NaN where the lens lets nothing in.
        matrix = _pixel_matrix(colour)
        self._per_metre = (matrix @ motion.rotation @ rays).astype(np.float32)
        self._offset = (matrix @ motion.translation).astype(np.float32)

    def __call__(self, depth_m: np.ndarray) -> np.ndarray:
        """Registers (H, W) of the depth camera; NaN, infinity and 0 are none."""
        depth_m = np.asarray(depth_m, np.float32)
        if self._finer > 1:
            depth_m = _finer(depth_m, self._finer)
        flat, nearest = depth_m.reshape(-1), _Nearest(self.colour)
        for start in range(0, len(flat), _BLOCK):
            block = slice(start, start + _BLOCK)
            metres = flat[block]
            with np.errstate(invalid="ignore"):
                u, v, z = (
                    metres * per_metre[block] + offset
                    for per_metre, offset in zip(self._per_metre, self._offset, strict=True)
                )
            nearest.add(u, v, z, metres > _NEAREST_M)
        return _without_gaps(nearest.depth_hw)


def project_points(xyz_n3: np.ndarray, colour: Intrinsics) -> np.ndarray:
    """Points of a LiDAR or a scan, in the colour camera's frame, as sparse depth.

    A point that lies well behind others around it is hidden from the camera and left out.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        u, v, z = (_pixel_matrix(colour) @ np.asarray(xyz_n3, np.float64).T).astype(np.float32)
    points = _Nearest(colour)
    points.add(u, v, z, z > _NEAREST_M)
    sparse = _known(points.depth_hw)
    nearest = np.where(sparse > 0, sparse, np.inf).astype(np.float32)
    kernel = np.ones((_BEAM_GAP[1], _BEAM_GAP[0]), np.uint8)
    around = cv2.erode(nearest, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=np.inf)
    sparse[sparse > _HIDDEN * around] = 0
    return sparse


def _pixel_matrix(camera: Intrinsics) -> np.ndarray:
    """Takes points to column and row times z, and z; whole columns and rows start at pixels' edges.

    (3, 3) float64.
    """
    matrix = camera.matrix()
    matrix[:2, 2] += 0.5
    return matrix


class _Nearest:
    """The nearest of all points on each pixel of a camera.

    ``depth_hw`` is (H, W) float32 metres, infinity where there is none.
    """

    def __init__(self, camera: Intrinsics) -> None:
        self.depth_hw = np.full((camera.height, camera.width), np.inf, np.float32)

    def add(self, uz: np.ndarray, vz: np.ndarray, z: np.ndarray, known: np.ndarray) -> None:
        """Points by column and row times z, and z, (N,) float32, where they are ``known``."""
        height, width = self.depth_hw.shape
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            u, v = uz / z, vz / z
            inside = (z > _NEAREST_M) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
            inside &= known
            inside &= z < np.inf
            # Of what is outside, the place means nothing and is dropped.
            place = v.astype(np.intp)
            place *= width
            place += u.astype(np.intp)
        np.minimum.at(self.depth_hw.reshape(-1), place[inside], z[inside])


def _known(depth_hw: np.ndarray) -> np.ndarray:
    """0 instead of infinity for none."""
    return cv2.threshold(depth_hw, _FARTHEST_M, 0, cv2.THRESH_TOZERO_INV)[1]


def _without_gaps(depth_hw: np.ndarray) -> np.ndarray:
    """One or two pixels of a surface that no depth pixel fell on, or only one from behind, filled.

    In inverse depth, where nearer is more and nothing is 0, both are dark gaps, which a closing
    fills. It leaves the surfaces' outlines where they are. Takes infinity and gives 0 for none.
    """
    inverse = 1 / depth_hw
    closed = cv2.morphologyEx(inverse, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    inverse *= np.float32(_SAME_SURFACE)
    gaps = np.flatnonzero(inverse < closed)
    depth_hw.reshape(-1)[gaps] = 1 / closed.reshape(-1)[gaps]
    return _known(depth_hw)


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
