"""Drawn surfaces and colours. Images are float32 HxWx3 in 0..1, albedo without light."""

from __future__ import annotations

import cv2
import numpy as np

from dense_perception.imaging.resize import resample


def to_uint8(image: np.ndarray) -> np.ndarray:
    """0..1 float to uint8, clipped."""
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


# ---------------------------------------------------------------- colours


def hsv(h: float, s: float, v: float) -> np.ndarray:
    """RGB float32 (3,) of hue, saturation, value in 0..1."""
    k = (np.array([5.0, 3.0, 1.0]) + h * 6) % 6
    return (v - v * s * np.clip(np.minimum(k, 4 - k), 0, 1)).astype(np.float32)


def hue(rng: np.random.Generator) -> float:
    """A hue as indoor things have it: warm, sometimes blue or green, seldom violet."""
    kind = rng.random()
    if kind < 0.55:
        return float(rng.normal(0.085, 0.035) % 1)
    if kind < 0.8:
        return float(rng.normal(0.6, 0.04))
    if kind < 0.92:
        return float(rng.normal(0.33, 0.08))
    return float(rng.random())


def wall_colour(rng: np.random.Generator) -> np.ndarray:
    """Mostly off-white, some pastel, few strong."""
    kind = rng.random()
    if kind < 0.66:
        return hsv(rng.uniform(0.05, 0.18), rng.uniform(0, 0.12), rng.uniform(0.68, 0.97))
    if kind < 0.8:
        return hsv(hue(rng), rng.uniform(0, 0.05), rng.uniform(0.3, 0.75))
    if kind < 0.96:
        return hsv(hue(rng), rng.uniform(0.06, 0.25), rng.uniform(0.5, 0.92))
    return hsv(hue(rng), rng.uniform(0.25, 0.5), rng.uniform(0.3, 0.8))


def object_colour(rng: np.random.Generator) -> np.ndarray:
    """White, gray, black, wood and muted colours; strong ones are rare."""
    kind = rng.random()
    if kind < 0.48:
        return hsv(hue(rng), rng.uniform(0, 0.08), rng.beta(0.9, 1.0) * 0.92 + 0.03)
    if kind < 0.74:
        return hsv(rng.uniform(0.04, 0.12), rng.uniform(0.2, 0.6), rng.uniform(0.15, 0.85))
    if kind < 0.95:
        return hsv(hue(rng), rng.uniform(0.1, 0.4), rng.uniform(0.15, 0.8))
    return hsv(hue(rng), rng.uniform(0.5, 0.9), rng.uniform(0.3, 0.85))


def recolour(image: np.ndarray, colour: np.ndarray, contrast: float) -> np.ndarray:
    """``image`` with the given mean colour and its own structure scaled by ``contrast``."""
    gray = image.mean(-1, keepdims=True)
    structure = 1 + (gray / max(float(gray.mean()), 0.05) - 1) * contrast
    return np.clip(structure * colour, 0, 1).astype(np.float32)


# ---------------------------------------------------------------- procedural


def noise(
    rng: np.random.Generator, height: int, width: int, cells: float, octaves: int = 3
) -> np.ndarray:
    """Smooth noise, zero mean and about unit deviation, HxW; ``cells`` pixels per feature."""
    out = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        step = max(1.0, cells / 2**octave)
        h, w = max(2, int(height / step) + 2), max(2, int(width / step) + 2)
        grid = rng.standard_normal((h, w)).astype(np.float32)
        out += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) / 2**octave
    return out / max(float(out.std()), 1e-6)


def tile_photo(
    photo: np.ndarray, height: int, width: int, pixels_per_tile: float, rng: np.random.Generator
) -> np.ndarray:
    """The photo repeated over HxW, mirrored in turn so that seams do not show."""
    side = max(8, round(pixels_per_tile))
    tile = resample(photo, side, side)
    if rng.random() < 0.5:
        tile = np.ascontiguousarray(tile.transpose(1, 0, 2))
    double = np.concatenate([tile, tile[:, ::-1]], 1)
    double = np.concatenate([double, double[::-1]], 0)
    ny, nx = height // (2 * side) + 2, width // (2 * side) + 2
    oy, ox = rng.integers(2 * side), rng.integers(2 * side)
    return np.tile(double, (ny, nx, 1))[oy : oy + height, ox : ox + width]


