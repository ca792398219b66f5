"""Fills a room: furniture along the walls, tables with chairs, things on tops and on the floor."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dense_perception.synthetic import clutter, decorate, litter, shell, textures
from dense_perception.synthetic.scene import Box, Item, Primitive, Scene, footprint
from dense_perception.synthetic.shell import THEMES
from dense_perception.synthetic.stock import Stock, draw_seed


def along_walls(rng: np.random.Generator, scene: Scene, stock: Stock) -> None:
    """Cupboards, shelves, beds, sofas ... with their backs to the walls."""
    weights = THEMES[scene.theme].along_wall
    labels = list(weights)
    odds = np.array([weights[label] for label in labels], np.float64)
    fill = rng.uniform(0.45, 1.0)
    line_up = scene.theme in ("kitchen", "storage") or rng.random() < 0.25
    for run in scene.runs:
        along = rng.uniform(0.0, 0.5)
        while along < run.length - 0.3:
            if rng.random() > fill:
                along += rng.uniform(0.3, 1.2)
                continue
            label = labels[int(rng.choice(len(labels), p=odds / odds.sum()))]
            gap = 0.0 if line_up else rng.uniform(0.0, 0.12)
            item = _wall_item(rng, scene, stock, label)
            if item is None:
                along += 0.4
                continue
            width, depth, height = item.size
            x, y = run.point(along + width / 2, depth / 2 + 0.01 + gap * 0.5)
            box = footprint(x, y, width, depth, run.yaw, 0.0, height)
            if along + width > run.length or not scene.fits(box):
                along += 0.3
                continue
            scene.put(item, x, y, 0.0, run.yaw, draw_seed(rng))
            on_surface(rng, scene, stock, item, x, y, run.yaw)
            along += width + gap + (0.0 if line_up else rng.uniform(0, 0.8))


def _wall_item(rng: np.random.Generator, scene: Scene, stock: Stock, label: str) -> Item | None:
    if label == "shelf" and rng.random() < 0.6:
        return clutter.shelving(rng, stock.bank)
    model = stock.pick(rng, scene, "along_wall", lambda m: m.label == label)
    return Item.of(model, rng.uniform(0.92, 1.08)) if model else None


def tables(rng: np.random.Generator, scene: Scene, stock: Stock) -> None:
    """Tables and desks, at a wall or free, with things on them and chairs around."""
    theme = THEMES[scene.theme]
    for _ in range(int(rng.integers(theme.tables[0], theme.tables[1] + 1))):
        if rng.random() < theme.desk_share:
            item = clutter.desk(rng, stock.bank)
        else:
            model = stock.pick(rng, scene, "table")
            if model is None:
                continue
            item = Item.of(model)
        at_wall = rng.random() < (0.6 if scene.theme in ("office", "bedroom") else 0.25)
        spot = _table_spot(rng, scene, item, at_wall)
        if spot is None:
            continue
        x, y, yaw = spot
        box = scene.put(item, x, y, 0.0, yaw, draw_seed(rng))
        on_surface(rng, scene, stock, item, x, y, yaw)
        if item.size[2] > 0.4:
            _seats(rng, scene, stock, (x, y, yaw), item, box, 3 if at_wall else 7)


def _table_spot(
    rng: np.random.Generator, scene: Scene, item: Item, at_wall: bool
) -> tuple[float, float, float] | None:
    width, depth, height = item.size
    for _ in range(14):
        if at_wall:
            run = scene.runs[int(rng.integers(len(scene.runs)))]
            if run.length < width:
                continue
            x, y = run.point(width / 2 + rng.uniform(0, run.length - width), depth / 2 + 0.02)
            yaw = run.yaw
        else:
            x = rng.uniform(0.4, max(0.5, scene.size[0] - 0.4))
            y = rng.uniform(0.4, max(0.5, scene.size[1] - 0.4))
            yaw = float(rng.choice([0, 1, 2, 3])) * math.pi / 2
            if rng.random() < 0.3:
                yaw = rng.uniform(0, 2 * math.pi)
        if scene.fits(footprint(x, y, width, depth, yaw, 0.0, height)):
            return x, y, yaw
    return None


def _seats(
    rng: np.random.Generator,
    scene: Scene,
    stock: Stock,
    spot: tuple[float, float, float],
    table: Item,
    table_box: Box,
    most: int,
) -> None:
    """Chairs around a table, facing it, some pushed under, some pulled away."""
    x, y, yaw = spot
    chair = stock.pick(rng, scene, "seat")
    same, seed = rng.random() < 0.7, draw_seed(rng)
    for _ in range(int(rng.integers(1, most))):
        if not same:
            chair, seed = stock.pick(rng, scene, "seat"), draw_seed(rng)
        if chair is None:
            return
        item = Item.of(chair)
        side = int(rng.choice([0, 1, 2, 3], p=[0.4, 0.3, 0.15, 0.15]))
        reach = chair.size_m[1] / 2 + rng.uniform(-0.25, 0.5)
        if side < 2:
            dx = rng.uniform(-0.4, 0.4) * table.size[0]
            dy = (table.size[1] / 2 + reach) * (1 if side == 0 else -1)
            turn = math.pi if side == 0 else 0.0
        else:
            dx = (table.size[0] / 2 + reach) * (1 if side == 2 else -1)
            dy = rng.uniform(-0.3, 0.3) * table.size[1]
            turn = math.pi / 2 if side == 2 else -math.pi / 2
        c, s = math.cos(yaw), math.sin(yaw)
        px, py = x + c * dx - s * dy, y + s * dx + c * dy
        chair_yaw = yaw + turn + rng.normal(0, 0.35)
        width, depth, height = item.size
        box = footprint(px, py, width * 0.9, depth * 0.9, chair_yaw, 0.0, height)
        if scene.fits(box, ignore=table_box):
            scene.put(item, px, py, 0.0, chair_yaw, seed, shrink=0.9)


def on_surface(
    rng: np.random.Generator,
    scene: Scene,
    stock: Stock,
    item: Item,
    x: float,
    y: float,
    yaw: float,
) -> None:
    """Small things on a top; they may not overlap each other."""
    if item.surface_m is None:
        return
    width, depth, _ = item.size
    low, high = THEMES[scene.theme].surface_items
    taken: list[Box] = []
    c, s = math.cos(yaw), math.sin(yaw)
    for _ in range(int(rng.integers(low, high + 1))):
        if rng.random() < 0.5:
            model = stock.pick(rng, scene, "small", lambda m: m.label != "animal")
            if model is None:
                continue
            thing = Item.of(model)
        else:
            thing = litter.pick(rng, litter.ON_SURFACE)(rng, stock.bank)
        w, d, h = thing.size
        if w > width or d > depth or item.surface_m + h > scene.size[2]:
            continue
        for _ in range(4):
            dx = rng.uniform(-1, 1) * (width - w) / 2 * 0.97
            dy = rng.uniform(-1, 1) * (depth - d) / 2 * 0.97
            turn = rng.normal(0, 0.3) if rng.random() < 0.7 else rng.uniform(0, 2 * math.pi)
            box = footprint(dx, dy, w, d, turn, 0, 1)
            if not any(box.overlaps(other) for other in taken):
                taken.append(box)
                px, py = x + c * dx - s * dy, y + s * dx + c * dy
                scene.put(thing, px, py, item.surface_m, yaw + turn, draw_seed(rng))
                break


def on_floor(rng: np.random.Generator, scene: Scene, stock: Stock) -> None:
    """A rug, boxes, bags, bins, lamps, plants, loose chairs, sometimes people."""
    if rng.random() < 0.3:
        _rug(rng, scene, stock)
    people = rng.random() < 0.15
    low, high = THEMES[scene.theme].floor_items
    for _ in range(int(rng.integers(low, high + 1))):
        if rng.random() < 0.4:
            item = litter.pick(rng, litter.ON_FLOOR)(rng, stock.bank)
        else:
            placement = str(rng.choice(["free", "free", "seat", "small"]))
            model = stock.pick(rng, scene, placement, lambda m: people or m.label != "person")
            if model is None:
                continue
            item = Item.of(model)
        width, depth, height = item.size
        for _ in range(8):
            x, y = rng.uniform(0, scene.size[0]), rng.uniform(0, scene.size[1])
            if rng.random() < 0.5:  # against a wall or in a corner
                if rng.random() < 0.5:
                    x = float(rng.choice([width / 2, scene.size[0] - width / 2]))
                else:
                    y = float(rng.choice([depth / 2, scene.size[1] - depth / 2]))
            yaw = rng.uniform(0, 2 * math.pi)
            if rng.random() < 0.4:
                yaw = float(rng.integers(4)) * math.pi / 2
            if scene.fits(footprint(x, y, width, depth, yaw, 0.0, height)):
                scene.put(item, x, y, 0.0, yaw, draw_seed(rng))
                break


def _rug(rng: np.random.Generator, scene: Scene, stock: Stock) -> None:
    w, d = rng.uniform(0.8, 2.8), rng.uniform(0.6, 2.0)
    if w > scene.size[0] - 0.2 or d > scene.size[1] - 0.2:
        return
    x = rng.uniform(w / 2, scene.size[0] - w / 2)
    y = rng.uniform(d / 2, scene.size[1] - d / 2)
    if rng.random() < 0.5:
        image = textures.recolour(stock.bank.pick("object", rng), textures.object_colour(rng), 0.8)
    else:
        image = textures.wallpaper(rng, 192, 192, 100)
    texture = textures.to_uint8(image)
    half = (w / 2, d / 2, 0.006)
    scene.add([Primitive("box", half, (x, y, 0.006), 0.0, (1, 1, 1), "rug", texture, specular=0.0)])


def draw_room(rng: np.random.Generator, stock: Stock, kinds: Sequence[str] = ()) -> Scene:
    """A furnished room without light and paint (:func:`.surfaces.finish` adds those).

    :param kinds: names of ``THEMES`` to choose from; empty for all.
    """
    names = list(kinds or THEMES)
    weights = np.array([THEMES[name].weight for name in names])
    name = names[int(rng.choice(len(names), p=weights / weights.sum()))]
    scene = shell.draw_shell(rng, name)
    shell.add_openings(rng, scene, stock)
    along_walls(rng, scene, stock)
    tables(rng, scene, stock)
    on_floor(rng, scene, stock)
    decorate.on_walls(rng, scene, stock)
    decorate.on_ceiling(rng, scene, stock)
    return scene
