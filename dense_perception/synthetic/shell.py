"""Kinds of rooms, and the bare room: its size, walls, columns, doors and windows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dense_perception.synthetic import textures
from dense_perception.synthetic.scene import (
    Box,
    Instance,
    Opening,
    Primitive,
    Scene,
    WallRun,
    footprint,
)
from dense_perception.synthetic.stock import Stock, draw_seed


@dataclass(frozen=True)
class Theme:
    """What a kind of room holds: weights of labels, how full it is, its size in metres."""

    weight: float
    side_m: tuple[float, float]
    stretch: tuple[float, float]
    along_wall: dict[str, float]
    tables: tuple[int, int]
    desk_share: float
    floor_items: tuple[int, int]
    surface_items: tuple[int, int]


THEMES: dict[str, Theme] = {
    "office": Theme(
        0.28, (2.8, 7.5), (1.0, 1.7), {"cabinet": 2, "shelf": 3, "sofa": 0.4, "appliance": 0.4,
        "picture": 0.3}, (2, 8), 0.75, (3, 10), (3, 11)),
    "living": Theme(
        0.2, (3.0, 6.5), (1.0, 1.6), {"sofa": 3, "cabinet": 2, "shelf": 2.5, "other_furniture": 0.7,
        "chair": 1, "appliance": 0.5}, (1, 4), 0.2, (4, 11), (2, 8)),
    "bedroom": Theme(
        0.13, (2.6, 4.8), (1.0, 1.5), {"bed": 3, "cabinet": 3, "shelf": 1, "textile": 0.5,
        "chair": 0.5}, (0, 3), 0.5, (3, 11), (2, 8)),
    "kitchen": Theme(
        0.12, (2.3, 5.0), (1.0, 1.7), {"cabinet": 3, "appliance": 4, "sanitary": 0.6, "shelf": 0.6},
        (0, 3), 0.2, (2, 7), (3, 10)),
    "bathroom": Theme(
        0.06, (1.9, 3.4), (1.0, 1.6), {"sanitary": 5, "appliance": 1, "cabinet": 1, "textile": 0.3},
        (0, 0), 0.0, (0, 4), (1, 4)),
    "corridor": Theme(
        0.09, (1.5, 2.8), (2.5, 5.5), {"cabinet": 1, "shelf": 1, "appliance": 0.5, "chair": 0.5},
        (0, 2), 0.5, (2, 9), (1, 5)),
    "hall": Theme(
        0.06, (6.0, 11.0), (1.0, 1.5), {"sofa": 1.5, "cabinet": 1, "shelf": 1, "chair": 1,
        "appliance": 0.4}, (4, 14), 0.5, (6, 22), (1, 7)),
    "storage": Theme(
        0.06, (2.2, 5.5), (1.0, 2.0), {"shelf": 5, "cabinet": 2, "appliance": 0.6, "textile": 0.2},
        (0, 2), 0.7, (6, 18), (3, 9)),
}  # fmt: skip


def draw_shell(rng: np.random.Generator, name: str) -> Scene:
    """Room size, outer walls, sometimes a column, a chimney breast, a corner cut or a stub wall."""
    theme = THEMES[name]
    x_m = rng.uniform(*theme.side_m)
    y_m = min(12.0, x_m * rng.uniform(*theme.stretch))
    if rng.random() < 0.5:
        x_m, y_m = y_m, x_m
    z_m = float(np.clip(rng.normal(2.6, 0.25), 2.25, 3.6))
    if name == "hall":
        z_m = rng.uniform(2.6, 3.8)
    scene = Scene((x_m, y_m, z_m), name)
    scene.runs = [
        WallRun((0, 0), (x_m, 0), (0, 1)),
        WallRun((x_m, 0), (x_m, y_m), (-1, 0)),
        WallRun((x_m, y_m), (0, y_m), (0, -1)),
        WallRun((0, y_m), (0, 0), (1, 0)),
    ]
    count = int(rng.choice([0, 1, 2, 3], p=[0.45, 0.3, 0.15, 0.1]))
    for _ in range(count):
        kind = rng.random()
        if kind < 0.3:  # corner cut: an L-shaped room
            w, d = rng.uniform(0.2, 0.45) * x_m, rng.uniform(0.2, 0.45) * y_m
            x0 = float(rng.choice([0.0, x_m - w]))
            y0 = float(rng.choice([0.0, y_m - d]))
        elif kind < 0.65:  # stub wall
            thick, reach = rng.uniform(0.08, 0.25), rng.uniform(0.25, 0.6)
            if rng.random() < 0.5:
                w, d = thick, reach * y_m
                x0, y0 = rng.uniform(0.25, 0.75) * x_m, float(rng.choice([0.0, y_m - d]))
            else:
                w, d = reach * x_m, thick
                x0, y0 = float(rng.choice([0.0, x_m - w])), rng.uniform(0.25, 0.75) * y_m
        elif kind < 0.85:  # pilaster or chimney breast
            w, d = rng.uniform(0.2, 1.2), rng.uniform(0.1, 0.4)
            x0 = rng.uniform(0, max(0.01, x_m - w))
            y0 = float(rng.choice([0.0, y_m - d]))
        else:  # free column
            w = d = rng.uniform(0.2, 0.45)
            x0, y0 = rng.uniform(0.2, 0.8) * x_m - w / 2, rng.uniform(0.2, 0.8) * y_m - d / 2
        if min(x_m, y_m) < 2.4 and kind < 0.65:
            continue
        block = Box(x0, y0, 0.0, x0 + w, y0 + d, z_m)
        if scene.fits(block):
            scene.blocks.append(block)
            scene.occupied.append(block)
            scene.runs += block_runs(block, scene.size)
    return scene


def block_runs(block: Box, size: tuple[float, float, float]) -> list[WallRun]:
    """The sides of a floor-to-ceiling block that face the room, as wall runs."""
    x0, y0, x1, y1 = block.x0, block.y0, block.x1, block.y1
    runs = []
    if y1 < size[1] - 1e-6:
        runs.append(WallRun((x0, y1), (x1, y1), (0, 1)))
    if y0 > 1e-6:
        runs.append(WallRun((x1, y0), (x0, y0), (0, -1)))
    if x1 < size[0] - 1e-6:
        runs.append(WallRun((x1, y1), (x1, y0), (1, 0)))
    if x0 > 1e-6:
        runs.append(WallRun((x0, y0), (x0, y1), (-1, 0)))
    return runs


def add_openings(rng: np.random.Generator, scene: Scene, stock: Stock) -> None:
    """Doors, some of them ajar, and windows, some with curtains, in the outer walls."""
    outer = [i for i, run in enumerate(scene.runs[:4]) if run.length > 1.3]
    for kind, count in (("door", int(rng.integers(1, 3))), ("window", int(rng.integers(0, 5)))):
        for _ in range(count):
            _add_opening(rng, scene, stock, kind, int(rng.choice(outer)))


def _add_opening(
    rng: np.random.Generator, scene: Scene, stock: Stock, kind: str, index: int
) -> None:
    model = stock.pick(rng, scene, kind)
    run = scene.runs[index]
    if model is None or model.size_m[0] > run.length - 0.2:
        return
    width, depth, height = model.size_m
    along = rng.uniform(width / 2 + 0.1, run.length - width / 2 - 0.1)
    z = 0.0 if kind == "door" else model.elevation_m or rng.uniform(0.7, 1.2)
    z = min(z, scene.size[2] - height - 0.02)
    front = scene.clip(footprint(*run.point(along, 0.35), width, 0.7, run.yaw, z, z + height))
    if not scene.fits(front):
        return
    thing = scene.new_thing()
    scene.openings.append(
        Opening(index, along - width / 2, z, along + width / 2, z + height, kind, thing)
    )
    if kind == "door":
        scene.occupied.append(Box(front.x0, front.y0, z, front.x1, front.y1, front.z1, False))
        if width < 1.1 and rng.random() < 0.25:
            _leave_ajar(rng, scene, run, along, width, height, thing)
            return
    else:
        thin = footprint(*run.point(along, 0.06), width, 0.12, run.yaw, z, z + height)
        scene.occupied.append(scene.clip(thin))
        if rng.random() < 0.3:
            _hang_curtains(rng, scene, run, along, width, z, height)
    # Most of the frame is inside the wall, the leaf stands a little proud of it.
    x, y = run.point(along, rng.uniform(0.0, 0.04) - depth * 0.2)
    scene.instances.append(Instance(model, (x, y, z), run.yaw, 1.0, draw_seed(rng), thing))


def _leave_ajar(
    rng: np.random.Generator,
    scene: Scene,
    run: WallRun,
    along: float,
    width: float,
    height: float,
    thing: int,
) -> None:
    """An open door: a frame around the dark of the next room, and a leaf swung into this one."""
    colour = textures.object_colour(rng)
    rgb = (float(colour[0]), float(colour[1]), float(colour[2]))
    frame = [
        Primitive(
            "box", (0.04, 0.03, height / 2), (side * width / 2, 0, height / 2), 0, rgb, "door"
        )
        for side in (-1, 1)
    ]
    frame.append(Primitive("box", (width / 2, 0.03, 0.04), (0, 0, height), 0, rgb, "door"))
    x, y = run.point(along, 0.02)
    scene.add((part.moved(x, y, 0.0, run.yaw) for part in frame), thing)
    hinge = float(rng.choice([-1.0, 1.0]))
    swing = hinge * math.radians(rng.uniform(15, 110))
    leaf = Primitive(
        "box", (width / 2, 0.02, height / 2), (-hinge * width / 2, 0, height / 2), 0, rgb, "door"
    )
    x, y = run.point(along, 0.03)
    c, s = math.cos(run.yaw), math.sin(run.yaw)
    hx, hy = x + c * hinge * width / 2, y + s * hinge * width / 2
    placed = leaf.moved(hx, hy, 0.0, run.yaw - swing)
    box = footprint(*placed.position[:2], width, 0.04, placed.yaw, 0.0, height)
    scene.add([placed], thing)
    scene.occupied.append(scene.clip(box))


def _hang_curtains(
    rng: np.random.Generator,
    scene: Scene,
    run: WallRun,
    along: float,
    width: float,
    z: float,
    height: float,
) -> None:
    """A ribbed curtain at one or both sides of a window."""
    colour = textures.object_colour(rng)
    rgb = (float(colour[0]), float(colour[1]), float(colour[2]))
    bottom = 0.02 if rng.random() < 0.6 else max(0.02, z - 0.15)
    top = min(z + height + 0.15, scene.size[2] - 0.03)
    for side in (-1, 1):
        if rng.random() < 0.2:
            continue
        span = rng.uniform(0.15, 0.5) * width
        centre = along + side * (width / 2 + 0.1 - span / 2)
        if not span / 2 < centre < run.length - span / 2:
            continue
        x, y = run.point(centre, 0.1)
        box = scene.clip(footprint(x, y, span, 0.14, run.yaw, bottom, top))
        if any(box.overlaps(other) and other.z1 < z + height * 0.9 for other in scene.occupied):
            continue
        r = rng.uniform(0.025, 0.05)
        folds = max(2, round(span / (1.5 * r)))
        curtain = []
        for k in range(folds):
            fx = (k + 0.5) / folds * span - span / 2
            half = (r, r, (top - bottom) / 2)
            at = (fx, rng.uniform(-0.02, 0.02), (top - bottom) / 2)
            fold = Primitive("cylinder", half, at, 0.0, rgb, "textile")
            curtain.append(fold.moved(x, y, bottom, run.yaw))
        scene.add(curtain)
        scene.occupied.append(box)
