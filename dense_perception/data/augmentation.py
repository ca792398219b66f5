"""Random augmentation: how a clean rendering is made to look like a frame of an unknown camera.

:func:`random_crop` draws the view; :func:`augment` does to its pixels what light, lens, sensor and
codec do. Every function on images takes and returns RGB uint8 (H, W, 3) and never changes its
argument. Colour operations are composed into one table and one matrix, so that a frame costs about
a millisecond.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.core.strict import number
from dense_perception.data.views import Crop
from dense_perception.imaging.resize import resample

_MIDDLE_GRAY = 0.16  # in linear light; 0.43 as it is stored
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


def augment(rgb_hwc: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """One random walk from scene to file: texture, light, colour, lens, sensor, codec."""

    def maybe(probability: float, change: Callable[..., np.ndarray], image: np.ndarray) -> None:
        nonlocal rgb_hwc
        # Drawn even when the answer is known, so that one setting never shifts the others.
        if rng.random() < probability:
            rgb_hwc = change(image, rng)

    maybe(config.texture_p, filter_texture, rgb_hwc)
    maybe(config.light_field_p, light_field, rgb_hwc)
    rgb_hwc = tone(rgb_hwc, config, rng)
    rgb_hwc = colour(rgb_hwc, config, rng)
    maybe(config.vignette_p, vignette, rgb_hwc)
    maybe(config.blur_p, blur, rgb_hwc)
    maybe(config.low_resolution_p, low_resolution, rgb_hwc)
    maybe(config.noise_p, sensor_noise, rgb_hwc)
    maybe(config.sharpen_p, sharpen, rgb_hwc)
    maybe(config.jpeg_p, jpeg, rgb_hwc)
    maybe(config.erase_p, erase, rgb_hwc)
    return rgb_hwc


def tone(rgb_hwc: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Exposure, white balance, tone curve and contrast, as one table per channel.

    The exposure is metered, as a camera does it: the mean level goes to middle gray, give or take
    ``exposure_stops``, within two stops of what was rendered.
    """
    meter = max(float(cv2.mean(rgb_hwc)[1]) / 255, 0.02) ** 2.2
    stops = float(np.clip(math.log2(_MIDDLE_GRAY / meter), -2, 2)) if config.exposure_stops else 0
    stops += rng.uniform(-config.exposure_stops, config.exposure_stops)
    balance = np.exp(
        rng.uniform(-config.white_balance, config.white_balance, 3) * np.array([1.0, 0.4, 1.0])
    )
    exponent = math.exp(rng.uniform(-config.gamma, config.gamma))
    contrast = math.exp(rng.uniform(-config.contrast, config.contrast))
    linear = (np.arange(256) / 255.0) ** 2.2
    curve = (linear[:, None] * balance * 2.0**stops) ** (exponent / 2.2)
    # A soft shoulder: sensors and tone mapping compress highlights before they clip.
    curve = np.where(curve > 0.8, 0.8 + 0.2 * np.tanh((curve - 0.8) / 0.2), curve)
    pivot = float(rng.uniform(0.3, 0.6))
    curve = (curve - pivot) * contrast + pivot
    table = np.clip(np.rint(curve * 255), 0, 255).astype(np.uint8)
    return cv2.LUT(rgb_hwc, table[None])


