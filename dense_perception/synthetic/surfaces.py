"""Paints walls, floor and ceiling: material, window views, skirting, baked soft light and contact
shadows; and hangs the lamps.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from dense_perception.synthetic import textures
from dense_perception.synthetic.bank import TextureBank
from dense_perception.synthetic.scene import (
    Box,
    Light,
    Primitive,
    Scene,
    Surface,
    WallRun,
)

PIXELS_PER_M = 96.0
MAX_SIDE = 1024
BAKE_PER_M = 10.0


def finish(rng: np.random.Generator, scene: Scene, bank: TextureBank) -> None:
    """Give a furnished room its lamps and its painted shell."""
    glow = _lamps(rng, scene)
    paint_wall = _wall_material(rng, bank)
    x_m, y_m, z_m = scene.size
    shell: list[tuple[np.ndarray, np.ndarray, np.ndarray, str, int]] = [
        (_v(0, 0, 0), _v(x_m, 0, 0), _v(0, y_m, 0), "floor", -1),
        (_v(0, y_m, z_m), _v(x_m, 0, 0), _v(0, -y_m, 0), "ceiling", -1),
    ]
    for index, run in enumerate(scene.runs):
        origin, edge_u, edge_v = wall_rectangle(run, z_m)
        is_column = index >= 4 and run.length < 0.6
        shell.append((origin, edge_u, edge_v, "column" if is_column else "wall", index))
    shades = [
        _bake(scene, origin, edge_u, edge_v, glow, rng) for origin, edge_u, edge_v, _, _ in shell
    ]
    mean = float(np.mean([shade.mean() for shade in shades]))
    accent = rng.random() < 0.35
    for (origin, edge_u, edge_v, label, index), shade in zip(shell, shades, strict=True):
        width_m, height_m = float(np.linalg.norm(edge_u)), float(np.linalg.norm(edge_v))
        scale = min(PIXELS_PER_M, MAX_SIDE / max(width_m, height_m))
        w, h = max(16, round(width_m * scale)), max(16, round(height_m * scale))
        specular = emission = 0.0
        if label == "floor":
            image = _floor_material(rng, bank)(h, w, scale)
            specular = float(rng.choice([0.0, rng.uniform(0, 0.5)]))
        elif label == "ceiling":
            image = _ceiling_material(rng, bank)(h, w, scale)
            emission = rng.uniform(0.05, 0.4)  # lamps point down: only the floor's light gets here
        else:
            if accent and rng.random() < 0.3:
                image = _wall_material(rng, bank)(h, w, scale)
            else:
                image = paint_wall(h, w, scale)
            image = _trim(rng, image.copy(), scale)
        light = cv2.resize(0.82 * shade / mean, (w, h), interpolation=cv2.INTER_LINEAR)
        image = image * light[..., None]
        if index >= 0:
            image = _window_views(rng, scene, index, image, scale)
        texture = textures.to_uint8(image)
        scene.surfaces.append(Surface(origin, edge_u, edge_v, label, texture, specular, emission))


def wall_rectangle(run: WallRun, height_m: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Origin and edges of a wall whose visible side faces the room."""
    start, end = _v(*run.start, 0), _v(*run.end, 0)
    return end, start - end, _v(0, 0, height_m)


def _v(x: float, y: float, z: float) -> np.ndarray:
    return np.array([x, y, z], np.float64)


# ---------------------------------------------------------------- materials


class _Material:
    """A material drawn once and painted on several surfaces."""

    def __init__(self, kind: str, rng: np.random.Generator, bank: TextureBank, role: str) -> None:
        self.kind, self.seed = kind, int(rng.integers(2**31))
        self.photo = bank.pick(role, rng)
        self.colour = textures.wall_colour(rng) if role != "floor" else None
        self.contrast = rng.uniform(0.15, 0.9)
        self.tile_m = rng.uniform(0.6, 2.2)

    def __call__(self, height: int, width: int, px_m: float) -> np.ndarray:
        rng = np.random.default_rng(self.seed)
        if self.kind == "photo":
            image = textures.tile_photo(self.photo, height, width, self.tile_m * px_m, rng)
            if self.colour is not None:
                return textures.recolour(image, self.colour, self.contrast)
            mean = image.mean((0, 1), keepdims=True)
            gray = mean.mean(-1, keepdims=True)
            faded = gray + (mean - gray) * rng.uniform(0.3, 1.1)
            return (image - mean) * self.contrast * 1.1 + faded * rng.uniform(0.6, 1.2)
        return textures.DRAWN[self.kind](rng, height, width, px_m)


def _wall_material(rng: np.random.Generator, bank: TextureBank) -> _Material:
    kinds = ["plaster", "photo", "wallpaper", "tiles"]
    kind = str(rng.choice(kinds, p=[0.47, 0.4, 0.06, 0.07]))
    return _Material(kind, rng, bank, "wall")


