"""Camera poses and the coarse preview, against independent ray casting."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dense_perception.core.camera import Intrinsics
from dense_perception.synthetic import viewpoints as cameras
from dense_perception.synthetic.furnish import draw_room
from dense_perception.synthetic.renderer import Pose
from dense_perception.synthetic.scene import Box, Scene
from test.synthetic.miniature import fake_stock


def test_pose_axes() -> None:
    level = Pose.look(np.zeros(3), 0.0, 0.0, 0.0)
    np.testing.assert_allclose(level.rotation_33[:, 2], [1, 0, 0], atol=1e-12)  # forward
    np.testing.assert_allclose(level.rotation_33[:, 0], [0, -1, 0], atol=1e-12)  # right
    np.testing.assert_allclose(level.rotation_33[:, 1], [0, 0, -1], atol=1e-12)  # down
    pose = Pose.look(np.zeros(3), 0.7, -0.4, 0.3)
    np.testing.assert_allclose(pose.rotation_33.T @ pose.rotation_33, np.eye(3), atol=1e-12)
    assert np.linalg.det(pose.rotation_33) == pytest.approx(1)
    assert pose.rotation_33[2, 2] == pytest.approx(math.sin(-0.4))
    clockwise = Pose.look(np.zeros(3), 0.0, 0.0, 0.2)
    assert clockwise.rotation_33[2, 0] < 0, "the right side dips in a clockwise roll"


def naive_depth(scene: Scene, pose: Pose, ray: np.ndarray) -> float:
    """Marches along the ray in 2 mm steps of planar depth."""
    depth = 0.0
    solid = [b for b in scene.occupied if b.solid]
    while depth < 20:
        depth += 0.002
        x, y, z = pose.position + depth * ray
        if not (0 < x < scene.size[0] and 0 < y < scene.size[1] and 0 < z < scene.size[2]):
            return depth
        if any(b.x0 < x < b.x1 and b.y0 < y < b.y1 and b.z0 < z < b.z1 for b in solid):
            return depth
    return math.inf


def test_preview_agrees_with_marching() -> None:
    scene = Scene((4.0, 3.0, 2.5), "office")
    scene.occupied = [
        Box(2, 1, 0, 2.6, 1.8, 1.1),
        Box(3, 0, 0, 3.5, 3, 0.4),
        Box(1, 1, 0, 2, 2, 2, False),
    ]
    pose = Pose.look(np.array([0.5, 1.2, 1.5]), 0.15, -0.3, 0.1)
    camera = Intrinsics.from_fov(320, 240, 70)
    depth, surface = cameras.preview(scene, pose, camera)
    columns, rows = cameras.PREVIEW
    for row in range(0, rows, 4):
        for column in range(0, columns, 5):
            u = (column + 0.5) / columns * 320 - 0.5
            v = (row + 0.5) / rows * 240 - 0.5
            ray = pose.rotation_33 @ np.array(
                [(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, 1.0]
            )
            assert depth[row, column] == pytest.approx(naive_depth(scene, pose, ray), abs=0.004)
    assert {6, 7} <= set(surface.ravel().tolist()), "both boxes are seen"
    assert 8 not in surface, "a free zone is not an object"


def test_preview_of_a_camera_inside_a_box() -> None:
    scene = Scene((4.0, 3.0, 2.5), "office")
    scene.occupied = [Box(0, 0, 0, 1, 1, 2)]
    pose = Pose.look(np.array([0.5, 0.5, 1.0]), 0.0, 0.0, 0.0)
    depth, _ = cameras.preview(scene, pose, Intrinsics.from_fov(64, 48, 60))
    assert depth.max() == 0.0


def test_bare_wall_and_close_views_are_turned_down() -> None:
    def kept(depth: np.ndarray, surface: np.ndarray) -> float:
        rng = np.random.default_rng(0)
        return float(np.mean([cameras.is_promising(rng, depth, surface) for _ in range(300)]))

    flat = np.zeros((18, 24), int)
    rich = np.arange(18 * 24).reshape(18, 24) % 9
    assert kept(np.full((18, 24), 1.0), flat) < 0.2
    assert kept(np.full((18, 24), 0.3), rich) < 0.1
    assert kept(np.full((18, 24), 2.0), rich) == 1.0
    near = np.full((18, 24), 2.0)
    near[:6] = 0.1
    assert kept(near, rich) == 0.0


def test_useful_depth() -> None:
    depth = np.full((240, 320), 2.0, np.float32)
    assert cameras.is_useful(depth)
    depth[:, :40] = 0.1
    assert not cameras.is_useful(depth)
    assert not cameras.is_useful(np.full((240, 320), 0.25, np.float32))


def test_drawn_cameras() -> None:
    rng = np.random.default_rng(1)
    stock = fake_stock()
    heights, pitches, rolls, fovs = [], [], [], []
    for seed in range(8):
        scene = draw_room(np.random.default_rng(seed), stock)
        for _ in range(25):
            drawn = cameras.draw_camera(rng, scene, 320, 240)
            if drawn is None:
                continue
            pose, intrinsics = drawn
            solid = [b for b in scene.occupied if b.solid]
            assert cameras.is_free(pose.position, solid, cameras.CLEARANCE_M)
            heights.append(pose.position[2])
            pitches.append(math.degrees(math.asin(pose.rotation_33[2, 2])))
            rolls.append(math.degrees(math.asin(-pose.rotation_33[2, 0])))
            fovs.append(math.degrees(2 * math.atan(160 / intrinsics.fx)))
    assert len(heights) > 100
    assert min(heights) >= 0.15
    assert max(heights) <= 1.8
    assert np.mean(np.array(heights) > 1.2) > 0.4
    assert np.mean(np.array(heights) < 1.0) > 0.15
    assert -50.1 <= min(pitches) <= max(pitches) <= 30
    assert -25 < np.median(pitches) < 0
    assert np.median(np.abs(rolls)) < 4
    assert 29.9 <= min(fovs) <= max(fovs) <= 110.1
    assert np.mean((np.array(fovs) > 44.9) & (np.array(fovs) < 90.1)) > 0.8


def test_cameras_that_look_down_on_tables() -> None:
    """The one table of a bare room fills a good part of the lower half of the picture."""
    rng = np.random.default_rng(2)
    scene = Scene((5.0, 4.0, 2.6), "office")
    table = Box(2.0, 1.5, 0.0, 3.4, 2.3, 0.74)
    scene.occupied = [table, Box(0.0, 0.0, 0.0, 0.5, 0.5, 2.0)]
    lower, upper = [], []
    for _ in range(60):
        drawn = cameras.draw_table_camera(rng, scene, 320, 240)
        assert drawn is not None
        pose, intrinsics = drawn
        assert 0.98 <= pose.position[2] <= 1.7
        assert cameras.is_free(pose.position, scene.occupied, cameras.CLEARANCE_M)
        seen = cameras.preview(scene, pose, intrinsics)[1] == 6
        lower.append(seen[9:].mean())
        upper.append(seen[:9].mean())
    assert np.mean(np.array(lower) > 0.15) > 0.8
    assert np.mean(lower) > 2 * np.mean(upper)


def test_near_views_are_near() -> None:
    """Frame medians of 0.15 to 1 m for most, from every kind of place, by independent rays."""
    stock, rng = fake_stock(), np.random.default_rng(3)
    near = cameras.VIEWS["near"]
    medians, heights, fovs = [], [], []
    for seed in range(10):
        scene = draw_room(np.random.default_rng(seed), stock)
        for _ in range(30):
            drawn = near.draw(rng, scene, 320, 240)
            if drawn is None or not near.is_promising(rng, *cameras.preview(scene, *drawn)):
                continue
            pose, intrinsics = drawn
            solid = [b for b in scene.occupied if b.solid]
            assert cameras.is_free(pose.position, solid, cameras.NEAR_CLEARANCE_M)
            rays = [
                pose.rotation_33 @ np.array([x, y, 1.0])
                for x in np.linspace(-0.8, 0.8, 5) * 160 / intrinsics.fx
                for y in np.linspace(-0.8, 0.8, 5) * 120 / intrinsics.fy
            ]
            if len(medians) % 5 == 0:
                depths = [naive_depth(scene, pose, ray) for ray in rays]
            else:
                depths = list(cameras.preview(scene, *drawn)[0].ravel())
            medians.append(np.median(depths))
            heights.append(pose.position[2])
            fovs.append(math.degrees(2 * math.atan(160 / intrinsics.fx)))
    assert len(medians) > 100
    assert np.mean(np.array(medians) < 1.0) > 0.75
    assert np.mean(np.array(medians) < 0.5) > 0.15
    assert 0.1 < min(medians) < max(medians) < 2.0
    assert np.mean(np.array(heights) < 0.5) > 0.1, "low over the floor"
    assert np.mean(np.array(heights) > 0.8) > 0.3, "over tables and before walls"
    assert 34.9 <= min(fovs) < 45
    assert 85 < max(fovs) <= 95.1


def test_near_views_reject_what_hides_the_view() -> None:
    depth = np.full((240, 320), 0.4, np.float32)
    assert cameras.is_useful_near(depth)
    depth[:, :20] = 0.05
    assert not cameras.is_useful_near(depth)
    rng = np.random.default_rng(0)
    surface = np.arange(18 * 24).reshape(18, 24) % 9
    assert cameras.is_promising_near(rng, np.full((18, 24), 0.3), surface)
    assert not cameras.is_promising_near(rng, np.full((18, 24), 0.05), surface)
    assert not cameras.is_promising_near(rng, np.full((18, 24), 2.0), surface)


def test_no_table_no_camera() -> None:
    scene = Scene((5.0, 4.0, 2.6), "office")
    scene.occupied = [Box(0, 0, 0, 0.5, 0.5, 2.0), Box(2, 2, 1.2, 4, 4, 1.3)]
    assert cameras.draw_table_camera(np.random.default_rng(0), scene, 32, 24) is None


def test_a_full_room_has_no_camera() -> None:
    scene = Scene((2.0, 2.0, 2.5), "office")
    scene.occupied = [Box(0, 0, 0, 2, 2, 2.5)]
    assert cameras.draw_camera(np.random.default_rng(0), scene, 32, 24) is None