def colour(rgb_hwc: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Saturation and hue, as one 3x3 matrix about the gray axis."""
    saturation = rng.uniform(0.2, 1.35) if rng.random() < config.saturation_p else 1.0
    if rng.random() < config.gray_p:
        saturation = 0.0
    angle = math.radians(rng.uniform(-config.hue_deg, config.hue_deg))
    cos, sin, third = math.cos(angle), math.sin(angle), 1.0 / 3.0
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) * math.sqrt(third)
    hue = cos * np.eye(3) + sin * cross + (1 - cos) * third
    matrix = (saturation * np.eye(3) + (1 - saturation) * _LUMA[None, :]) @ hue
    return cv2.transform(rgb_hwc, matrix)


def filter_texture(rgb_hwc: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blend with a randomly filtered copy of equal mean and contrast (after RandConv, Xu 2021)."""
    side = int(rng.choice([1, 3, 5]))
    kernel = rng.standard_normal((side, side)).astype(np.float32) / side
    mixing = rng.standard_normal((3, 3)).astype(np.float32)
    source = rgb_hwc.astype(np.float32)
    filtered = cv2.filter2D(cv2.transform(source, mixing), -1, kernel)
    mean, spread = cv2.meanStdDev(source)
    got_mean, got_spread = cv2.meanStdDev(filtered)
    gain = spread / np.maximum(got_spread, 1e-3)
    share = rng.uniform(0.1, 0.7)
    affine = np.hstack([np.diag(gain[:, 0]) * share, share * (mean - gain * got_mean)])
    mixed = cv2.addWeighted(source, 1 - share, cv2.transform(filtered, affine), 1.0, 0.0)
    return _to_uint8(mixed)


def light_field(rgb_hwc: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Multiply by a smooth, slightly coloured illumination."""
    rows, columns = int(rng.integers(2, 5)), int(rng.integers(2, 6))
    strength = rng.uniform(0.08, 0.3)
    grid = strength * rng.standard_normal((rows, columns, 1))
    grid = np.exp(grid + 0.15 * strength * rng.standard_normal((rows, columns, 3)))
    return _modulate(rgb_hwc, grid.astype(np.float32))


def vignette(rgb_hwc: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Darken towards the corners about a centre near the middle."""
    centre_x, centre_y = rng.uniform(-0.15, 0.15, 2)
    y, x = np.mgrid[-1:1:9j, -1:1:9j]
    radius2 = ((x - centre_x) ** 2 + (y - centre_y) ** 2) / 2
    gain = 1.0 / (1.0 + rng.uniform(0.1, 0.7) * radius2)
    return _modulate(rgb_hwc, np.repeat(gain[..., None], 3, axis=2).astype(np.float32))


def blur(rgb_hwc: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Defocus (Gaussian) or motion along a line."""
    if rng.random() < 0.65:
        return cv2.GaussianBlur(rgb_hwc, (0, 0), rng.uniform(0.3, 1.4))
    length = int(rng.integers(3, 8))
    kernel = np.zeros((length, length), np.float32)
    middle, angle = (length - 1) / 2, rng.uniform(0, math.pi)
    reach = np.array([math.cos(angle), math.sin(angle)]) * middle
    start = (round(middle - reach[0]), round(middle - reach[1]))
    end = (round(middle + reach[0]), round(middle + reach[1]))
    cv2.line(kernel, start, end, 1.0, 1)
    return cv2.filter2D(rgb_hwc, -1, kernel / kernel.sum())


def low_resolution(rgb_hwc: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Down to 35-80 % and up again."""
    height, width = rgb_hwc.shape[:2]
    scale = rng.uniform(0.35, 0.8)
    small = resample(rgb_hwc, max(2, round(width * scale)), max(2, round(height * scale)))
    return resample(small, width, height)


def sharpen(rgb_hwc: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Unsharp mask."""
    amount = rng.uniform(0.2, 1.2)
    soft = cv2.GaussianBlur(rgb_hwc, (0, 0), rng.uniform(0.6, 1.5))
    return cv2.addWeighted(rgb_hwc, 1 + amount, soft, -amount, 0)


def sensor_noise(rgb_hwc: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Read and shot noise, partly equal in all channels."""
    height, width = rgb_hwc.shape[:2]
    read = 10.0 ** rng.uniform(-0.5, 1.0)
    shot = rng.uniform(0, 0.5) * read
    source = rgb_hwc.astype(np.float32)
    sigma = read + shot * (source / 255.0)
    if rng.random() < 0.5:
        noise = rng.standard_normal((height, width, 1), dtype=np.float32)
    else:
        noise = rng.standard_normal((height, width, 3), dtype=np.float32)
    return _to_uint8(source + sigma * noise)


def jpeg(rgb_hwc: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Compress and decompress at quality 25-90."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 91))]
    done, packed = cv2.imencode(".jpg", rgb_hwc[..., ::-1], quality)
    decoded = cv2.imdecode(packed, cv2.IMREAD_COLOR) if done else None
    if decoded is None:  # pragma: no cover - OpenCV always carries a JPEG codec
        return rgb_hwc
    return np.ascontiguousarray(decoded[..., ::-1])


def erase(rgb_hwc: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Hide one to three rectangles, so that depth has to be inferred from the surroundings."""
    changed = rgb_hwc.copy()
    height, width = rgb_hwc.shape[:2]
    for _ in range(int(rng.integers(1, 4))):
        h = int(height * rng.uniform(0.05, 0.25))
        w = int(width * rng.uniform(0.05, 0.25))
        top, left = int(rng.integers(0, height - h)), int(rng.integers(0, width - w))
        patch = changed[top : top + h, left : left + w]
        if rng.random() < 0.5:
            patch[...] = rng.integers(0, 256, 3, dtype=np.uint8)
        else:
            patch[...] = patch.reshape(-1, 3).mean(axis=0).astype(np.uint8)
    return changed


def _modulate(rgb_hwc: np.ndarray, grid: np.ndarray) -> np.ndarray:
    height, width = rgb_hwc.shape[:2]
    gain = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.multiply(rgb_hwc, gain, dtype=cv2.CV_8U)


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