def plaster(rng: np.random.Generator, height: int, width: int, px_m: float) -> np.ndarray:
    """Painted plaster: fine grain and faint large stains."""
    value = 1 + noise(rng, height, width, 0.8 * px_m, 2) * rng.uniform(0.003, 0.03)
    value += rng.standard_normal((height, width)).astype(np.float32) * rng.uniform(0.002, 0.02)
    return value[..., None] * wall_colour(rng)


def wallpaper(rng: np.random.Generator, height: int, width: int, px_m: float) -> np.ndarray:
    """Stripes or a small repeated motif, low contrast."""
    base, other = wall_colour(rng), wall_colour(rng)
    mix = rng.uniform(0.1, 0.5)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / px_m
    period = rng.uniform(0.06, 0.4)
    if rng.random() < 0.5:
        mask = (np.sin(2 * np.pi * x / period) > rng.uniform(-0.5, 0.5)).astype(np.float32)
    else:
        mask = (np.sin(2 * np.pi * x / period) * np.sin(2 * np.pi * y / period) > 0.4).astype(
            np.float32
        )
    return base + (other - base) * (mask * mix)[..., None]


def tiles(rng: np.random.Generator, height: int, width: int, px_m: float) -> np.ndarray:
    """Square or oblong tiles with joints, each tile a little different."""
    side_y = rng.uniform(0.1, 0.6) * px_m
    side_x = side_y * rng.choice([1.0, 1.0, 2.0, 0.5])
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    row = (y / side_y).astype(int)
    x = x + (row % 2) * side_x * rng.choice([0.0, 0.5])
    column = (x / side_x).astype(int)
    joint = max(1.0, rng.uniform(0.002, 0.008) * px_m)
    on_joint = (np.mod(y, side_y) < joint) | (np.mod(x, side_x) < joint)
    variation = rng.standard_normal((row.max() + 1, column.max() + 1)).astype(np.float32)
    value = 1 + variation[row, column] * rng.uniform(0.0, 0.06)
    value = np.where(on_joint, rng.uniform(0.6, 1.1), value)
    return (value[..., None] * wall_colour(rng)).astype(np.float32)


