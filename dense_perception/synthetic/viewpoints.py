"""Draws camera poses in a room and tells useful views from useless ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.synthetic.renderer import Pose
from dense_perception.synthetic.scene import Box, Scene

CLEARANCE_M = 0.2
NEAR_CLEARANCE_M = 0.06  # twice the renderer's near plane
PREVIEW = (24, 18)


def draw_camera(
    rng: np.random.Generator, scene: Scene, width: int, height: int
) -> tuple[Pose, Intrinsics] | None:
    """A pose at head, hand or robot height with its intrinsics; None when no free spot is found."""
    intrinsics = Intrinsics.from_fov(width, height, _field_of_view(rng))
    solid = [box for box in scene.occupied if box.solid]
    x_m, y_m, z_m = scene.size
    for _ in range(30):
        z = min(_camera_height(rng), z_m - 0.2)
        position = np.array([rng.uniform(0.12, x_m - 0.12), rng.uniform(0.12, y_m - 0.12), z])
        if not is_free(position, solid, CLEARANCE_M):
            continue
        yaw = _gaze(rng, position, scene)
        pitch, roll = _tilt(rng)
        return Pose.look(position, yaw, pitch, roll), intrinsics
    return None


def draw_table_camera(
    rng: np.random.Generator, scene: Scene, width: int, height: int
) -> tuple[Pose, Intrinsics] | None:
    """A pose of someone who stands before a table, a desk or a low cupboard and looks down on it;
    None when the room has none or no free spot is found.
    """
    tops = [box for box in scene.occupied if _is_table(box)]
    if not tops:
        return None
    intrinsics = Intrinsics.from_fov(width, height, _field_of_view(rng))
    solid = [box for box in scene.occupied if box.solid]
    for _ in range(30):
        top = tops[int(rng.integers(len(tops)))]
        middle = np.array([rng.uniform(top.x0, top.x1), rng.uniform(top.y0, top.y1), top.z1])
        away = rng.uniform(0.5, 2.0)
        bearing = rng.uniform(-math.pi, math.pi)
        z = min(top.z1 + rng.uniform(0.25, 0.95), scene.size[2] - 0.2)
        position = np.array(
            [middle[0] + away * math.cos(bearing), middle[1] + away * math.sin(bearing), z]
        )
        inside = (position[:2] > 0.12).all() and (
            position[:2] < np.array(scene.size[:2]) - 0.12
        ).all()
        if not inside or not is_free(position, solid, CLEARANCE_M):
            continue
        yaw = bearing + math.pi + rng.normal(0, 0.2)
        # From the table's middle upwards: it fills the lower half, the room is behind it.
        down = math.degrees(math.atan2(z - top.z1, away))
        pitch = -down * rng.uniform(0.3, 1.1) + rng.normal(0, 3)
        pitch = math.radians(float(np.clip(pitch, -55, 5)))
        return Pose.look(position, yaw, pitch, math.radians(rng.normal(0, 3))), intrinsics
    return None


def draw_near_camera(
    rng: np.random.Generator, scene: Scene, width: int, height: int
) -> tuple[Pose, Intrinsics] | None:
    """A pose close to things: over a table (half of the views, where there is one), low over the
    floor, or at arm's length before a wall or a cupboard; None when no free spot is found.
    """
    intrinsics = Intrinsics.from_fov(width, height, rng.uniform(35, 95))
    kind = rng.random()
    tops = [box for box in scene.occupied if _is_table(box)]
    for _ in range(30):
        if kind < 0.5 and tops:
            pose = _over_a_table(rng, tops)
        elif kind < 0.75:
            pose = _over_the_floor(rng, scene)
        else:
            pose = _anywhere(rng, scene)
            if not 0.25 < float(np.median(preview(scene, pose, intrinsics)[0])) < 1.0:
                continue
        inside = (pose.position > 0.08).all() and (
            pose.position < np.array(scene.size) - 0.08
        ).all()
        solid = [box for box in scene.occupied if box.solid]
        if inside and is_free(pose.position, solid, NEAR_CLEARANCE_M):
            return pose, intrinsics
    return None


def _over_a_table(rng: np.random.Generator, tops: list[Box]) -> Pose:
    """0.3 to 1.3 m from a point of a table's top, looking 15 to 80 degrees down on it."""
    top = tops[int(rng.integers(len(tops)))]
    target = np.array([rng.uniform(top.x0, top.x1), rng.uniform(top.y0, top.y1), top.z1])
    away = math.exp(rng.uniform(math.log(0.3), math.log(1.3)))
    down, bearing = math.radians(rng.uniform(15, 80)), rng.uniform(-math.pi, math.pi)
    level = away * math.cos(down)
    position = target + np.array(
        [level * math.cos(bearing), level * math.sin(bearing), away * math.sin(down)]
    )
    pitch = -down + math.radians(rng.normal(0, 5))
    return Pose.look(position, bearing + math.pi + rng.normal(0, 0.1), pitch, _near_roll(rng))


