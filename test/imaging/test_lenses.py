"""Rays through lenses of known distortion, against OpenCV's forward projection of known points."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from dense_perception.core.camera import Intrinsics, Lens
from dense_perception.imaging.lenses import pixel_rays, project
from dense_perception.imaging.points import organised_xyz

PINHOLE = Intrinsics(64, 48, 40.0, 41.0, 30.5, 24.5)
WEBCAM = Lens(False, (-0.3, 0.1, 0.001, -0.002, 0.0))
RATIONAL = Lens(False, (0.4, 0.05, 0.001, 0.0005, 0.01, 0.6, 0.1, 0.02))
THIN_PRISM = Lens(False, (-0.2, 0.05, 0, 0, 0, 0, 0, 0, 0.01, -0.002, 0.005, 0.001))
PINCUSHION = Lens(False, (0.1, 0.02, 0.0, 0.0))
FISHEYE = Lens(True, (-0.02, 0.004, -0.001, 0.0002))
PLAIN_FISHEYE = Lens(True, (0.0, 0.0, 0.0, 0.0))
LENSES = (WEBCAM, RATIONAL, THIN_PRISM, PINCUSHION, FISHEYE, PLAIN_FISHEYE)


def opencv_pixels(lens: Lens, xyz_n3: np.ndarray) -> np.ndarray:
    points, none = xyz_n3.reshape(-1, 1, 3).astype(np.float64), np.zeros(3)
    forward = cv2.fisheye.projectPoints if lens.is_fisheye else cv2.projectPoints
    pixels = forward(points, none, none, PINHOLE.matrix(), np.array(lens.coefficients))[0]
    return np.asarray(pixels).reshape(-1, 2)


@pytest.mark.parametrize("lens", LENSES)
def test_points_of_the_cloud_land_on_their_pixels(lens: Lens) -> None:
    depth_m = np.random.default_rng(0).uniform(0.5, 5.0, (48, 64)).astype(np.float32)
    xyz = organised_xyz(depth_m, replace(PINHOLE, lens=lens)).reshape(-1, 3)
    assert np.isfinite(xyz).all()
    rows, columns = np.divmod(np.arange(xyz.shape[0]), 64)
    np.testing.assert_allclose(opencv_pixels(lens, xyz), np.stack([columns, rows], 1), atol=0.01)
    np.testing.assert_array_equal(xyz[:, 2], depth_m.reshape(-1))


@pytest.mark.parametrize("lens", LENSES)
def test_known_points_come_back_within_a_percent(lens: Lens) -> None:
    """A wall of random points, seen by OpenCV's camera, against the rays of the pixels hit."""
    xyz = np.random.default_rng(1).uniform([-0.7, -0.5, 1], [0.7, 0.5, 1], (500, 3))
    pixels = np.rint(opencv_pixels(lens, xyz)).astype(int)
    camera = replace(PINHOLE, lens=lens).resized(640, 480)
    fine = opencv_pixels(lens, xyz)
    columns, rows = ((fine + 0.5) * 10 - 0.5).round().astype(int).T
    seen = (pixels.min(axis=1) > 0) & (columns < 640) & (rows < 480) & (rows >= 0) & (columns >= 0)
    assert seen.sum() > 300
    x, y = pixel_rays(camera)
    found = np.stack([x[rows[seen], columns[seen]], y[rows[seen], columns[seen]]], axis=1)
    errors = np.linalg.norm(found - xyz[seen, :2], axis=1) / np.linalg.norm(xyz[seen], axis=1)
    assert errors.max() < 0.01


@pytest.mark.parametrize("lens", LENSES)
def test_projecting_is_opencvs(lens: Lens) -> None:
    xyz = np.random.default_rng(2).uniform([-0.5, -0.4, 0.8], [0.5, 0.4, 3.0], (100, 3))
    found = np.stack(project(xyz, replace(PINHOLE, lens=lens)), axis=1)
    np.testing.assert_allclose(found, opencv_pixels(lens, xyz), atol=1e-6)


def test_what_no_ray_reaches_has_no_point() -> None:
    """Strong barrel without higher terms folds back: its largest radius is 2/3 of f / sqrt(.9)."""
    camera = replace(PINHOLE, lens=Lens(False, (-0.6, 0.0, 0.0, 0.0)))
    xyz = organised_xyz(np.ones((48, 64), np.float32), camera)
    v, u = np.mgrid[:48, :64]
    radius = np.hypot((u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy)
    largest = 2 / 3 / np.sqrt(3 * 0.6)
    assert np.isfinite(xyz[radius < 0.98 * largest]).all()
    assert np.isnan(xyz[radius > 1.02 * largest]).all()


def test_points_beyond_the_fold_are_not_seen() -> None:
    camera = replace(PINHOLE, lens=Lens(False, (-0.6, 0.0, 0.0, 0.0)))
    columns, rows = project(np.array([[0.0, 0.0, 1.0], [1.2, 0.0, 1.0]]), camera)
    assert columns[0] == camera.cx
    assert np.isnan(columns[1])
    assert np.isnan(rows[1])
