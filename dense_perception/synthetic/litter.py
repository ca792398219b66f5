"""Small and irregular things that real rooms are full of, and how often each lies where.

As :mod:`.clutter`: each stock returns an :class:`Item` of primitives; sizes are in metres.
"""

from __future__ import annotations

import math

import numpy as np

from dense_perception.synthetic import clutter, textures
from dense_perception.synthetic.bank import TextureBank
from dense_perception.synthetic.clutter import Maker
from dense_perception.synthetic.scene import Item, Primitive

LABEL = "small_object"


def cable(rng: np.random.Generator, bank: TextureBank) -> Item:
    """A cable that winds over the surface."""
    reach, swing = rng.uniform(0.3, 1.1), rng.uniform(0.02, 0.15)
    r = rng.uniform(0.002, 0.005)
    rgb = _gray(rng, (0.04, 0.1, 0.85))
    x = np.linspace(-reach / 2, reach / 2, 13)
    y = swing * np.sin(x * rng.uniform(3, 12) + rng.uniform(0, 6)) * 0.8
    parts = []
    for x0, y0, x1, y1 in zip(x, y, x[1:], y[1:], strict=False):
        half = (math.hypot(x1 - x0, y1 - y0) / 2 + r, r, r)
        yaw = math.atan2(y1 - y0, x1 - x0)
        parts.append(Primitive("box", half, ((x0 + x1) / 2, (y0 + y1) / 2, r), yaw, rgb, LABEL))
    return Item((reach, 2 * swing, 2 * r), made=tuple(parts))


def pot_plant(rng: np.random.Generator, bank: TextureBank) -> Item:
    """A bush of leaves in a pot, a hand or a chair high."""
    height = rng.choice([rng.uniform(0.15, 0.4), rng.uniform(0.5, 1.3)])
    radius = height * rng.uniform(0.2, 0.4)
    pot_r, pot_h = radius * rng.uniform(0.4, 0.7), height * rng.uniform(0.15, 0.35)
    pot_rgb = _rgb(textures.object_colour(rng))
    parts = [
        Primitive("cylinder", (pot_r, pot_r, pot_h / 2), (0, 0, pot_h / 2), 0, pot_rgb, "plant")
    ]
    green = rng.uniform(0.2, 0.4), rng.uniform(0.25, 0.65), rng.uniform(0.2, 0.55)
    flat = rng.uniform(0.1, 0.4)
    for _ in range(int(rng.integers(15, 40))):
        leaf = radius * rng.uniform(0.15, 0.4)
        half = (leaf, leaf * rng.uniform(0.2, 0.6), leaf * flat)
        away, bearing = (radius - leaf) * math.sqrt(rng.random()), rng.uniform(-math.pi, math.pi)
        z = rng.uniform(pot_h + half[2], height - half[2])
        at = (away * math.cos(bearing), away * math.sin(bearing), z)
        h, s, v = green
        rgb = _rgb(textures.hsv(h + rng.normal(0, 0.01), s, v * rng.uniform(0.6, 1.3)))
        yaw = bearing + rng.normal(0, 0.5)
        parts.append(Primitive("ellipsoid", half, at, yaw, rgb, "plant"))
    return Item((2 * radius, 2 * radius, height), made=tuple(parts))


def laptop(rng: np.random.Generator, bank: TextureBank) -> Item:
    """An open laptop, its screen upright."""
    w, d = rng.uniform(0.28, 0.38), rng.uniform(0.19, 0.26)
    rgb = _gray(rng, (0.08, 0.25, 0.65, 0.8))
    on = rng.random() < 0.6
    screen = textures.to_uint8(textures.poster(rng)) if on else np.full((8, 8, 3), 14, np.uint8)
    keys = np.kron(rng.uniform(0.05, 0.2, (5, 14, 1)), np.ones((6, 6, 3)))
    keys[::6] = keys[:, ::6] = rgb
    top = d * 0.48
    parts = (
        Primitive("box", (w / 2, d / 2, 0.008), (0, 0, 0.008), 0, rgb, LABEL),
        Primitive(
            "box", (w * 0.45, d * 0.25, 0.0005), (0, -d * 0.15, 0.0165), 0, (1, 1, 1), LABEL,
            textures.to_uint8(keys),
        ),
        Primitive("box", (w / 2, 0.004, top), (0, -d / 2 + 0.004, 0.016 + top), 0, rgb, "screen"),
        Primitive(
            "box", (w * 0.47, 0.001, top * 0.92), (0, -d / 2 + 0.009, 0.016 + top), 0, (1, 1, 1),
            "screen", screen, 0.4 if on else 0.0,
        ),
    )  # fmt: skip
    return Item((w, d, 0.016 + 2 * top), made=parts)


