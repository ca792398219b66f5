"""Drawn objects out of boxes, cylinders and ellipsoids: what catalogues of furniture lack.

Each stock returns an :class:`Item` of primitives; sizes are in metres.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dense_perception.synthetic import textures
from dense_perception.synthetic.bank import TextureBank
from dense_perception.synthetic.scene import Item, Primitive

Rgb = tuple[float, float, float]
Maker = Callable[[np.random.Generator, TextureBank], Item]


def _rgb(colour: np.ndarray) -> Rgb:
    return float(colour[0]), float(colour[1]), float(colour[2])


def _box(
    half: tuple[float, float, float],
    at: tuple[float, float, float],
    rgb: Rgb,
    label: str,
    texture_hwc: np.ndarray | None = None,
    emission: float = 0.0,
    yaw: float = 0.0,
    shape: str = "box",
) -> Primitive:
    return Primitive(shape, half, at, yaw, rgb, label, texture_hwc, emission)


def books(rng: np.random.Generator, bank: TextureBank, width: float, room_m: float) -> Item:
    """A row of upright books or binders filling up to ``width``, at most ``room_m`` high."""
    parts = []
    x = 0.0
    base = rng.uniform(0.5, 0.95) * room_m
    same = rng.random() < 0.4
    thick = rng.uniform(0.02, 0.07)
    colour = textures.object_colour(rng)
    while x < width:
        w = thick if same else rng.uniform(0.012, 0.06)
        h = base if same else min(room_m * 0.97, base * rng.uniform(0.75, 1.1))
        d = rng.uniform(0.14, 0.24)
        if not same:
            colour = textures.object_colour(rng)
        parts.append(
            _box(
                (w / 2 * 0.96, d / 2, h / 2),
                (x + w / 2 - width / 2, rng.uniform(-0.03, 0.03), h / 2),
                _rgb(colour),
                "small_object",
            )
        )
        x += w
    return Item((width, 0.25, room_m), made=tuple(parts))


def shelving(rng: np.random.Generator, bank: TextureBank) -> Item:
    """An open shelf with boards, filled with books, boxes and vases."""
    w, d = rng.uniform(0.5, 1.6), rng.uniform(0.25, 0.45)
    h = rng.choice([rng.uniform(0.7, 1.2), rng.uniform(1.5, 2.2)])
    rgb = _rgb(textures.object_colour(rng))
    texture = None
    if rng.random() < 0.5:
        texture = textures.to_uint8(bank.pick("object", rng))
        rgb = (1.0, 1.0, 1.0)
    t = rng.uniform(0.008, 0.02)
    parts = []
    for side in (-1, 1):
        parts.append(_box((t, d / 2, h / 2), (side * (w / 2 - t), 0, h / 2), rgb, "shelf", texture))
    if rng.random() < 0.7:
        parts.append(_box((w / 2, 0.005, h / 2), (0, -d / 2 + 0.006, h / 2), rgb, "shelf", texture))
    count = int(rng.integers(2, 6)) + 1
    fill = rng.uniform(0.3, 1.0)
    for k in range(count + 1):
        z = t + (h - 2 * t) * k / count
        parts.append(_box((w / 2, d / 2, t), (0, 0, z), rgb, "shelf", texture))
        room = (h - 2 * t) / count - 2 * t
        if k == count or room < 0.08:
            continue
        x = -w / 2 + 0.05
        while x < w / 2 - 0.12:
            span = rng.uniform(0.1, 0.45)
            span = min(span, w / 2 - 0.05 - x)
            if rng.random() < fill and span > 0.06:
                if rng.random() < 0.55:
                    row = books(rng, bank, span, min(room, 0.34))
                else:
                    row = thing(rng, bank, min(span, 0.35), min(room * 0.95, 0.4), d * 0.9)
                parts += [p.moved(x + span / 2, 0, z + t, 0.0) for p in row.made]
            x += span + rng.uniform(0.0, 0.06)
    return Item((w, d, h), made=tuple(parts), surface_m=h if h < 1.3 else None)


def thing(
    rng: np.random.Generator, bank: TextureBank, width: float, height: float, depth: float
) -> Item:
    """One simple object within the given bounds."""
    kind = rng.random()
    w = width * rng.uniform(0.4, 0.95)
    h = height * rng.uniform(0.3, 1.0)
    d = min(depth, w * rng.uniform(0.5, 1.5))
    rgb = _rgb(textures.object_colour(rng))
    if kind < 0.45:
        texture = None
        if rng.random() < 0.5:
            texture = textures.to_uint8(bank.pick("object", rng))
            rgb = (1.0, 1.0, 1.0)
        part = _box((w / 2, d / 2, h / 2), (0, 0, h / 2), rgb, "box", texture)
        return Item((w, d, h), made=(part,))
    r = min(w, d) / 2
    if kind < 0.75:
        part = _box((r, r, h / 2), (0, 0, h / 2), rgb, "small_object", shape="cylinder")
        return Item((2 * r, 2 * r, h), made=(part,))
    part = _box((w / 2, d / 2, h / 2), (0, 0, h / 2), rgb, "small_object", shape="ellipsoid")
    return Item((w, d, h), made=(part,))


def carton(rng: np.random.Generator, bank: TextureBank) -> Item:
    """A box on the floor, often of cardboard, sometimes two or three stacked."""
    parts: list[Primitive] = []
    z = 0.0
    w, d = rng.uniform(0.2, 0.6), rng.uniform(0.2, 0.5)
    for _ in range(int(rng.integers(1, 4))):
        h = rng.uniform(0.12, 0.45)
        if rng.random() < 0.6:
            image = textures.recolour(
                bank.pick("object", rng), textures.hsv(0.09, rng.uniform(0.2, 0.5), 0.65), 0.6
            )
            part = _box(
                (w / 2, d / 2, h / 2), (0, 0, z + h / 2), (1, 1, 1), "box", textures.to_uint8(image)
            )
        else:
            rgb = _rgb(textures.object_colour(rng))
            part = _box((w / 2, d / 2, h / 2), (0, 0, z + h / 2), rgb, "box")
        parts.append(part)
        z += h
        w, d = w * rng.uniform(0.7, 1.0), d * rng.uniform(0.7, 1.0)
        if z > 1.1:
            break
    first = parts[0]
    return Item((2 * first.half[0], 2 * first.half[1], z), made=tuple(parts))


def desk(rng: np.random.Generator, bank: TextureBank) -> Item:
    """A plain table or desk: a top on four legs or two panels, sometimes with drawers."""
    w, d, h = rng.uniform(0.9, 1.9), rng.uniform(0.55, 0.9), rng.uniform(0.68, 0.78)
    rgb = _rgb(textures.object_colour(rng))
    leg = _rgb(textures.object_colour(rng))
    texture = None
    if rng.random() < 0.6:
        texture = textures.to_uint8(bank.pick("object", rng))
        rgb = (1.0, 1.0, 1.0)
    t = rng.uniform(0.01, 0.025)
    parts = [_box((w / 2, d / 2, t), (0, 0, h - t), rgb, "table", texture)]
    r = rng.uniform(0.012, 0.035)
    zl = h / 2 - t
    for sx in (-1, 1):
        if rng.random() < 0.3:
            parts.append(_box((0.012, d / 2 * 0.95, zl), (sx * w / 2 * 0.95, 0, zl), leg, "table"))
            continue
        for sy in (-1, 1):
            at = (sx * (w / 2 - 2 * r), sy * (d / 2 - 2 * r), zl)
            shape = "cylinder" if r > 0.02 else "box"
            parts.append(_box((r, r, zl), at, leg, "table", shape=shape))
    if rng.random() < 0.4:
        at = (rng.choice([-1, 1]) * (w / 2 - 0.24), 0.0, 0.3)
        parts.append(_box((0.2, d / 2 * 0.85, 0.27), at, leg, "cabinet"))
    if rng.random() < 0.3:
        parts.append(_box((w / 2 * 0.95, 0.01, zl * 0.5), (0, -d / 2 * 0.9, h * 0.7), leg, "table"))
    return Item((w, d, h), made=tuple(parts), surface_m=h)


def monitor(rng: np.random.Generator, bank: TextureBank) -> Item:
    """A flat screen on a stand; on or off."""
    w = rng.uniform(0.4, 0.7)
    h = w * rng.uniform(0.5, 0.65)
    lift = rng.uniform(0.06, 0.2)
    case = _rgb(textures.hsv(0, 0, float(rng.choice([0.06, 0.1, 0.5, 0.85]))))
    on = rng.random() < 0.5
    image = textures.poster(rng) if on else np.full((8, 8, 3), 0.05, np.float32)
    parts = [
        _box((w / 2, 0.018, h / 2), (0, 0, lift + h / 2), case, "screen"),
        _box(
            (w / 2 * 0.95, 0.002, h / 2 * 0.92),
            (0, 0.02, lift + h / 2),
            (1, 1, 1),
            "screen",
            textures.to_uint8(image),
            0.5 if on else 0.0,
        ),
        _box((0.025, 0.02, lift / 2 + 0.03), (0, -0.03, lift / 2 + 0.03), case, "screen"),
        _box((w * 0.22, 0.09, 0.006), (0, -0.02, 0.006), case, "screen"),
    ]
    return Item((w, 0.2, lift + h), made=tuple(parts))


def keyboard(rng: np.random.Generator, bank: TextureBank) -> Item:
    """A keyboard and a mouse."""
    rgb = _rgb(textures.hsv(0, 0, float(rng.choice([0.08, 0.2, 0.85]))))
    image = np.repeat(np.repeat(rng.uniform(0.6, 1.0, (5, 14, 1)), 6, 0), 6, 1) * np.array(rgb)
    image[::6] *= 0.5
    image[:, ::6] *= 0.5
    parts = [
        _box((0.22, 0.07, 0.01), (0, 0, 0.01), (1, 1, 1), "small_object", textures.to_uint8(image)),
        _box((0.03, 0.05, 0.016), (0.29, 0.0, 0.012), rgb, "small_object", shape="ellipsoid"),
    ]
    return Item((0.66, 0.16, 0.03), made=tuple(parts))


def papers(rng: np.random.Generator, bank: TextureBank) -> Item:
    """A few sheets, a pile of paper, or flat books."""
    parts = []
    z = 0.0
    for _ in range(int(rng.integers(1, 5))):
        h = rng.choice([0.002, 0.004, rng.uniform(0.01, 0.04)])
        w, d = rng.uniform(0.12, 0.22), rng.uniform(0.16, 0.3)
        if rng.random() < 0.5:
            part = _box(
                (w / 2, d / 2, h / 2),
                (rng.normal(0, 0.02), rng.normal(0, 0.02), z + h / 2),
                (1, 1, 1),
                "small_object",
                textures.to_uint8(textures.poster(rng, 64)),
                yaw=rng.normal(0, 0.3),
            )
        else:
            rgb = _rgb(textures.object_colour(rng))
            part = _box((w / 2, d / 2, h / 2), (0, 0, z + h / 2), rgb, "small_object")
        parts.append(part)
        z += h
    return Item((0.25, 0.32, z), made=tuple(parts))


def cup(rng: np.random.Generator, bank: TextureBank) -> Item:
    """A cup, can or bottle."""
    r, h = rng.uniform(0.025, 0.05), rng.uniform(0.06, 0.28)
    rgb = _rgb(textures.object_colour(rng))
    parts = [_box((r, r, h / 2), (0, 0, h / 2), rgb, "small_object", shape="cylinder")]
    if h > 0.18:
        parts.append(
            _box((r * 0.4, r * 0.4, 0.03), (0, 0, h + 0.03), rgb, "small_object", shape="cylinder")
        )
        h += 0.06
    return Item((2 * r, 2 * r, h), made=tuple(parts))


def partition(rng: np.random.Generator, bank: TextureBank) -> Item:
    """An office screen or room divider."""
    w, h = rng.uniform(0.8, 2.0), rng.uniform(1.1, 1.8)
    image = textures.carpet(rng, 128, 128, 100)
    part = _box(
        (w / 2, 0.025, h / 2), (0, 0, h / 2), (1, 1, 1), "other_furniture", textures.to_uint8(image)
    )
    return Item((w, 0.06, h), made=(part,))


def bag(rng: np.random.Generator, bank: TextureBank) -> Item:
    """A soft lump: bag, cushion, heap of cloth."""
    w, d, h = rng.uniform(0.2, 0.6), rng.uniform(0.15, 0.5), rng.uniform(0.12, 0.45)
    rgb = _rgb(textures.object_colour(rng))
    part = _box((w / 2, d / 2, h / 2), (0, 0, h / 2 * 0.9), rgb, "textile", shape="ellipsoid")
    return Item((w, d, h), made=(part,))


def bin_(rng: np.random.Generator, bank: TextureBank) -> Item:
    """A waste bin or bucket."""
    r, h = rng.uniform(0.1, 0.2), rng.uniform(0.25, 0.6)
    rgb = _rgb(textures.object_colour(rng))
    part = _box((r, r, h / 2), (0, 0, h / 2), rgb, "box", shape="cylinder")
    return Item((2 * r, 2 * r, h), made=(part,))
