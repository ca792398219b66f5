"""Registered depth against what the colour camera really sees, lens and all."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from dense_perception.core.camera import Intrinsics, Lens
from dense_perception.data.extraction.registration import (
    Registration,
    Undistortion,
    project_points,
    shrunk_depth,
)
from dense_perception.imaging.transforms import Transform
from test.support.robots import LENS, Robot, World

WORLD = World()


def between_neighbours(found_m: np.ndarray, true_m: np.ndarray) -> np.ndarray:
    """How far each known depth is outside of what is seen within one pixel; NaN for none.

    The border is left out: what is beyond it is not known.
    """
    height, width = true_m.shape
    padded = np.pad(true_m, 1, mode="edge")
    around = [padded[i : i + height, j : j + width] for i in range(3) for j in range(3)]
    low, high = np.min(around, axis=0), np.max(around, axis=0)
    error = np.maximum(np.maximum(low - found_m, found_m - high), 0)
    error = np.where(found_m > 0, error, np.nan)
    return error[1:-1, 1:-1]


def registered(robot: Robot, colour: Intrinsics) -> tuple[np.ndarray, np.ndarray]:
    """Registered depth, from whole millimetres, and the truth."""
    measured = np.rint(WORLD.depth(robot.depth, robot.depth_base) * 1000) / 1000
    motion = robot.colour_base.inverse().after(robot.depth_base)
    found = Registration(robot.depth, colour, motion)(np.where(np.isfinite(measured), measured, 0))
    return found, WORLD.depth(colour, robot.colour_base)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_depth_of_another_camera_lies_within_a_pixel_and_five_millimetres(scale: float) -> None:
    robot = Robot.usual(320, 240)
    colour = Undistortion(robot.colour).camera.resized(round(320 * scale), round(240 * scale))
    found, truth = registered(robot, colour)
    error = between_neighbours(found, truth)
    assert np.isfinite(error).mean() > 0.97, "hardly a gap but beside the box"
    assert np.nanmean(error < 0.005) > 0.999 * np.isfinite(error).mean()
    assert np.nanquantile(error, 0.999) < 0.005


def test_what_is_hidden_from_the_depth_camera_stays_empty() -> None:
    """Beside the box there is wall that only the colour camera sees."""
    robot = Robot.usual(320, 240, lens=False)
    near = replace(
        robot, depth_base=Transform(robot.depth_base.rotation, np.array([0.1, 0.5, 0.5]))
    )
    found, truth = registered(near, robot.colour)
    hidden = (found == 0) & (truth == WORLD.wall_m - 0.1)
    assert hidden.sum() > 200
    on_box = np.abs(truth - (WORLD.box_m - 0.1)) < 1e-6
    shining_through = on_box & (found > WORLD.box_m + 0.2)
    assert not cv2.erode(on_box.astype(np.uint8), np.ones((3, 3), np.uint8))[shining_through].any()


def test_a_point_is_where_opencv_projects_it() -> None:
    camera = Intrinsics(64, 48, 50, 52, 30.5, 22.25)
    points = np.random.default_rng(0).uniform((-1, -1, 2), (1, 1, 5), (40, 3))
    sparse = project_points(points, camera)
    pixels, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), camera.matrix(), np.zeros(5))
    inside = 0
    for (u, v), point in zip(pixels[:, 0], points, strict=True):
        column, row = round(float(u)), round(float(v))
        if 0 <= column < 64 and 0 <= row < 48:
            inside += 1
            assert sparse[row, column] <= point[2] + 1e-5
    expected = {round(float(p[2]), 4) for p in points}
    assert {round(float(z), 4) for z in sparse[sparse > 0]} <= expected
    assert inside >= (sparse > 0).sum() > 10


def test_points_behind_others_are_left_out() -> None:
    camera = Intrinsics(64, 48, 50, 50, 31.5, 23.5)
    front = [[x, y, 2.0] for x in np.arange(-0.4, 0.4, 0.1) for y in np.arange(-0.4, 0.4, 0.1)]
    behind = [[0.13, 0.13, 5.0], [2.4, 0.0, 5.0]]
    sparse = project_points(np.array(front + behind), camera)
    assert (sparse == 5).sum() == 1
    nothing = np.array([[0, 0, -1], [np.nan, 0, 1], [0, 0, np.inf]])
    assert not project_points(nothing, camera).any()
    assert not project_points(np.empty((0, 3)), camera).any()


@pytest.mark.parametrize(
    "lens", [LENS, Lens(True, (0.05, -0.01, 0.0, 0.0)), Lens(False, (0.1,) * 4)]
)
def test_an_undistorted_image_is_what_the_pinhole_sees(lens: Lens) -> None:
    """A map of each pixel's ray, through the lens, comes out as the pinhole's rays."""
    camera = Intrinsics(96, 72, 80, 80, 46.0, 37.0, lens)
    undistortion = Undistortion(camera)
    target = undistortion.camera
    from dense_perception.imaging.lenses import pixel_rays

    x, y = pixel_rays(camera)
    x, y = np.nan_to_num(x), np.nan_to_num(y)
    got = np.dstack([undistortion.map(x), undistortion.map(y)])
    want = np.dstack(np.broadcast_arrays(*pixel_rays(target)))
    assert target.lens is None
    # The nearest pixel's ray: within half a pixel, a little more where the lens squeezes.
    assert np.abs(got - want).max() < 0.9 / 80
    white = np.full((72, 96, 3), 255, np.uint8)
    assert undistortion.image(white)[1:-1, 1:-1].min() == 255, "no black border"


def test_hairline_gaps_stay_no_wider_where_depth_shrinks() -> None:
    """Against a loop over every pixel: of the known ones that it covers, the nearest one."""
    rng = np.random.default_rng(3)
    depth_m = rng.uniform(1, 2, (37, 54)).astype(np.float32)
    depth_m[rng.random(depth_m.shape) < 0.5] = 0
    depth_m[:, 20:30] = 0
    found_m = shrunk_depth(depth_m, (21, 15))
    nearest_m = cv2.resize(depth_m, (21, 15), interpolation=cv2.INTER_NEAREST)
    rows, columns = np.mgrid[:37, :54]
    filled = 0
    for row, column in np.ndindex(15, 21):
        off_y = np.abs(rows - ((row + 0.5) * 37 / 15 - 0.5))
        off_x = np.abs(columns - ((column + 0.5) * 54 / 21 - 0.5))
        covered = (off_y <= 37 / 30) & (off_x <= 54 / 42) & (depth_m > 0)
        distance = np.where(covered, off_y**2 + off_x**2, np.inf)
        if nearest_m[row, column] > 0:
            assert found_m[row, column] == nearest_m[row, column]
        elif covered.any():
            filled += 1
            assert found_m[row, column] in depth_m[distance <= distance.min() + 1e-9]
        else:
            assert found_m[row, column] == 0
    assert filled > 50
    assert not found_m[:, 8:11].any(), "what is not known stays so"
    larger_m = shrunk_depth(depth_m, (108, 74))
    np.testing.assert_array_equal(larger_m, depth_m.repeat(2, 0).repeat(2, 1))