def planks(rng: np.random.Generator, height: int, width: int, px_m: float) -> np.ndarray:
    """Wooden boards along x with grain."""
    board = rng.uniform(0.07, 0.2) * px_m
    length = rng.uniform(0.6, 2.0) * px_m
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    row = (y / board).astype(int)
    shift = rng.random(row.max() + 1).astype(np.float32) * length
    column = ((x + shift[row]) / length).astype(int)
    tone = rng.standard_normal((row.max() + 1, column.max() + 1)).astype(np.float32)
    grain = cv2.resize(
        rng.standard_normal((height, max(2, width // 24))).astype(np.float32), (width, height)
    )
    value = 1 + tone[row, column] * rng.uniform(0.03, 0.13) + grain * rng.uniform(0.02, 0.08)
    value = value * np.where(np.mod(y, board) < max(1.0, 0.003 * px_m), 0.7, 1.0)
    wood = hsv(rng.uniform(0.05, 0.11), rng.uniform(0.15, 0.6), rng.uniform(0.25, 0.85))
    return (value[..., None] * wood).astype(np.float32)


def carpet(rng: np.random.Generator, height: int, width: int, px_m: float) -> np.ndarray:
    """Office carpet: strong fine grain, sometimes laid in squares."""
    value = 1 + rng.standard_normal((height, width)).astype(np.float32) * rng.uniform(0.03, 0.15)
    value += noise(rng, height, width, 0.5 * px_m, 2) * rng.uniform(0.0, 0.04)
    if rng.random() < 0.5:
        y, x = np.mgrid[0:height, 0:width].astype(np.float32) / (0.5 * px_m)
        value *= 1 + ((y.astype(int) + x.astype(int)) % 2 - 0.5) * rng.uniform(0.0, 0.15)
    colour = hsv(hue(rng), rng.uniform(0, 0.3), rng.uniform(0.12, 0.65))
    return (value[..., None] * colour).astype(np.float32)


def ceiling_panels(rng: np.random.Generator, height: int, width: int, px_m: float) -> np.ndarray:
    """Suspended ceiling: 0.6 m panels, speckled."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / (0.6 * px_m)
    line = (np.mod(x, 1) < 0.035) | (np.mod(y, 1) < 0.035)
    value = 1 - (rng.random((height, width)) < 0.08) * rng.uniform(0.0, 0.25)
    value = np.where(line, rng.uniform(0.75, 1.05), value).astype(np.float32)
    return value[..., None] * hsv(0.12, rng.uniform(0, 0.06), rng.uniform(0.7, 0.97))


DRAWN = {
    "plaster": plaster,
    "wallpaper": wallpaper,
    "tiles": tiles,
    "planks": planks,
    "carpet": carpet,
    "ceiling_panels": ceiling_panels,
}
"""Drawn materials: (generator, height, width, pixels per metre) -> HxWx3."""


def poster(rng: np.random.Generator, side: int = 128) -> np.ndarray:
    """A drawn picture: a sheet of text, shapes, or something as soft as a photograph."""
    image = np.ones((side, side, 3), np.float32) * object_colour(rng)
    kind = rng.random()
    if kind < 0.4:
        image[:] = rng.uniform(0.8, 1.0)
        y = int(rng.integers(6, 20))
        while y < side - 8:
            thick = int(rng.integers(1, 4))
            end = int(rng.integers(side // 3, side - 8))
            image[y : y + thick, 8:end] = rng.uniform(0.0, 0.5)
            y += thick + int(rng.integers(2, 9))
        if rng.random() < 0.5:
            a, b = np.sort(rng.integers(8, side - 8, (2, 2)), axis=0)
            image[a[0] : b[0], a[1] : b[1]] = object_colour(rng)
    elif kind < 0.6:
        for _ in range(int(rng.integers(2, 9))):
            mask = noise(rng, side, side, float(rng.uniform(12, 60)), 1) > rng.uniform(0, 1.2)
            image[mask] = object_colour(rng)
    else:
        for _ in range(int(rng.integers(2, 6))):
            share = noise(rng, side, side, float(rng.uniform(10, 90)), 4) - rng.uniform(-0.5, 1)
            share = np.clip(share * rng.uniform(0.5, 3), 0, 1)[..., None]
            image += share * (object_colour(rng) - image)
    return image


def outside(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """What a window shows: a bright sky, a blurred skyline, or white where it is over-exposed."""
    if rng.random() < 0.35:
        return np.full((height, width, 3), hsv(rng.choice([0.1, 0.58]), rng.uniform(0, 0.06), 1.0))
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    sky = hsv(0.58, rng.uniform(0, 0.35), rng.uniform(0.8, 1.0))
    low = hsv(rng.random(), rng.uniform(0, 0.3), rng.uniform(0.6, 1.0))
    image = np.broadcast_to(sky * (1 - y) + low * y, (height, width, 3)).copy()
    if rng.random() < 0.6:
        skyline = noise(rng, 1, width, rng.uniform(6, 50), 2)[0] * 0.1 + rng.uniform(0.35, 0.9)
        ground = np.linspace(0, 1, height)[:, None] > skyline[None]
        image[ground] = hsv(rng.uniform(0.1, 0.5), rng.uniform(0.05, 0.5), rng.uniform(0.2, 0.7))
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 4)))
    return image