def _floor_material(rng: np.random.Generator, bank: TextureBank) -> _Material:
    kinds = ["photo", "planks", "carpet", "tiles"]
    return _Material(str(rng.choice(kinds, p=[0.4, 0.2, 0.25, 0.15])), rng, bank, "floor")


def _ceiling_material(rng: np.random.Generator, bank: TextureBank) -> _Material:
    kinds = ["plaster", "ceiling_panels", "photo"]
    material = _Material(str(rng.choice(kinds, p=[0.5, 0.3, 0.2])), rng, bank, "ceiling")
    if rng.random() < 0.8:
        material.colour = textures.hsv(0.12, rng.uniform(0, 0.06), rng.uniform(0.75, 0.98))
    return material


def _trim(rng: np.random.Generator, image: np.ndarray, px_m: float) -> np.ndarray:
    """Skirting board, sometimes a dado or a coloured lower half."""
    if rng.random() < 0.7:
        rows = max(1, round(rng.uniform(0.05, 0.14) * px_m))
        colour = (
            textures.object_colour(rng)
            if rng.random() < 0.5
            else np.array([0.9, 0.9, 0.88], np.float32)
        )
        image[:rows] = colour
        image[rows : rows + 1] *= 0.7
    if rng.random() < 0.1:
        rows = round(rng.uniform(0.8, 1.3) * px_m)
        image[:rows] = image[:rows] * textures.hsv(rng.random(), rng.uniform(0, 0.3), 0.85)
    return image


def _window_views(
    rng: np.random.Generator, scene: Scene, index: int, image: np.ndarray, px_m: float
) -> np.ndarray:
    """Put daylight behind each window of a wall, and paint the dark of each doorway on it."""
    run = scene.runs[index]
    for run_index, along0, z0, along1, z1, kind, thing in scene.openings:
        if run_index != index:
            continue
        # the painted rectangle starts at the run's end: columns count backwards
        c0, c1 = (run.length - along1 + 0.04) * px_m, (run.length - along0 - 0.04) * px_m
        r0, r1 = (z0 + 0.03) * px_m, (z1 - 0.03) * px_m
        c0, c1, r0, r1 = (max(0, round(value)) for value in (c0, c1, r0, r1))
        patch = image[r0:r1, c0:c1]
        if not patch.size:
            continue
        if kind == "window":
            pane = (along0 + 0.04, z0 + 0.03, along1 - 0.04, z1 - 0.03)
            _glaze(rng, scene, run, pane, thing)
        else:
            patch[:] = textures.wall_colour(rng) * rng.uniform(0.2, 0.9)
    return image


def _glaze(
    rng: np.random.Generator,
    scene: Scene,
    run: WallRun,
    pane: tuple[float, float, float, float],
    thing: int,
) -> None:
    """Daylight behind a window, brighter than any lit wall, or the dark of the evening."""
    along0, z0, along1, z1 = pane
    half = ((along1 - along0) / 2, 0.001, (z1 - z0) / 2)
    view = textures.outside(rng, max(8, round(half[2] * 80)), max(8, round(half[0] * 80)))
    glow = rng.uniform(0.75, 1.0) if rng.random() < 0.85 else rng.uniform(0.02, 0.15)
    x, y = run.point((along0 + along1) / 2, 0.002)
    at, texture = (x, y, (z0 + z1) / 2), textures.to_uint8(view * glow)
    part = Primitive("box", half, at, run.yaw, (1, 1, 1), "window", texture, emission=1.0)
    scene.add([part], thing)


# ---------------------------------------------------------------- light


