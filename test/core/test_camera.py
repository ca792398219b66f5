"""Intrinsics through resize and crop, against projected points."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import InputError

CAMERA = Intrinsics(640, 480, 500.0, 510.0, 321.5, 238.25)


def project(camera: Intrinsics, point: tuple[float, float, float]) -> tuple[float, float]:
    x, y, z = point
    return camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy


@given(
    st.integers(1, 2000),
    st.integers(1, 2000),
    st.tuples(st.floats(-5, 5), st.floats(-5, 5), st.floats(0.1, 50)),
)
def test_resize_moves_projections_like_pixel_areas(
    width: int, height: int, point: tuple[float, float, float]
) -> None:
    u, v = project(CAMERA, point)
    u2, v2 = project(CAMERA.resized(width, height), point)
    # A pixel is the area [u - 0.5, u + 0.5]: areas scale, so corners map linearly from 0.
    assert (u2 + 0.5) / width == pytest.approx((u + 0.5) / 640, rel=1e-9, abs=1e-9)
    assert (v2 + 0.5) / height == pytest.approx((v + 0.5) / 480, rel=1e-9, abs=1e-9)


def test_resize_there_and_back_is_the_identity() -> None:
    back = CAMERA.resized(256, 192).resized(640, 480)
    assert back.matrix() == pytest.approx(CAMERA.matrix(), abs=1e-9)


def test_crop_moves_the_principal_point_only() -> None:
    cropped = CAMERA.cropped(100, 40, 320, 240)
    u, v = project(CAMERA, (0.3, -0.2, 2.0))
    assert project(cropped, (0.3, -0.2, 2.0)) == pytest.approx((u - 100, v - 40))
    assert (cropped.width, cropped.height) == (320, 240)


def test_field_of_view_spans_the_outer_pixel_edges() -> None:
    camera = Intrinsics.from_fov(640, 480, 90.0)
    left_edge = (-0.5 - camera.cx) / camera.fx
    assert math.degrees(math.atan(-left_edge)) == pytest.approx(45.0)
    assert camera.horizontal_fov_deg == pytest.approx(90.0)


def test_matrices_of_both_kinds() -> None:
    k = [500, 0, 321.5, 0, 510, 238.25, 0, 0, 1]
    p = [500, 0, 321.5, -60, 0, 510, 238.25, 0, 0, 0, 1, 0]
    assert Intrinsics.from_matrix(640, 480, k) == CAMERA
    assert Intrinsics.from_matrix(640, 480, np.array(p).reshape(3, 4)) == CAMERA


def test_mean_focal_is_the_geometric_mean() -> None:
    assert Intrinsics(10, 10, 4.0, 9.0, 5, 5).mean_focal_px == pytest.approx(6.0)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"fx": 0.0}, "fx is 0.0"),
        ({"fy": float("nan")}, "fy is nan"),
        ({"cx": float("inf")}, "principal point"),
        ({"width": 0}, "0x480"),
    ],
)
def test_impossible_cameras_are_refused(changes: dict[str, float], named: str) -> None:
    values = {"width": 640, "height": 480, "fx": 500.0, "fy": 500.0, "cx": 320.0, "cy": 240.0}
    with pytest.raises(InputError, match=named):
        Intrinsics(**{**values, **changes})  # type: ignore[arg-type]


def test_impossible_fields_of_view_and_matrices_are_refused() -> None:
    with pytest.raises(InputError, match="expected 1 to 170"):
        Intrinsics.from_fov(640, 480, 180.0)
    with pytest.raises(InputError, match="8 numbers"):
        Intrinsics.from_matrix(640, 480, [1.0] * 8)
