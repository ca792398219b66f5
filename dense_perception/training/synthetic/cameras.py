"""Draws camera poses in a room and tells useful views from useless ones."""

from __future__ import annotations

import math

import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.training.synthetic.renderer import Pose
from dense_perception.training.synthetic.scene import Box, Scene

CLEARANCE_M = 0.2


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
    return rng.uniform(55, 75) if rng.random() < 0.5 else rng.uniform(45, 90)


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


def is_useful(rng: np.random.Generator, depth_m: np.ndarray) -> bool:
    """False for views into something at arm's length, or of one bare flat surface close by."""
    sample = depth_m[::4, ::4]
    median = float(np.median(sample))
    if float(np.quantile(sample, 0.01)) < 0.2 or median < 0.25:
        return False
    if median < 0.45:
        return rng.random() < 0.1
    if median < 1.6 and flat_share(sample) > 0.6:
        return rng.random() < 0.12
    if edge_share(depth_m) < 0.012:
        return rng.random() < 0.25
    return flat_share(sample) < 0.93 or rng.random() < 0.25


def edge_share(depth_m: np.ndarray) -> float:
    """The share of pixels whose right neighbour is nearer or farther by more than 4 per cent."""
    ratio = depth_m[:, 1:] / np.maximum(depth_m[:, :-1], 1e-3)
    return float((np.abs(ratio - 1) > 0.04).mean())


def flat_share(depth_m: np.ndarray) -> float:
    """The share of pixels on the dominant plane. Inverse planar depth of a plane is affine in the
    pixel coordinates, so a robust affine fit finds it.
    """
    inverse = 1.0 / np.maximum(depth_m, 1e-3)
    y, x = np.mgrid[0 : depth_m.shape[0], 0 : depth_m.shape[1]]
    design = np.stack([x.ravel(), y.ravel(), np.ones(x.size)], 1).astype(np.float64)
    target = inverse.ravel()
    weights = np.ones_like(target)
    inlier = 0.0
    for _ in range(8):
        lhs = design * weights[:, None]
        fit = np.linalg.lstsq(lhs.T @ design, lhs.T @ target, rcond=None)[0]
        error = np.abs(design @ fit - target) / target
        inlier = float((error < 0.03).mean())
        weights = 1.0 / (1.0 + (error / 0.02) ** 2)
    return inlier
