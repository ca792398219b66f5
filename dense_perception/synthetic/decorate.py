"""What hangs: pictures, boards, wall shelves and fixtures on the walls, lamps and beams above."""

from __future__ import annotations

import numpy as np

from dense_perception.synthetic import clutter, textures
from dense_perception.synthetic.bank import TextureBank
from dense_perception.synthetic.scene import Item, Primitive, Scene, footprint
from dense_perception.synthetic.stock import Stock, draw_seed


def on_walls(rng: np.random.Generator, scene: Scene, stock: Stock) -> None:
    """Pictures, boards, shelves with books, sockets, upper cabinets, screens."""
    for run in scene.runs:
        for _ in range(int(rng.poisson(min(run.length, 6) * 0.6))):
            kind = rng.random()
            if kind < 0.45:
                item, z = picture(rng, stock.bank), rng.uniform(0.9, 1.7)
            elif kind < 0.52:
                item, z = board(rng), rng.uniform(0.8, 1.2)
            elif kind < 0.66:
                item, z = wall_shelf(rng, stock.bank), rng.uniform(1.1, 1.8)
            else:
                model = stock.pick(rng, scene, "wall")
                if model is None:
                    continue
                item, z = Item.of(model), model.elevation_m
            width, depth, height = item.size
            if width > run.length - 0.1 or z + height > scene.size[2] - 0.02:
                continue
            along = rng.uniform(width / 2 + 0.03, run.length - width / 2 - 0.03)
            x, y = run.point(along, depth / 2 + 0.003)
            if scene.fits(footprint(x, y, width, depth, run.yaw, z, z + height)):
                scene.put(item, x, y, z, run.yaw, draw_seed(rng))


def picture(rng: np.random.Generator, bank: TextureBank) -> Item:
    """A painting, photograph or poster in a frame."""
    image = bank.pick("picture", rng) if rng.random() < 0.2 else textures.poster(rng)
    w = rng.uniform(0.15, 0.8)
    h = w * rng.uniform(0.6, 1.6)
    edge = rng.uniform(0.0, 0.04)
    frame = (w / 2 + edge, 0.01, h / 2 + edge)
    parts = (
        Primitive("box", frame, (0, 0, h / 2 + edge), 0, _colour(rng), "picture"),
        Primitive(
            "box",
            (w / 2, 0.003, h / 2),
            (0, 0.01, h / 2 + edge),
            0,
            (1, 1, 1),
            "picture",
            textures.to_uint8(image),
        ),
    )
    return Item((w + 2 * edge, 0.03, h + 2 * edge), made=parts)


def board(rng: np.random.Generator) -> Item:
    """A whiteboard or pin board with sheets on it."""
    w, h = rng.uniform(0.8, 2.4), rng.uniform(0.6, 1.2)
    white = rng.random() < 0.6
    rgb = textures.hsv(0.1, 0.0, 0.93) if white else textures.hsv(0.08, 0.45, 0.6)
    edge = (0.7, 0.7, 0.72) if white else (0.5, 0.38, 0.25)
    inner = (w / 2 - 0.02, 0.004, h / 2 - 0.02)
    parts = [
        Primitive("box", (w / 2, 0.012, h / 2), (0, 0, h / 2), 0.0, edge, "picture"),
        Primitive("box", inner, (0, 0.012, h / 2), 0.0, _rgb(rgb), "picture"),
    ]
    for _ in range(int(rng.integers(0, 7))):
        image = textures.to_uint8(textures.poster(rng, 64))
        at = (rng.uniform(-0.4, 0.4) * w, 0.017, h / 2 + rng.uniform(-0.3, 0.3) * h)
        parts.append(Primitive("box", (0.1, 0.002, 0.14), at, 0, (1, 1, 1), "picture", image))
    return Item((w, 0.04, h), made=tuple(parts))


def wall_shelf(rng: np.random.Generator, bank: TextureBank) -> Item:
    """A board on the wall with a row of books."""
    w = rng.uniform(0.4, 1.2)
    row = clutter.books(rng, bank, w * rng.uniform(0.3, 0.9), 0.3)
    plank = Primitive("box", (w / 2, 0.12, 0.012), (0, 0, 0.012), 0.0, _colour(rng), "shelf")
    parts = [plank, *(part.moved(0, 0, 0.024, 0) for part in row.made)]
    return Item((w, 0.26, 0.36), made=tuple(parts))


def on_ceiling(rng: np.random.Generator, scene: Scene, stock: Stock) -> None:
    """Light panels or hanging lamps, sometimes beams and ducts."""
    x_m, y_m, z_m = scene.size
    if rng.random() < 0.55:
        _light_panels(rng, scene)
    else:
        for _ in range(int(rng.integers(1, 4))):
            model = stock.pick(rng, scene, "ceiling", lambda m: m.size_m[2] < z_m - 1.7)
            if model is None:
                break
            x, y = rng.uniform(0.3, x_m - 0.3), rng.uniform(0.3, y_m - 0.3)
            width, depth, height = model.size_m
            if scene.fits(footprint(x, y, width, depth, 0.0, z_m - height, z_m)):
                scene.put(Item.of(model), x, y, z_m - height, 0.0, draw_seed(rng))
    if rng.random() < 0.2:
        rgb = _rgb(textures.wall_colour(rng))
        for _ in range(int(rng.integers(1, 4))):
            r, y = rng.uniform(0.04, 0.18), rng.uniform(0.2, y_m - 0.2)
            half, at = (x_m / 2, r, r), (x_m / 2, y, z_m - r)
            scene.primitives.append(Primitive("box", half, at, 0.0, rgb, "ceiling"))


def _light_panels(rng: np.random.Generator, scene: Scene) -> None:
    x_m, y_m, z_m = scene.size
    nx, ny = max(1, round(x_m / 2.4)), max(1, round(y_m / 2.4))
    w, d = [(0.3, 0.3), (0.6, 0.15), (0.15, 0.6), (0.08, 0.08)][int(rng.integers(4))]
    glow = 0.9 if rng.random() < 0.75 else 0.1
    for i in range(nx):
        for j in range(ny):
            at = ((i + 0.5) * x_m / nx, (j + 0.5) * y_m / ny, z_m - 0.01)
            panel = Primitive("box", (w, d, 0.015), at, 0, (1, 1, 0.97), "lamp", emission=glow)
            scene.add([panel])


def _rgb(colour: np.ndarray) -> tuple[float, float, float]:
    return float(colour[0]), float(colour[1]), float(colour[2])


def _colour(rng: np.random.Generator) -> tuple[float, float, float]:
    return _rgb(textures.object_colour(rng))
