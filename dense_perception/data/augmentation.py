"""Random augmentation: what is drawn to make a rendering look like a frame of an unknown camera.

:func:`random_crop` draws the view, :func:`draw_appearance` what light, lens, sensor and codec do to
its pixels. Nothing here touches a pixel: :mod:`dense_perception.data.photometry` does so on a CPU,
a picture at a time, and :mod:`dense_perception.training.device_photometry` in batches on a GPU.
What is drawn depends on the generator and the sizes alone, never on what a picture shows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.core.strict import number
from dense_perception.data.views import Crop

_LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class AugmentConfig:
    """How a rendered frame is made to look like one from an unknown camera.

    ``*_p`` are probabilities, the others strengths; 0 turns each one off.
    """

    flip_p: float = number(0.5, 0, 1, "mirror left and right")
    zoom_min: float = number(0.65, 0.1, 1, "smallest crop, as a share of the largest that fits")
    zoom_p: float = number(0.75, 0, 1, "crop at all")
    aspect_low: float = number(1.15, 0.3, 4, "narrowest crop, width / height")
    aspect_high: float = number(1.95, 0.3, 4, "widest crop, width / height")
    roll_deg: float = number(10, 0, 45, "largest camera roll added, degrees")
    roll_p: float = number(0.3, 0, 1, "roll at all")
    exposure_stops: float = number(0.9, 0, 3, "stops either way of metered exposure")
    gamma: float = number(0.35, 0, 2, "log of the tone curve's exponent, either way")
    contrast: float = number(0.35, 0, 1, "contrast change about the mean, either way")
    white_balance: float = number(0.18, 0, 1, "log gain of red and blue, either way")
    saturation_p: float = number(0.7, 0, 1, "change the saturation, mostly down")
    gray_p: float = number(0.12, 0, 1, "remove all colour")
    hue_deg: float = number(12, 0, 180, "hue rotation, degrees either way")
    vignette_p: float = number(0.3, 0, 1, "darken the corners")
    light_field_p: float = number(0.35, 0, 1, "multiply by a smooth random illumination")
    texture_p: float = number(0.25, 0, 1, "filter with a random kernel, which alters textures")
    blur_p: float = number(0.45, 0, 1, "defocus or motion blur")
    low_resolution_p: float = number(0.2, 0, 1, "down and up again")
    sharpen_p: float = number(0.25, 0, 1, "unsharp mask, as camera pipelines apply")
    noise_p: float = number(0.6, 0, 1, "shot and read noise")
    jpeg_p: float = number(0.5, 0, 1, "JPEG artefacts")
    erase_p: float = number(0.3, 0, 1, "hide rectangles")


@dataclass(frozen=True, slots=True)
class Texture:
    """Blend with a filtered copy: ``kernel`` (S, S) and ``mixing`` (3, 3), float32."""

    kernel: np.ndarray
    mixing: np.ndarray
    share: float


@dataclass(frozen=True, slots=True)
class Tone:
    """Exposure, white balance (3,), tone curve and contrast about ``pivot``.

    ``metered`` exposures bring the mean level to middle gray first.
    """

    metered: bool
    stops: float
    balance: np.ndarray
    exponent: float
    contrast: float
    pivot: float


@dataclass(frozen=True, slots=True)
class Noise:
    """Read and shot noise in gray levels, in ``channels`` fields (1 or 3) of ``seed``."""

    read: float
    shot: float
    channels: int
    seed: int


@dataclass(frozen=True, slots=True)
class Sharpening:
    """An unsharp mask."""

    amount: float
    sigma: float


@dataclass(frozen=True, slots=True)
class Patch:
    """A hidden rectangle in ``colour``; in its own mean where that is None."""

    top: int
    left: int
    height: int
    width: int
    colour: tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class Appearance:
    """What happens to a view's colours, in this order; None leaves a step out.

    ``light`` and ``vignette`` are coarse grids of gains (rows, columns, 3), ``colours`` is a 3x3
    matrix. The lens blurs by a Gaussian, ``defocus`` its sigma, or along a line, ``motion`` its
    kernel. ``low_resolution`` is the (width, height) of the way down and up again.
    """

    texture: Texture | None
    light: np.ndarray | None
    tone: Tone
    colours: np.ndarray
    vignette: np.ndarray | None
    defocus: float | None
    motion: np.ndarray | None
    low_resolution: tuple[int, int] | None
    noise: Noise | None
    sharpening: Sharpening | None
    jpeg_quality: int | None
    patches: tuple[Patch, ...]


def random_crop(camera: Intrinsics, config: AugmentConfig, rng: np.random.Generator) -> Crop:
    """A crop that lies inside the image, of random aspect ratio, zoom, place, roll and hand."""
    square = camera.fx / camera.fy
    source_w, source_h = float(camera.width), camera.height * square
    aspect = math.exp(rng.uniform(math.log(config.aspect_low), math.log(config.aspect_high)))
    roll = math.radians(rng.uniform(-config.roll_deg, config.roll_deg))
    zoom = math.exp(rng.uniform(math.log(config.zoom_min), 0.0))
    if rng.random() >= config.roll_p:
        roll = 0.0
    if rng.random() >= config.zoom_p:
        zoom = 1.0
    cos, sin = abs(math.cos(roll)), abs(math.sin(roll))
    # The tallest crop of this aspect whose rotated corners stay inside the image.
    tallest = min(source_w / (aspect * cos + sin), source_h / (aspect * sin + cos))
    crop_h = tallest * zoom
    crop_w = aspect * crop_h
    margin_x = (source_w - (crop_w * cos + crop_h * sin)) / 2
    margin_y = (source_h - (crop_w * sin + crop_h * cos)) / 2
    return Crop(
        source_w / 2 + margin_x * rng.uniform(-1, 1),
        source_h / 2 + margin_y * rng.uniform(-1, 1),
        crop_w,
        crop_h,
        roll,
        bool(rng.random() < config.flip_p),
    )


def draw_appearance(
    config: AugmentConfig, width: int, height: int, rng: np.random.Generator
) -> Appearance:
    """One random walk from scene to file, for a view of ``width`` x ``height``."""

    def happens(probability: float) -> bool:
        # Drawn even when the answer is known, so that one setting never shifts the others.
        return bool(rng.random() < probability)

    texture = draw_texture(rng) if happens(config.texture_p) else None
    light = draw_light(rng) if happens(config.light_field_p) else None
    tone = draw_tone(config, rng)
    colours = draw_colours(config, rng)
    vignette = draw_vignette(rng) if happens(config.vignette_p) else None
    defocus, motion = draw_blur(rng) if happens(config.blur_p) else (None, None)
    low = draw_low_resolution(width, height, rng) if happens(config.low_resolution_p) else None
    noise = draw_noise(rng) if happens(config.noise_p) else None
    sharpening = draw_sharpening(rng) if happens(config.sharpen_p) else None
    jpeg_quality = int(rng.integers(25, 91)) if happens(config.jpeg_p) else None
    patches = draw_patches(width, height, rng) if happens(config.erase_p) else ()
    return Appearance(
        texture,
        light,
        tone,
        colours,
        vignette,
        defocus,
        motion,
        low,
        noise,
        sharpening,
        jpeg_quality,
        patches,
    )


def draw_texture(rng: np.random.Generator) -> Texture:
    """A random kernel and mixture of the channels (after RandConv, Xu 2021)."""
    side = int(rng.choice([1, 3, 5]))
    kernel = rng.standard_normal((side, side)).astype(np.float32) / side
    mixing = rng.standard_normal((3, 3)).astype(np.float32)
    return Texture(kernel, mixing, float(rng.uniform(0.1, 0.7)))


def draw_light(rng: np.random.Generator) -> np.ndarray:
    """A smooth, slightly coloured illumination: gains (rows, columns, 3) float32."""
    rows, columns = int(rng.integers(2, 5)), int(rng.integers(2, 6))
    strength = rng.uniform(0.08, 0.3)
    grid = strength * rng.standard_normal((rows, columns, 1))
    grid = np.exp(grid + 0.15 * strength * rng.standard_normal((rows, columns, 3)))
    return grid.astype(np.float32)


def draw_tone(config: AugmentConfig, rng: np.random.Generator) -> Tone:
    """Exposure, white balance, tone curve and contrast."""
    stops = float(rng.uniform(-config.exposure_stops, config.exposure_stops))
    balance = np.exp(
        rng.uniform(-config.white_balance, config.white_balance, 3) * np.array([1.0, 0.4, 1.0])
    )
    exponent = math.exp(rng.uniform(-config.gamma, config.gamma))
    contrast = math.exp(rng.uniform(-config.contrast, config.contrast))
    pivot = float(rng.uniform(0.3, 0.6))
    return Tone(config.exposure_stops > 0, stops, balance, exponent, contrast, pivot)


def draw_colours(config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Saturation and hue, as one 3x3 matrix about the gray axis."""
    saturation = rng.uniform(0.2, 1.35) if rng.random() < config.saturation_p else 1.0
    if rng.random() < config.gray_p:
        saturation = 0.0
    angle = math.radians(rng.uniform(-config.hue_deg, config.hue_deg))
    cos, sin, third = math.cos(angle), math.sin(angle), 1.0 / 3.0
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) * math.sqrt(third)
    hue = cos * np.eye(3) + sin * cross + (1 - cos) * third
    return (saturation * np.eye(3) + (1 - saturation) * _LUMA[None, :]) @ hue


