"""The frames a model's runtimes are compared on: made from a seed, bit-exact everywhere."""

from __future__ import annotations

import numpy as np

from dense_perception.core.card import ModelCard

_FOCALS = (1.0, 0.6, 1.4)
_CELL = 16


def reference_feeds(card: ModelCard, frames: int = 3, seed: int = 0) -> dict[str, np.ndarray]:
    """Graph inputs for ``frames`` synthetic scenes at the card's size.

    ``image`` is uint8 (frames, height, width, 3): smooth shading, hard edges and grain in turn.
    ``focal_px``, if the card asks for it, is float32 (frames,) between 0.6 and 1.4 widths. Only
    integer arithmetic and NumPy's frozen legacy generator are used, so that every machine makes
    the same bytes.
    """
    # The newer Generator may change its streams between NumPy releases; this one may not.
    random = np.random.RandomState(seed)
    size_hw = (card.input.height, card.input.width)
    images = np.stack([_scene(random, index, *size_hw) for index in range(frames)])
    feeds = {"image": images}
    if card.input.focal:
        ratios = [_FOCALS[index % len(_FOCALS)] for index in range(frames)]
        feeds["focal_px"] = np.array(ratios, np.float32) * np.float32(card.input.width)
    return feeds


def _scene(random: np.random.RandomState, index: int, height: int, width: int) -> np.ndarray:
    scene_hwc = _shading(random, height, width)
    for _ in range(6):
        top, left = random.randint(0, height), random.randint(0, width)
        bottom = top + random.randint(height // 8, height // 2)
        right = left + random.randint(width // 8, width // 2)
        scene_hwc[top:bottom, left:right] //= 2
        scene_hwc[top:bottom, left:right] += random.randint(0, 128, 3)
    if index % 3 == 2:
        scene_hwc += random.randint(-20, 21, scene_hwc.shape)
    return np.clip(scene_hwc, 0, 255).astype(np.uint8)


def _shading(random: np.random.RandomState, height: int, width: int) -> np.ndarray:
    """Random colours on a coarse grid, interpolated linearly in integers; int64 (H, W, 3)."""
    rows, columns = height // _CELL + 2, width // _CELL + 2
    corners = random.randint(0, 256, (rows, columns, 3))
    y, x = np.arange(height), np.arange(width)
    wy, wx = (y % _CELL)[:, None, None], (x % _CELL)[None, :, None]
    y, x = (y // _CELL)[:, None], (x // _CELL)[None, :]
    top = corners[y, x] * (_CELL - wx) + corners[y, x + 1] * wx
    bottom = corners[y + 1, x] * (_CELL - wx) + corners[y + 1, x + 1] * wx
    return (top * (_CELL - wy) + bottom * wy) // _CELL**2
