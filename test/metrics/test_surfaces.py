"""Normals, steps and boundaries of depth against planes, ramps and loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dense_perception.core.camera import Intrinsics
from dense_perception.metrics import surfaces as metrics


def slanted(angle_deg: float) -> tuple[np.ndarray, Intrinsics]:
    """Depth of a plane turned about the vertical by an angle, seen by a level camera."""
    camera = Intrinsics.from_fov(64, 48, 60)
    x = (np.arange(64)[None] - camera.cx) / camera.fx
    depth = 2.0 / (1 + x * math.tan(math.radians(angle_deg)))
    return np.repeat(depth, 48, axis=0), camera


def test_normals_of_the_depth_see_the_angle_between_planes() -> None:
    true, camera = slanted(10)
    for angle in (10.0, 25.0, -20.0):
        found = metrics.Surfaces(3 * slanted(angle)[0], true).normals(camera)
        assert found["median_deg"] == pytest.approx(abs(angle - 10), abs=1e-5)
        assert found["mean_deg"] == pytest.approx(abs(angle - 10), abs=1e-5)
    empty = metrics.Surfaces(true, np.zeros_like(true)).normals(camera)
    assert math.isnan(empty["median_deg"])


def test_edges_count_what_is_made_within_four_pixels() -> None:
    true = np.full((30, 40), 2.0)
    true[:, 20:] = 4.0
    assert metrics.Surfaces(true, true).edge_share() == pytest.approx(1)
    assert metrics.Surfaces(np.full((30, 40), 3.0), true).edge_share() == 0
    # A ramp in log depth over twelve steps makes a quarter of it in three.
    ramp = np.clip((np.arange(40) - 13.5) / 12, 0, 1)
    blurred = np.repeat(2 * 2 ** ramp[None], 30, axis=0)
    assert metrics.Surfaces(blurred, true).edge_share() == pytest.approx(0.25, abs=1e-6)
    assert metrics.Surfaces(blurred.T, true.T).edge_share() == pytest.approx(0.25, abs=1e-6)
    assert math.isnan(metrics.Surfaces(true, np.full((30, 40), 2.0)).edge_share())


def bumpy(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    depth = 2 + rng.uniform(-0.1, 0.1, (23, 31))
    depth += 2 * (np.arange(31) > 14) + (np.arange(23) > 11)[:, None]
    depth[rng.random(depth.shape) < 0.03] = 0
    return depth


def naive_normal(depth: np.ndarray, row: int, column: int, camera: Intrinsics) -> np.ndarray:
    """By NumPy's least squares on the window."""
    offsets = [(y, x) for y in range(-2, 3) for x in range(-2, 3)]
    design = [[column + x - camera.cx, row + y - camera.cy, 1] for y, x in offsets]
    inverse = [1 / depth[row + y, column + x] for y, x in offsets]
    a, b, c = np.linalg.lstsq(np.array(design), np.array(inverse), rcond=None)[0]
    normal = np.array([camera.fx * a, camera.fy * b, c])
    return normal / np.linalg.norm(normal)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_normals_equal_least_squares_on_every_window(step: int) -> None:
    true, predicted = bumpy(1), bumpy(2)
    camera = Intrinsics.from_fov(31, 23, 70)
    angles = []
    for row in range(2, 21, step):
        for column in range(2, 29, step):
            window = (slice(row - 2, row + 3), slice(column - 2, column + 3))
            if not (true[window].all() and predicted[window].all()):
                continue
            if np.abs(np.log(true[window] / true[row, column])).max() > 0.11:
                continue
            a, b = (naive_normal(m, row, column, camera) for m in (true, predicted))
            angles.append(math.degrees(math.atan2(np.linalg.norm(np.cross(a, b)), a @ b)))
    assert len(angles) > 10
    found = metrics.Surfaces(predicted, true).normals(camera, step)
    assert found["mean_deg"] == pytest.approx(np.mean(angles), abs=1e-6)
    assert found["median_deg"] == pytest.approx(np.median(angles), abs=1e-6)
    assert found["within_22"] == pytest.approx(np.mean(np.array(angles) < 22.5))
    small = metrics.Surfaces(predicted.astype(np.float32), true.astype(np.float32))
    assert small.normals(camera, step) == pytest.approx(found, abs=1e-3)


def test_a_perfect_answer_has_its_normals_edges_and_boundaries() -> None:
    depth = bumpy(3).astype(np.float32)
    camera = Intrinsics.from_fov(31, 23, 70)
    assert metrics.Surfaces(5 * depth, depth).normals(camera)["mean_deg"] == pytest.approx(
        0, abs=1e-3
    )
    assert metrics.Surfaces(depth, depth).edge_share() == pytest.approx(1, abs=1e-6)
    assert metrics.Surfaces(3 * depth, depth).boundary_f1() == pytest.approx(1, abs=1e-6)


def naive_boundary(predicted: np.ndarray, true: np.ndarray) -> float:
    """Pixel by pixel, direction by direction."""
    score = weight = 0.0
    height, width = true.shape
    for threshold in np.linspace(1.05, 1.25, 10):
        recalls, precisions = [], []
        for down, across in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            hits = said = there = 0
            for row in range(height):
                for column in range(width):
                    y, x = row + down, column + across
                    if not (0 <= y < height and 0 <= x < width):
                        continue
                    four = predicted[row, column], predicted[y, x], true[row, column], true[y, x]
                    if min(four) <= 0:
                        continue
                    answer, truth = four[1] / four[0] > threshold, four[3] / four[2] > threshold
                    hits, said, there = hits + (answer and truth), said + answer, there + truth
            if said or there:
                recalls.append(hits / max(there, 1))
                precisions.append(hits / max(said, 1))
        if recalls:
            recall, precision = np.mean(recalls), np.mean(precisions)
            both = recall + precision
            score += threshold * (2 * recall * precision / both if both else 0)
            weight += threshold
    return score / weight


def test_boundaries_equal_the_definition_pixel_by_pixel() -> None:
    true, predicted = bumpy(1), bumpy(2)
    predicted[:, 10:] *= 1.1
    value = metrics.Surfaces(predicted, true).boundary_f1()
    assert 0.1 < value < 0.9
    assert value == pytest.approx(naive_boundary(predicted, true), abs=1e-12)
    flat = np.full((23, 31), 2.0)
    assert metrics.Surfaces(flat, true).boundary_f1() == 0
    assert math.isnan(metrics.Surfaces(predicted, flat).boundary_f1())
    assert metrics.Surfaces(np.roll(true, 5, axis=(0, 1)), true).boundary_f1() < 0.3
