"""Which ray each pixel sees through a lens, and which pixel a point lands on."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from dense_perception.core.camera import Intrinsics, Lens

_STEPS = 30
_EXACT = 1e-10
# In units of the focal length. A pixel that comes no closer is outside what the calibration covers.
_CLOSE = 1e-5
_DIFFERENCE = 1e-6
_WIDEST = 20.0  # the largest x/z that is looked at: 87 degrees from the axis


@lru_cache(maxsize=8)
def pixel_rays(intrinsics: Intrinsics) -> tuple[np.ndarray, np.ndarray]:
    """Slopes x/z and y/z of the pixels' rays, read-only ``float32``.

    (1, W) and (H, 1) for a pinhole. With a lens HxW each, and NaN in both where no ray in front of
    the camera lands on the pixel.
    """
    columns = (np.arange(intrinsics.width) - intrinsics.cx) / intrinsics.fx
    rows = (np.arange(intrinsics.height) - intrinsics.cy) / intrinsics.fy
    x, y = columns[None, :], rows[:, None]
    if intrinsics.lens is not None:
        x, y = straightened(intrinsics.lens, *np.broadcast_arrays(x, y))
    x_rays, y_rays = x.astype(np.float32), y.astype(np.float32)
    x_rays.setflags(write=False)
    y_rays.setflags(write=False)
    return x_rays, y_rays


def project(xyz_n3: np.ndarray, intrinsics: Intrinsics) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows (N,) that points in front of the camera land on.

    NaN for a point so far to the side that the lens's polynomial does not reach it.
    """
    x, y, z = np.asarray(xyz_n3, np.float64).T
    x, y = x / z, y / z
    lens = intrinsics.lens
    if lens is not None:
        outside = np.hypot(x, y) > _reach(lens)
        x, y = bent(lens, x, y)
        x[outside] = y[outside] = np.nan
    return intrinsics.fx * x + intrinsics.cx, intrinsics.fy * y + intrinsics.cy


def bent(lens: Lens, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the lens makes of the slopes x/z and y/z, by OpenCV's models."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if lens.is_fisheye:
            radius = np.hypot(x, y)
            scale = np.where(radius > 0, _fisheye_radius(lens, np.arctan(radius)) / radius, 1.0)
            return x * scale, y * scale
        _, _, p1, p2, _, _, _, _, s1, s2, s3, s4 = _twelve(lens)
        r2 = x * x + y * y
        radial, xy2 = _radial(lens, r2), 2 * x * y
        return (
            x * radial + p1 * xy2 + p2 * (r2 + 2 * x * x) + s1 * r2 + s2 * r2 * r2,
            y * radial + p1 * (r2 + 2 * y * y) + p2 * xy2 + s3 * r2 + s4 * r2 * r2,
        )


def straightened(lens: Lens, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of :func:`bent`, within ``1e-5``; NaN where there is none."""
    bent_x, bent_y = x.reshape(-1).astype(np.float64), y.reshape(-1).astype(np.float64)
    solve = _fisheye_straightened if lens.is_fisheye else _newton
    straight_x, straight_y = solve(lens, bent_x, bent_y)
    with np.errstate(over="ignore", invalid="ignore"):
        back_x, back_y = bent(lens, straight_x, straight_y)
        error = np.hypot(back_x - bent_x, back_y - bent_y)
        known = (error < _CLOSE) & (np.hypot(straight_x, straight_y) <= _reach(lens))
    shape = x.shape
    return (
        np.where(known, straight_x, np.nan).reshape(shape),
        np.where(known, straight_y, np.nan).reshape(shape),
    )


def _newton(lens: Lens, bent_x: np.ndarray, bent_y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # From the bent slopes on: a barrel's root is approached from inside, so before any fold.
    straight_x, straight_y = bent_x.copy(), bent_y.copy()
    left = np.arange(len(bent_x))
    with np.errstate(all="ignore"):
        for _ in range(_STEPS):
            x, y = straight_x[left], straight_y[left]
            at_x, at_y = bent(lens, x, y)
            error_x, error_y = bent_x[left] - at_x, bent_y[left] - at_y
            far = np.hypot(error_x, error_y) > _EXACT
            if not far.any():
                break
            left, x, y, at_x, at_y, error_x, error_y = (
                each[far] for each in (left, x, y, at_x, at_y, error_x, error_y)
            )
            right_x, right_y = bent(lens, x + _DIFFERENCE, y)
            below_x, below_y = bent(lens, x, y + _DIFFERENCE)
            xx, yx = (right_x - at_x) / _DIFFERENCE, (right_y - at_y) / _DIFFERENCE
            xy, yy = (below_x - at_x) / _DIFFERENCE, (below_y - at_y) / _DIFFERENCE
            determinant = xx * yy - xy * yx
            straight_x[left] = x + (yy * error_x - xy * error_y) / determinant
            straight_y[left] = y + (xx * error_y - yx * error_x) / determinant
    return straight_x, straight_y


def _fisheye_straightened(
    lens: Lens, bent_x: np.ndarray, bent_y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """By a table of the radius, which depends on the angle alone."""
    angles = np.linspace(0.0, np.arctan(_reach(lens)), 20_001)
    radii = _fisheye_radius(lens, angles)
    radius = np.hypot(bent_x, bent_y)
    angle = np.interp(radius, radii, angles, right=np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.where(radius > 0, np.tan(angle) / radius, 1.0)
    return bent_x * scale, bent_y * scale


@lru_cache(maxsize=8)
def _reach(lens: Lens) -> float:
    """The largest slope up to which a larger one lands further out."""
    slopes = np.linspace(0.0, _WIDEST, 20_001)
    with np.errstate(all="ignore"):
        if lens.is_fisheye:
            radii = _fisheye_radius(lens, np.arctan(slopes))
        else:
            radii = slopes * _radial(lens, slopes * slopes)
        falls = np.flatnonzero(~(np.diff(radii) > 0))
    return float(slopes[falls[0]]) if len(falls) else _WIDEST


def _radial(lens: Lens, r2: np.ndarray) -> np.ndarray:
    k1, k2, _, _, k3, k4, k5, k6, *_ = _twelve(lens)
    return (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))


def _fisheye_radius(lens: Lens, angle: np.ndarray) -> np.ndarray:
    k1, k2, k3, k4 = lens.coefficients
    a2 = angle * angle
    return angle * (1 + a2 * (k1 + a2 * (k2 + a2 * (k3 + a2 * k4))))


def _twelve(lens: Lens) -> tuple[float, ...]:
    return lens.coefficients + (0.0,) * (12 - len(lens.coefficients))