def _over_the_floor(rng: np.random.Generator, scene: Scene) -> Pose:
    """0.1 to 0.5 m above the floor, as from a small wheeled robot."""
    position = np.array(
        [*rng.uniform(0.08, np.array(scene.size[:2]) - 0.08), rng.uniform(0.1, 0.5)]
    )
    pitch = math.radians(rng.uniform(-65, 0))
    return Pose.look(position, rng.uniform(-math.pi, math.pi), pitch, _near_roll(rng))


def _anywhere(rng: np.random.Generator, scene: Scene) -> Pose:
    position = np.array(
        [*rng.uniform(0.08, np.array(scene.size[:2]) - 0.08), rng.uniform(0.2, 1.8)]
    )
    pitch = math.radians(float(np.clip(rng.normal(-5, 15), -50, 30)))
    return Pose.look(position, rng.uniform(-math.pi, math.pi), pitch, _near_roll(rng))


def _near_roll(rng: np.random.Generator) -> float:
    """Mostly level; a camera on a wrist is not."""
    return math.radians(rng.normal(0, 3) if rng.random() < 0.8 else rng.uniform(-25, 25))


def _is_table(box: Box) -> bool:
    area = (box.x1 - box.x0) * (box.y1 - box.y0)
    return box.solid and box.z0 < 0.01 and 0.4 < box.z1 < 1.1 and area > 0.4


def is_free(position: np.ndarray, boxes: list[Box], clearance_m: float) -> bool:
    """Whether a point keeps its distance from every box."""
    x, y, z = position
    return not any(
        box.x0 - clearance_m < x < box.x1 + clearance_m
        and box.y0 - clearance_m < y < box.y1 + clearance_m
        and box.z0 - clearance_m < z < box.z1 + clearance_m
        for box in boxes
    )


def _field_of_view(rng: np.random.Generator) -> float:
    kind = rng.random()
    if kind < 0.5:
        return rng.uniform(55, 75)
    return rng.uniform(45, 90) if kind < 0.8 else rng.uniform(30, 110)


def _camera_height(rng: np.random.Generator) -> float:
    kind = rng.random()
    if kind < 0.5:
        return rng.uniform(1.2, 1.8)
    if kind < 0.82:
        return rng.uniform(0.15, 1.0)
    return rng.uniform(0.8, 1.5)


def _gaze(rng: np.random.Generator, position: np.ndarray, scene: Scene) -> float:
    """Mostly along the longer free lines, else anywhere."""
    if rng.random() < 0.35:
        return rng.uniform(-math.pi, math.pi)
    yaws = rng.uniform(-math.pi, math.pi, 3)
    return float(max(yaws, key=lambda yaw: wall_distance(position, float(yaw), scene)))


def wall_distance(position: np.ndarray, yaw: float, scene: Scene) -> float:
    """Horizontal distance to the outer wall in a direction."""
    distance = math.inf
    for k, component in enumerate((math.cos(yaw), math.sin(yaw))):
        if abs(component) > 1e-9:
            limit = scene.size[k] if component > 0 else 0.0
            distance = min(distance, (limit - position[k]) / component)
    return distance


def _tilt(rng: np.random.Generator) -> tuple[float, float]:
    kind = rng.random()
    if kind < 0.6:
        pitch = rng.normal(-8, 9)
    elif kind < 0.85:
        pitch = rng.uniform(-35, 5)
    elif kind < 0.95:
        pitch = rng.uniform(-50, -20)
    else:
        pitch = rng.uniform(0, 20)
    kind = rng.random()
    if kind < 0.8:
        roll = rng.normal(0, 2.5)
    elif kind < 0.95:
        roll = rng.uniform(-8, 8)
    else:
        roll = rng.uniform(-20, 20)
    return math.radians(float(np.clip(pitch, -50, 20))), math.radians(roll)