def draw_vignette(rng: np.random.Generator) -> np.ndarray:
    """Darker towards the corners about a centre near the middle: gains (9, 9, 3) float32."""
    centre_x, centre_y = rng.uniform(-0.15, 0.15, 2)
    y, x = np.mgrid[-1:1:9j, -1:1:9j]
    radius2 = ((x - centre_x) ** 2 + (y - centre_y) ** 2) / 2
    gain = 1.0 / (1.0 + rng.uniform(0.1, 0.7) * radius2)
    return np.repeat(gain[..., None], 3, axis=2).astype(np.float32)


def draw_blur(rng: np.random.Generator) -> tuple[float | None, np.ndarray | None]:
    """The sigma of a defocus or, seldom, the kernel of a motion along a line."""
    if rng.random() < 0.65:
        return float(rng.uniform(0.3, 1.4)), None
    length = int(rng.integers(3, 8))
    kernel = np.zeros((length, length), np.float32)
    middle, angle = (length - 1) / 2, rng.uniform(0, math.pi)
    reach = np.array([math.cos(angle), math.sin(angle)]) * middle
    start = (round(middle - reach[0]), round(middle - reach[1]))
    end = (round(middle + reach[0]), round(middle + reach[1]))
    cv2.line(kernel, start, end, 1.0, 1)
    return None, kernel / kernel.sum()


