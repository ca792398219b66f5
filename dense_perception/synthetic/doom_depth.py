"""Exact planar depth and classes of a Doom view, by casting one ray a column through the map.

The engine's own depth buffer has 8 bits. A Doom map is a plan of lines with a floor and a ceiling
height on either side, seen by a camera that neither pitches nor rolls, so each image column is a
walk through the sectors along one line: every line crossed closes the column from above and from
below by the steps it makes, until one without a back side closes it for good.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.synthetic.doom_map import UNITS_PER_M, DoomMap

CLASSES = ("void", "wall", "floor", "ceiling", "sky", "door", "step", "liquid", "object")
WALL, FLOOR, CEILING, SKY, DOOR, STEP, LIQUID, OBJECT = range(1, 9)


def cast(
    level: DoomMap,
    floor_s: np.ndarray,
    ceiling_s: np.ndarray,
    camera: Intrinsics,
    position: tuple[float, float, float],
    angle: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Planar depth in metres (float32, 0 = sky or not known) and class indices (uint8), HxW.

    :param floor_s: floor heights of the sectors now, map units; ``ceiling_s`` likewise.
    :param position: the eye, map units.
    :param angle: radians from +x, counter-clockwise.
    """
    depth, labels = _compiled()(
        level.start_n2,
        level.end_n2,
        level.right_n,
        level.left_n,
        level.door_n,
        level.grating_n,
        level.sky_s,
        level.liquid_s,
        np.ascontiguousarray(floor_s, np.float64),
        np.ascontiguousarray(ceiling_s, np.float64),
        np.array(position, np.float64),
        float(angle),
        camera.width,
        camera.height,
        np.array([camera.fx, camera.fy, camera.cx, camera.cy], np.float64),
    )
    return (depth / UNITS_PER_M).astype(np.float32), labels


@functools.cache
def _compiled() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    import numba

    compiled: Callable[..., tuple[np.ndarray, np.ndarray]] = numba.njit(cache=True)(cast_columns)
    return compiled


def cast_columns(  # type: ignore[no-untyped-def]  # compiled by numba
    start,
    end,
    right,
    left,
    door,
    grating,
    sky,
    liquid,
    floor,
    ceiling,
    eye,
    angle,
    width,
    height,
    k,
):
    """The loop of :func:`cast`; everything in map units and plain arrays."""
    depth = np.zeros((height, width), np.float64)
    labels = np.zeros((height, width), np.uint8)
    fx, fy, cx, cy = k[0], k[1], k[2], k[3]
    forward_x, forward_y = np.cos(angle), np.sin(angle)
    count = start.shape[0]
    reach, crossed = np.empty(count), np.empty(count, np.int64)
    for column in range(width):
        # A ray of unit planar depth: its parameter is the planar depth itself.
        aside = (column - cx) / fx
        ray_x, ray_y = forward_x + aside * forward_y, forward_y - aside * forward_x
        hits = 0
        for line in range(count):
            ex, ey = end[line, 0] - start[line, 0], end[line, 1] - start[line, 1]
            across = ray_x * ey - ray_y * ex
            if across == 0.0:
                continue
            px, py = start[line, 0] - eye[0], start[line, 1] - eye[1]
            t = (px * ey - py * ex) / across
            if t <= 1e-6:
                continue
            u = (px * ray_y - py * ray_x) / across
            if 0.0 <= u < 1.0:
                reach[hits] = t
                crossed[hits] = line
                hits += 1
        top, bottom = 0, height  # rows [top, bottom) are still open
        veiled = 0  # how often a grating has been crossed
        for index in np.argsort(reach[:hits]):
            z, line = reach[index], crossed[index]
            ex, ey = end[line, 0] - start[line, 0], end[line, 1] - start[line, 1]
            if ray_x * ey - ray_y * ex > 0:  # seen from its left side
                near, far = left[line], right[line]
            else:
                near, far = right[line], left[line]
            if near < 0:
                break
            row = cy - (ceiling[near] - eye[2]) * fy / z  # where ceiling and wall meet
            stop = min(max(int(np.ceil(row)), top), bottom)
            for v in range(top, stop):
                labels[v, column] = SKY if sky[near] else CEILING
                if not sky[near] and v < cy and veiled == 0:
                    depth[v, column] = (ceiling[near] - eye[2]) * fy / (cy - v)
            top = stop
            row = cy + (eye[2] - floor[near]) * fy / z
            stop = max(min(int(np.ceil(row)), bottom), top)
            for v in range(stop, bottom):
                labels[v, column] = LIQUID if liquid[near] else FLOOR
                if v > cy and veiled == 0:
                    depth[v, column] = (eye[2] - floor[near]) * fy / (v - cy)
            bottom = stop
            if far < 0:
                for v in range(top, bottom):
                    labels[v, column] = WALL
                    if veiled == 0:
                        depth[v, column] = z
                break
            if ceiling[far] < ceiling[near]:
                row = cy - (ceiling[far] - eye[2]) * fy / z
                stop = min(max(int(np.ceil(row)), top), bottom)
                for v in range(top, stop):
                    if sky[near] and sky[far]:
                        labels[v, column] = SKY
                    else:
                        labels[v, column] = DOOR if door[line] else WALL
                        if veiled == 0:
                            depth[v, column] = z
                top = stop
            if floor[far] > floor[near]:
                row = cy + (eye[2] - floor[far]) * fy / z
                stop = max(min(int(np.ceil(row)), bottom), top)
                for v in range(stop, bottom):
                    labels[v, column] = STEP
                    if veiled == 0:
                        depth[v, column] = z
                bottom = stop
            if top >= bottom:
                break
            if grating[line]:
                veiled += 1
    return depth, labels
