"""What the renderer leaves out: ambient occlusion in the picture, exposure, glare, a vignette."""

from __future__ import annotations

import cv2
import numpy as np


def finish_picture(
    rgb_hwc: np.ndarray, depth_m: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Darken creases and contacts seen in the depth and expose like a camera; uint8 in and out."""
    light = 1.0 - rng.uniform(0.1, 0.4) * occlusion(depth_m)
    height, width = depth_m.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light = light * (1 - rng.uniform(0.0, 0.12) * (x * x + y * y) / 2)
    image = rgb_hwc * (light / 255).astype(np.float32)[..., None]
    # The renderer adds light in display space, where shadows come out too deep: lift them.
    image **= rng.uniform(0.72, 1.0)
    gain = np.clip(rng.uniform(0.3, 0.56) / max(float(image.mean()), 0.02), 0.6, 2.2)
    image = glare(image * gain, rng.uniform(0.0, 0.35))
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def glare(image_hwc: np.ndarray, strength: float) -> np.ndarray:
    """Light that over-exposed parts (above 0.9 of 1) scatter in the lens, added to the image."""
    over = np.clip(image_hwc - 0.9, 0, 1).astype(np.float32)
    height, width = over.shape[:2]
    small = cv2.resize(
        over, (max(1, width // 4), max(1, height // 4)), interpolation=cv2.INTER_AREA
    )
    wide = cv2.GaussianBlur(small, (0, 0), 0.08 * height / 4 + 0.1)
    near = cv2.GaussianBlur(small, (0, 0), 0.02 * height / 4 + 0.1)
    halo = cv2.resize(wide + near, (width, height), interpolation=cv2.INTER_LINEAR)
    return image_hwc + strength * halo


def occlusion(depth_m: np.ndarray) -> np.ndarray:
    """0..1 per pixel: how much nearer its surroundings are than a smooth surface would be."""
    height = depth_m.shape[0]
    inverse = (1.0 / np.maximum(depth_m, 0.05)).astype(np.float32)
    total = np.zeros_like(inverse)
    for share in (0.012, 0.04):
        # Inverse depth is affine on a plane, so planes of any slant leave no residue.
        residue = cv2.GaussianBlur(inverse, (0, 0), share * height) - inverse
        relative = residue / inverse
        total += np.clip(relative, 0, 0.25) * np.exp(-np.clip(relative, 0, None) * 3)
    return np.clip(total * 5, 0, 1)