def crockery(rng: np.random.Generator, bank: TextureBank) -> Item:
    """A stack of plates or a bowl, sometimes with a mug on it."""
    r = rng.uniform(0.07, 0.14)
    rgb = _rgb(textures.hsv(textures.hue(rng), rng.uniform(0, 0.3), rng.uniform(0.5, 0.95)))
    parts, z = [], 0.0
    for _ in range(int(rng.integers(1, 6))):
        parts.append(Primitive("cylinder", (r, r, 0.004), (0, 0, z + 0.004), 0, rgb, LABEL))
        z += 0.011
    if rng.random() < 0.5:
        half = (r * 0.4, r * 0.4, rng.uniform(0.03, 0.06))
        parts.append(Primitive("cylinder", half, (0, 0, z + half[2]), 0, rgb, LABEL))
        z += 2 * half[2]
    return Item((2 * r, 2 * r, z), made=tuple(parts))


def heap(rng: np.random.Generator, bank: TextureBank) -> Item:
    """Half a dozen small things close together."""
    w, d = rng.uniform(0.2, 0.5), rng.uniform(0.15, 0.35)
    parts: list[Primitive] = []
    top = 0.0
    for _ in range(int(rng.integers(4, 10))):
        one = clutter.thing(rng, bank, rng.uniform(0.04, 0.14), rng.uniform(0.03, 0.2), 0.12)
        reach = max(one.size[:2]) * 0.75  # it may be turned
        if reach > min(w, d) / 2:
            continue
        x, y = (w / 2 - reach) * rng.uniform(-1, 1), (d / 2 - reach) * rng.uniform(-1, 1)
        parts += [part.moved(x, y, 0.0, rng.uniform(0, math.pi)) for part in one.made]
        top = max(top, one.size[2])
    return Item((w, d, max(top, 0.01)), made=tuple(parts))


def shoes(rng: np.random.Generator, bank: TextureBank) -> Item:
    """A pair of shoes."""
    rgb = _rgb(textures.object_colour(rng))
    parts = []
    for side in (-1, 1):
        yaw = rng.normal(0, 0.2)
        sole = Primitive(
            "box", (0.045, 0.13, 0.012), (0, 0, 0.012), 0, _gray(rng, (0.1, 0.9)), LABEL
        )
        body = Primitive("ellipsoid", (0.045, 0.13, 0.05), (0, 0, 0.06), 0, rgb, LABEL)
        parts += [part.moved(side * 0.08, 0, 0, yaw) for part in (sole, body)]
    return Item((0.32, 0.34, 0.11), made=tuple(parts))


def _rgb(colour: np.ndarray) -> clutter.Rgb:
    return float(colour[0]), float(colour[1]), float(colour[2])


def _gray(rng: np.random.Generator, levels: tuple[float, ...]) -> clutter.Rgb:
    level = float(rng.choice(levels))
    return level, level, level


ON_SURFACE: tuple[tuple[float, Maker], ...] = (
    (0.18, clutter.papers),
    (0.17, clutter.cup),
    (0.1, clutter.monitor),
    (0.08, clutter.keyboard),
    (0.08, lambda rng, bank: clutter.books(rng, bank, float(rng.uniform(0.08, 0.4)), 0.3)),
    (0.12, lambda rng, bank: clutter.thing(rng, bank, 0.3, 0.3, 0.3)),
    (0.07, laptop),
    (0.06, cable),
    (0.05, pot_plant),
    (0.05, crockery),
    (0.08, heap),
)
"""(weight, stock) of the drawn objects that lie on tables."""

ON_FLOOR: tuple[tuple[float, Maker], ...] = (
    (0.3, clutter.carton),
    (0.14, clutter.bag),
    (0.14, clutter.bin_),
    (0.12, lambda rng, bank: clutter.thing(rng, bank, 0.4, 0.4, 0.4)),
    (0.06, clutter.partition),
    (0.1, pot_plant),
    (0.07, cable),
    (0.07, shoes),
)
"""(weight, stock) of the drawn objects that stand or lie on the floor."""


def pick(rng: np.random.Generator, table: tuple[tuple[float, Maker], ...]) -> Maker:
    """One stock of a weighted table."""
    weights = np.array([weight for weight, _ in table])
    return table[int(rng.choice(len(table), p=weights / weights.sum()))][1]