def draw_low_resolution(width: int, height: int, rng: np.random.Generator) -> tuple[int, int]:
    """35 to 80 % of the size."""
    scale = rng.uniform(0.35, 0.8)
    return max(2, round(width * scale)), max(2, round(height * scale))


def draw_noise(rng: np.random.Generator) -> Noise:
    """Equal in all channels half of the time."""
    read = 10.0 ** rng.uniform(-0.5, 1.0)
    shot = rng.uniform(0, 0.5) * read
    channels = 1 if rng.random() < 0.5 else 3
    return Noise(read, shot, channels, int(rng.integers(2**62)))


def draw_sharpening(rng: np.random.Generator) -> Sharpening:
    """As camera pipelines apply it."""
    amount = float(rng.uniform(0.2, 1.2))
    return Sharpening(amount, float(rng.uniform(0.6, 1.5)))


def draw_patches(width: int, height: int, rng: np.random.Generator) -> tuple[Patch, ...]:
    """One to three, so that depth has to be inferred from the surroundings."""
    patches = []
    for _ in range(int(rng.integers(1, 4))):
        h = int(height * rng.uniform(0.05, 0.25))
        w = int(width * rng.uniform(0.05, 0.25))
        top, left = int(rng.integers(0, height - h)), int(rng.integers(0, width - w))
        colour = None
        if rng.random() < 0.5:
            red, green, blue = (int(level) for level in rng.integers(0, 256, 3, dtype=np.uint8))
            colour = (red, green, blue)
        patches.append(Patch(top, left, h, w, colour))
    return tuple(patches)
