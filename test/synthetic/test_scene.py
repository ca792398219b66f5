"""Geometry of rooms: walls, footprints, placing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dense_perception.synthetic import shell
from dense_perception.synthetic.scene import (
    Box,
    Item,
    Primitive,
    Scene,
    WallRun,
    footprint,
)
from dense_perception.synthetic.surfaces import wall_rectangle

WALLS = (
    WallRun((0, 0), (4, 0), (0, 1)),
    WallRun((4, 0), (4, 3), (-1, 0)),
    WallRun((4, 3), (0, 3), (0, -1)),
    WallRun((0, 3), (0, 0), (1, 0)),
)


def front(yaw: float) -> np.ndarray:
    return np.array([-math.sin(yaw), math.cos(yaw)])


@pytest.mark.parametrize("run", WALLS)
def test_furniture_faces_the_room(run: WallRun) -> None:
    np.testing.assert_allclose(front(run.yaw), run.normal, atol=1e-12)


@pytest.mark.parametrize("run", WALLS)
def test_wall_is_seen_from_the_room(run: WallRun) -> None:
    origin, edge_u, edge_v = wall_rectangle(run, 2.5)
    normal = np.cross(edge_u, edge_v)
    np.testing.assert_allclose(normal[:2] / np.linalg.norm(normal), run.normal, atol=1e-12)
    corners = np.array([origin, origin + edge_u, origin + edge_v, origin + edge_u + edge_v])
    assert corners[:, 2].max() == 2.5
    assert {tuple(c[:2]) for c in corners.tolist()} == {run.start, run.end}


def test_blocks_show_the_sides_that_face_the_room() -> None:
    size = (4.0, 3.0, 2.5)
    corner = shell.block_runs(Box(0, 0, 0, 1, 1, 2.5), size)
    assert sorted(run.normal for run in corner) == [(0, 1), (1, 0)]
    column = shell.block_runs(Box(1, 1, 0, 1.4, 1.4, 2.5), size)
    assert sorted(run.normal for run in column) == [(-1, 0), (0, -1), (0, 1), (1, 0)]
    for run in column:  # the visible side of each points away from the block
        origin, edge_u, edge_v = wall_rectangle(run, 2.5)
        middle = origin + edge_u / 2 + edge_v / 2
        normal = np.cross(edge_u, edge_v)
        assert (middle[:2] - 1.2) @ normal[:2] > 0


@given(st.floats(-7, 7), st.floats(0.1, 2), st.floats(0.1, 2), st.floats(0, math.pi * 2))
def test_footprint_holds_the_corners(x: float, width: float, depth: float, yaw: float) -> None:
    box = footprint(x, 1.0, width, depth, yaw, 0, 1)
    c, s = math.cos(yaw), math.sin(yaw)
    corners = [
        (x + c * a * width / 2 - s * b * depth / 2, 1.0 + s * a * width / 2 + c * b * depth / 2)
        for a in (-1, 1)
        for b in (-1, 1)
    ]
    xs, ys = zip(*corners, strict=True)
    assert (box.x0, box.x1) == pytest.approx((min(xs), max(xs)))
    assert (box.y0, box.y1) == pytest.approx((min(ys), max(ys)))


def test_moving_a_primitive() -> None:
    part = Primitive("box", (1, 1, 1), (1.0, 0.0, 0.5), 0.25, (1, 1, 1), "box")
    moved = part.moved(10, 20, 1, math.pi / 2)
    np.testing.assert_allclose(moved.position, (10, 21, 1.5), atol=1e-12)
    assert moved.yaw == pytest.approx(0.25 + math.pi / 2)


def test_fits_and_ignore() -> None:
    scene = Scene((4, 3, 2.5), "office")
    table = scene.put(Item((1, 1, 0.7)), 2, 1.5, 0, 0, 0)
    under = footprint(2, 1.5, 0.2, 0.2, 0, 0, 0.4)
    above = footprint(2, 1.5, 0.2, 0.2, 0, 0.7, 0.9)
    assert not scene.fits(under)
    assert scene.fits(under, ignore=table)
    assert scene.fits(above)
    assert not scene.fits(footprint(3.95, 1, 0.2, 0.2, 0, 0, 1)), "through a wall"
    assert not scene.fits(footprint(0.5, 0.5, 0.2, 0.2, 0, 2.4, 2.6)), "through the ceiling"
