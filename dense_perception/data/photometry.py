"""What an :class:`~dense_perception.data.augmentation.Appearance` does to a picture, with OpenCV.

Every function on images takes and returns RGB uint8 (H, W, 3) and never changes its argument.
Colour operations are composed into one table and one matrix, so that a frame costs about a
millisecond. :mod:`dense_perception.training.device_photometry` does the same to batches on a GPU,
within a gray level or two; a test holds the two together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from dense_perception.data.augmentation import Appearance, Noise, Patch, Sharpening, Texture, Tone
from dense_perception.imaging.resize import resample

MIDDLE_GRAY = 0.16  # in linear light; 0.43 as it is stored
DARKEST = 0.02  # mean level that a metered exposure still believes
MOST_STOPS = 2.0
SHOULDER = 0.8


def apply(rgb_hwc: np.ndarray, look: Appearance) -> np.ndarray:
    """From scene to file: texture, light, colour, lens, sensor, codec."""
    if look.texture is not None:
        rgb_hwc = filter_texture(rgb_hwc, look.texture)
    if look.light is not None:
        rgb_hwc = modulate(rgb_hwc, look.light)
    rgb_hwc = tone(rgb_hwc, look.tone)
    rgb_hwc = cv2.transform(rgb_hwc, look.colours)
    if look.vignette is not None:
        rgb_hwc = modulate(rgb_hwc, look.vignette)
    if look.defocus is not None:
        rgb_hwc = cv2.GaussianBlur(rgb_hwc, (0, 0), look.defocus)
    if look.motion is not None:
        rgb_hwc = cv2.filter2D(rgb_hwc, -1, look.motion)
    if look.low_resolution is not None:
        rgb_hwc = low_resolution(rgb_hwc, look.low_resolution)
    if look.noise is not None:
        rgb_hwc = sensor_noise(rgb_hwc, look.noise)
    if look.sharpening is not None:
        rgb_hwc = sharpen(rgb_hwc, look.sharpening)
    if look.jpeg_quality is not None:
        rgb_hwc = jpeg(rgb_hwc, look.jpeg_quality)
    return erase(rgb_hwc, look.patches) if look.patches else rgb_hwc


def tone(rgb_hwc: np.ndarray, change: Tone) -> np.ndarray:
    """Exposure, white balance, tone curve and contrast, as one table per channel.

    The exposure is metered, as a camera does it: the mean level goes to middle gray, give or take
    ``stops``, within two stops of what was rendered.
    """
    meter = max(float(cv2.mean(rgb_hwc)[1]) / 255, DARKEST) ** 2.2
    metered = math.log2(MIDDLE_GRAY / meter) if change.metered else 0.0
    stops = min(max(metered, -MOST_STOPS), MOST_STOPS) + change.stops
    linear = (np.arange(256) / 255.0) ** 2.2
    curve = (linear[:, None] * change.balance * 2.0**stops) ** (change.exponent / 2.2)
    # A soft shoulder: sensors and tone mapping compress highlights before they clip.
    room = 1 - SHOULDER
    soft = SHOULDER + room * np.tanh((curve - SHOULDER) / room)
    curve = np.where(curve > SHOULDER, soft, curve)
    curve = (curve - change.pivot) * change.contrast + change.pivot
    table = np.clip(np.rint(curve * 255), 0, 255).astype(np.uint8)
    return cv2.LUT(rgb_hwc, table[None])


def filter_texture(rgb_hwc: np.ndarray, change: Texture) -> np.ndarray:
    """Blend with a filtered copy of equal mean and contrast."""
    source = rgb_hwc.astype(np.float32)
    filtered = cv2.filter2D(cv2.transform(source, change.mixing), -1, change.kernel)
    mean, spread = cv2.meanStdDev(source)
    got_mean, got_spread = cv2.meanStdDev(filtered)
    gain = spread / np.maximum(got_spread, 1e-3)
    share = change.share
    affine = np.hstack([np.diag(gain[:, 0]) * share, share * (mean - gain * got_mean)])
    mixed = cv2.addWeighted(source, 1 - share, cv2.transform(filtered, affine), 1.0, 0.0)
    return _to_uint8(mixed)


def modulate(rgb_hwc: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Multiply by gains (rows, columns, 3), interpolated bicubically to the picture's size."""
    height, width = rgb_hwc.shape[:2]
    gain = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.multiply(rgb_hwc, gain, dtype=cv2.CV_8U)


def low_resolution(rgb_hwc: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Down to (width, height) and up again."""
    height, width = rgb_hwc.shape[:2]
    return resample(resample(rgb_hwc, *size), width, height)


def sharpen(rgb_hwc: np.ndarray, change: Sharpening) -> np.ndarray:
    """Unsharp mask."""
    soft = cv2.GaussianBlur(rgb_hwc, (0, 0), change.sigma)
    return cv2.addWeighted(rgb_hwc, 1 + change.amount, soft, -change.amount, 0)


def sensor_noise(rgb_hwc: np.ndarray, change: Noise) -> np.ndarray:
    """Read and shot noise."""
    height, width = rgb_hwc.shape[:2]
    rng = np.random.default_rng(change.seed)
    noise = rng.standard_normal((height, width, change.channels), dtype=np.float32)
    return add_noise(rgb_hwc, change, noise)


def add_noise(rgb_hwc: np.ndarray, change: Noise, normal: np.ndarray) -> np.ndarray:
    """The same with standard normal numbers (H, W, 1 or 3) float32."""
    source = rgb_hwc.astype(np.float32)
    sigma = source * np.float32(change.shot / 255.0) + np.float32(change.read)
    return _to_uint8(source + sigma * normal)


def jpeg(rgb_hwc: np.ndarray, quality: int) -> np.ndarray:
    """Compress and decompress."""
    done, packed = cv2.imencode(".jpg", rgb_hwc[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(packed, cv2.IMREAD_COLOR) if done else None
    if decoded is None:  # pragma: no cover - OpenCV always carries a JPEG codec
        return rgb_hwc
    return np.ascontiguousarray(decoded[..., ::-1])


def erase(rgb_hwc: np.ndarray, patches: Sequence[Patch]) -> np.ndarray:
    """Hide rectangles."""
    changed = rgb_hwc.copy()
    for patch in patches:
        part = changed[patch.top : patch.top + patch.height, patch.left : patch.left + patch.width]
        if patch.colour is None:
            part[...] = part.reshape(-1, 3).mean(axis=0).astype(np.uint8)
        else:
            part[...] = patch.colour
    return changed


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