def preview(scene: Scene, pose: Pose, intrinsics: Intrinsics) -> tuple[np.ndarray, np.ndarray]:
    """Coarse planar depth (metres) and surface index of a 24x18 view of the occupied boxes.

    Renders nothing, so hopeless views cost next to nothing. Surfaces 0-5 are the room's sides, the
    next numbers the boxes.
    """
    columns = (np.arange(PREVIEW[0]) + 0.5) / PREVIEW[0] * intrinsics.width - 0.5
    rows = (np.arange(PREVIEW[1]) + 0.5) / PREVIEW[1] * intrinsics.height - 0.5
    x, y = np.meshgrid(
        (columns - intrinsics.cx) / intrinsics.fx, (rows - intrinsics.cy) / intrinsics.fy
    )
    rays = np.stack([x, y, np.ones_like(x)], -1).reshape(-1, 3) @ pose.rotation_33.T
    rays = np.where(np.abs(rays) < 1e-9, 1e-9, rays)  # at unit planar depth: t is the depth
    walls = (np.where(rays > 0, np.array(scene.size), 0.0) - pose.position) / rays
    surface = walls.argmin(-1) * 2 + (
        np.take_along_axis(rays, walls.argmin(-1)[:, None], 1)[:, 0] > 0
    )
    depth = walls.min(-1)
    boxes = [box for box in scene.occupied if box.solid]
    if boxes:
        low = np.array([(b.x0, b.y0, b.z0) for b in boxes]) - pose.position
        high = np.array([(b.x1, b.y1, b.z1) for b in boxes]) - pose.position
        a, b = low[None] / rays[:, None], high[None] / rays[:, None]
        enter, leave = np.minimum(a, b).max(-1), np.maximum(a, b).min(-1)
        enter = np.where((enter < leave) & (leave > 0), np.maximum(enter, 0.0), np.inf)
        nearest = enter.argmin(-1)
        hit = np.take_along_axis(enter, nearest[:, None], 1)[:, 0]
        surface = np.where(hit < depth, 6 + nearest, surface)
        depth = np.minimum(depth, hit)
    return depth.reshape(PREVIEW[::-1]), surface.reshape(PREVIEW[::-1])


def is_promising(rng: np.random.Generator, depth_m: np.ndarray, surface: np.ndarray) -> bool:
    """Whether a :func:`preview` shows neither something at arm's length nor mostly one surface."""
    median = float(np.median(depth_m))
    if median < 0.45:
        return rng.random() < 0.05
    if float((depth_m < 0.25).mean()) > 0.12:
        return False
    share = float(np.bincount(surface.ravel()).max() / surface.size)
    if share > 0.85 or (share > 0.6 and median < 1.6):
        return rng.random() < 0.1
    if len(np.unique(surface)) < 5:
        return rng.random() < 0.3
    return True


def is_useful(depth_m: np.ndarray) -> bool:
    """False for a rendered view into something at arm's length."""
    sample = depth_m[::4, ::4]
    return float(np.quantile(sample, 0.01)) >= 0.2 and float(np.median(sample)) >= 0.3


def is_promising_near(rng: np.random.Generator, depth_m: np.ndarray, surface: np.ndarray) -> bool:
    """Whether a :func:`preview` of a near view is neither blocked nor mostly one bare surface."""
    if float((depth_m < 0.1).mean()) > 0.1 or float(np.median(depth_m)) > 1.4:
        return False
    share = float(np.bincount(surface.ravel()).max() / surface.size)
    return share < 0.9 or rng.random() < 0.3


def is_useful_near(depth_m: np.ndarray) -> bool:
    """False where something rendered almost touches the lens or hides the view."""
    sample = depth_m[::4, ::4]
    return float(np.quantile(sample, 0.02)) >= 0.08 and float(np.median(sample)) >= 0.12


@dataclass(frozen=True)
class Views:
    """How views are drawn, judged before rendering by their preview, and after it."""

    draw: Callable[[np.random.Generator, Scene, int, int], tuple[Pose, Intrinsics] | None]
    is_promising: Callable[[np.random.Generator, np.ndarray, np.ndarray], bool] = is_promising
    is_useful: Callable[[np.ndarray], bool] = is_useful


VIEWS = {
    "mixed": Views(draw_camera),
    "tables": Views(draw_table_camera),
    "near": Views(draw_near_camera, is_promising_near, is_useful_near),
}
"""Where cameras stand: anywhere, before tables and low cupboards, or close to things."""
