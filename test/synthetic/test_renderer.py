"""Rendered frames against geometry worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import BackendError
from dense_perception.synthetic import rooms, surfaces
from dense_perception.synthetic.renderer import (
    Pose,
    RoomRenderer,
    finish_picture,
    glare,
    occlusion,
    pixel_depth,
)
from dense_perception.synthetic.scene import Primitive, Scene
from dense_perception.synthetic.shell import draw_shell
from dense_perception.synthetic.taxonomy import CLASS_ID
from test.synthetic.miniature import FlatBank

WIDTH, HEIGHT = 160, 120


def bare_room() -> Scene:
    for seed in range(100):
        scene = draw_shell(np.random.default_rng(seed), "office")
        if not scene.blocks and min(scene.size[:2]) > 3:
            return scene
    raise AssertionError("no room without columns")


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scene, RoomRenderer]:
    scene = bare_room()
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[:8] = (255, 0, 0)  # upper half red, lower half green
    picture[8:] = (0, 255, 0)
    scene.add([Primitive("box", (0.2, 0.3, 0.4), (2.0, 1.5, 0.4), 0.0, (0.8, 0.1, 0.1), "box")])
    scene.add(
        [Primitive("box", (0.3, 0.01, 0.3), (2.0, 0.02, 1.2), 0.0, (1, 1, 1), "picture", picture)]
    )
    surfaces.finish(np.random.default_rng(1), scene, FlatBank())  # type: ignore[arg-type]
    try:
        renderer = RoomRenderer(scene, WIDTH, HEIGHT, tmp_path_factory.mktemp("cache"))
    except BackendError as error:
        pytest.skip(f"no OpenGL library on this machine: {error}")
    return scene, renderer


CAMERA = Intrinsics.from_fov(WIDTH, HEIGHT, 65)


def points(depth_m: np.ndarray, pose: Pose) -> np.ndarray:
    v, u = np.mgrid[0:HEIGHT, 0:WIDTH]
    rays = np.stack(
        [(u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, np.ones(u.shape)], -1
    )
    return pose.position + (rays * depth_m[..., None]) @ pose.rotation_33.T


def test_every_pixel_lies_on_the_surface_its_label_names(room: tuple[Scene, RoomRenderer]) -> None:
    scene, renderer = room
    for yaw, pitch, roll in ((0.9, -0.3, 0.1), (2.5, 0.2, -0.2), (-2.0, -0.1, 0.0)):
        pose = Pose.look(np.array([1.0, 0.8, 1.5]), yaw, pitch, roll)
        renderer.aim(pose, CAMERA)
        depth_m = renderer.depth()
        labels, _ = renderer.identify()
        world = points(depth_m, pose)
        x, y, z = scene.size
        off = np.zeros(depth_m.shape)
        planes = {"floor": [world[..., 2]], "ceiling": [world[..., 2] - z]}
        planes["wall"] = [world[..., 0], world[..., 0] - x, world[..., 1], world[..., 1] - y]
        for label, distances in planes.items():
            here = labels == CLASS_ID[label]
            off[here] = np.min(np.abs(distances), axis=0)[here]
        # A pixel across a crease holds both planes: all others are exact.
        assert np.quantile(off, 0.97) < 1e-4
        assert (off < 0.004 * depth_m).all()
        assert (labels == CLASS_ID["wall"]).sum() > 500


def test_a_box_at_a_known_distance(room: tuple[Scene, RoomRenderer]) -> None:
    _, renderer = room
    pose = Pose.look(
        np.array([0.6, 1.5, 0.5]), 0.0, 0.0, 0.0
    )  # along +x; the box begins at x = 1.8
    renderer.aim(pose, CAMERA)
    depth_m, (labels, instances) = renderer.depth(), renderer.identify()
    box = labels == CLASS_ID["box"]
    (thing,) = np.unique(instances[box])
    assert thing > 0
    assert ((instances == thing) == box).all(), "an instance is exactly where its label is"
    assert not instances[labels == CLASS_ID["wall"]].any()
    front = box & (np.abs(depth_m - 1.2) < 1e-3)
    assert front.sum() > 0.98 * box.sum()
    # Its sides are at y = 1.2 and 1.8, its top at z = 0.8: 0.3 to the left and right, 0.3 up.
    columns = np.flatnonzero(front.any(0))
    rows = np.flatnonzero(front.any(1))
    reach = 0.3 / 1.2 * CAMERA.fx
    assert columns[0] == pytest.approx(CAMERA.cx - reach, abs=1)
    assert columns[-1] == pytest.approx(CAMERA.cx + reach, abs=1)
    assert rows[0] == pytest.approx(CAMERA.cy - reach, abs=1)


def test_pictures_hang_upright(room: tuple[Scene, RoomRenderer]) -> None:
    _, renderer = room
    pose = Pose.look(np.array([2.0, 1.1, 1.5]), -math.pi / 2, 0.0, 0.0)
    renderer.aim(pose, CAMERA)
    renderer.depth()
    (labels, _), rgb = renderer.identify(), renderer.rgb().astype(int)
    rows, columns = np.nonzero(labels == CLASS_ID["picture"])
    top = rgb[rows.min() + 3, (columns.min() + columns.max()) // 2]
    bottom = rgb[rows.max() - 3, (columns.min() + columns.max()) // 2]
    assert top[0] > 2 * top[1]
    assert bottom[1] > 2 * bottom[0]


def test_pixel_depth_is_exact_on_planes_and_sharp_at_edges() -> None:
    v, u = np.mgrid[0:40, 0:60]
    inverse = 0.3 + 0.004 * (u - 30) - 0.003 * (v - 20)  # a slanted plane, at twice the size
    samples = (1 / inverse).astype(np.float32)
    centre_v, centre_u = np.mgrid[0:20, 0:30] * 2 + 0.5
    expected = 1 / (0.3 + 0.004 * (centre_u - 30) - 0.003 * (centre_v - 20))
    np.testing.assert_allclose(pixel_depth(samples), expected, rtol=1e-5)
    grazing = 1 / (0.02 + 0.03 * v)  # a floor seen to the horizon
    expected = 1 / (0.02 + 0.03 * centre_v)
    np.testing.assert_allclose(pixel_depth(grazing), expected, rtol=1e-5)
    samples[:, 31:] = 1.0
    mixed = pixel_depth(samples)
    assert (mixed[:, 15] == 1.0).all(), "an edge pixel takes its nearest sample"
    assert set(np.unique(mixed[:, 15:])) == {1.0}


def test_quaternion_of_a_pose() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        pose = Pose.look(rng.normal(size=3), *rng.uniform(-1.5, 1.5, 3))
        vector = rooms.pose_vector(pose).astype(np.float64)
        np.testing.assert_allclose(vector[:3], pose.position, atol=1e-6)
        x, y, z, w = vector[3:]
        rotation = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
        )
        np.testing.assert_allclose(rotation, pose.rotation_33, atol=1e-6)


def test_occlusion_is_in_creases_only() -> None:
    v, u = np.mgrid[0:120, 0:160]
    plane = 1 / (0.3 + 0.001 * u + 0.002 * v)
    inner = occlusion(plane)[20:-20, 20:-20]
    assert inner.max() < 0.02
    step = np.where(u < 80, 1.0, 2.0)
    dark = occlusion(step)
    assert dark[60, 82] > 0.3, "the far side beside a near object"
    assert dark[60, 77] < 1e-5
    assert dark[60, 150] < 1e-5


def test_exposure_keeps_pictures_visible() -> None:
    rng = np.random.default_rng(0)
    depth = np.full((60, 80), 2.0)
    for level in (12, 60, 130, 240):
        rgb = np.full((60, 80, 3), level, np.uint8)
        out = finish_picture(rgb, depth, rng)
        assert out.dtype == np.uint8
        assert 20 < out.mean() < 200


def test_glare_spreads_from_over_exposed_parts_only() -> None:
    dim = np.full((60, 80, 3), 0.5, np.float32)
    np.testing.assert_array_equal(glare(dim, 0.3), dim)
    window = dim.copy()
    window[20:40, 30:50] = 1.8
    out = glare(window, 0.3)
    assert out[30, 27, 0] > 0.55 > out[2, 2, 0] - 0.02
    assert out[30, 27, 0] > out[30, 20, 0] > out[30, 8, 0] >= 0.5
    np.testing.assert_array_equal(glare(window, 0.0), window)