def _lamps(rng: np.random.Generator, scene: Scene) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Choose the lamps; returns (position, direction, power) of the soft sources for baking."""
    x_m, y_m, z_m = scene.size
    warmth = rng.normal(0.02, 0.07)
    tint = np.clip(np.array([1 + warmth, 1.0, 1 - warmth]), 0.6, 1.25)
    level = float(np.clip(rng.normal(1.0, 0.22), 0.35, 1.4))
    ambient = rng.uniform(0.3, 0.58) * level
    scene.ambient = _rgb(ambient * np.clip(tint + rng.normal(0, 0.02, 3), 0.5, 1.3))
    glow: list[tuple[np.ndarray, np.ndarray, float]] = []
    windows = [o for o in scene.openings if o.kind == "window"]
    direct = max(0.12, 0.85 * level - ambient)
    for index, along0, z0, along1, z1, *_ in windows[:2]:
        run = scene.runs[index]
        x, y = run.point((along0 + along1) / 2, 0.15)
        position, direction = _v(x, y, (z0 + z1) / 2), _v(*run.normal, -0.15)
        power = rng.uniform(0.3, 2.0)
        glow.append((position, direction, power))
        if rng.random() < 0.7:
            cool = np.clip(tint * np.array([0.92, 0.98, 1.1]), 0.5, 1.3)
            scene.lights.append(
                Light(_t(position), _t(direction), _rgb(cool * direct * 0.45 * power), False)
            )
    count = int(rng.integers(1, 4))
    for k in range(count):
        x, y = rng.uniform(0.2, 0.8) * x_m, rng.uniform(0.2, 0.8) * y_m
        z = z_m - rng.uniform(0.05, 0.5)
        share = rng.uniform(0.4, 1.2) / math.sqrt(count)
        direction = _v(rng.normal(0, 0.15), rng.normal(0, 0.15), -1)
        glow.append((_v(x, y, z), _v(0, 0, -1), rng.uniform(0.4, 1.2)))
        scene.lights.append(
            Light(
                (x, y, z),
                _t(direction),
                _rgb(tint * direct * share),
                k == 0 and rng.random() < 0.65,
            )
        )
    return glow


def _rgb(colour: np.ndarray) -> tuple[float, float, float]:
    return float(colour[0]), float(colour[1]), float(colour[2])


_t = _rgb


def _bake(
    scene: Scene,
    origin: np.ndarray,
    edge_u: np.ndarray,
    edge_v: np.ndarray,
    glow: list[tuple[np.ndarray, np.ndarray, float]],
    rng: np.random.Generator,
) -> np.ndarray:
    """Relative soft light on a surface, about 0.3 to 1.6: lamps, room corners, contact shadows."""
    width_m, height_m = float(np.linalg.norm(edge_u)), float(np.linalg.norm(edge_v))
    w, h = max(4, round(width_m * BAKE_PER_M)), max(4, round(height_m * BAKE_PER_M))
    fu = ((np.arange(w) + 0.5) / w)[None, :, None]
    fv = ((np.arange(h) + 0.5) / h)[:, None, None]
    points = origin + fu * edge_u + fv * edge_v
    normal = np.cross(edge_u, edge_v)
    normal = normal / np.linalg.norm(normal)
    light = np.full((h, w), 0.65, np.float64)
    for position, direction, power in glow:
        to_lamp = position - points
        distance2 = (to_lamp**2).sum(-1)
        ray = to_lamp / np.sqrt(distance2)[..., None]
        facing = np.clip(ray @ normal, 0, 1)
        out = np.clip(-(ray @ (direction / np.linalg.norm(direction))), 0, 1) + 0.25
        light += 0.9 * power * facing * out / (distance2 + 0.6)
    edge, dark = rng.uniform(0.15, 0.6), rng.uniform(0.1, 0.4)  # corners see less of the room
    du = np.minimum(fu[..., 0], 1 - fu[..., 0]) * width_m
    dv = np.minimum(fv[..., 0], 1 - fv[..., 0]) * height_m
    light = light * (1 - dark * np.exp(-du / edge)) * (1 - dark * np.exp(-dv / edge))
    return (light * _contact(scene.occupied, origin, edge_u, edge_v, w, h)).astype(np.float32)


def _contact(
    boxes: list[Box],
    origin: np.ndarray,
    edge_u: np.ndarray,
    edge_v: np.ndarray,
    w: int,
    h: int,
) -> np.ndarray:
    """How much light objects close to the surface leave, 0..1."""
    width_m, height_m = float(np.linalg.norm(edge_u)), float(np.linalg.norm(edge_v))
    u, v = edge_u / width_m, edge_v / height_m
    normal = np.cross(u, v)
    near, far = np.zeros((h, w), np.float32), np.zeros((h, w), np.float32)
    for box in boxes:
        if not box.solid:
            continue
        corners = np.array(
            [
                [x, y, z]
                for x in (box.x0, box.x1)
                for y in (box.y0, box.y1)
                for z in (box.z0, box.z1)
            ]
        )
        gap = float(((corners - origin) @ normal).min())
        if not -0.3 < gap < 0.9:
            continue
        a, b = (corners - origin) @ u, (corners - origin) @ v
        c0, c1 = (np.array([a.min(), a.max()]) / width_m * w).round().astype(int)
        r0, r1 = (np.array([b.min(), b.max()]) / height_m * h).round().astype(int)
        c0, r0 = max(int(c0), 0), max(int(r0), 0)
        if gap < 0.15:
            near[r0 : max(int(r1), 0), c0 : max(int(c1), 0)] = 1
        else:
            region = far[r0 : max(int(r1), 0), c0 : max(int(c1), 0)]
            np.maximum(region, math.exp(-(gap - 0.15) / 0.3), out=region)
    near_soft = np.asarray(cv2.GaussianBlur(near, (0, 0), 0.1 * BAKE_PER_M))
    far_soft = np.asarray(cv2.GaussianBlur(far, (0, 0), 0.3 * BAKE_PER_M))
    return (1 - 0.5 * near_soft) * (1 - 0.4 * far_soft)
