"""The frames a model's runtimes are compared on: made from a seed, bit-exact everywhere.

They show a box room in perspective with things on its floor. On mere noise a depth network answers
with a nearly flat map, and any rounding is large beside its range.
"""

from __future__ import annotations

import numpy as np

from dense_perception.core.card import ModelCard

_FOCALS = (1.0, 0.6, 1.4)
_FAR = 1024
"""Nearness of the back wall; twice as near is twice that."""
_THINGS = 5


def reference_feeds(card: ModelCard, frames: int = 3, seed: int = 0) -> dict[str, np.ndarray]:
    """Graph inputs for ``frames`` synthetic scenes at the card's size.

    ``image`` is (frames, height, width, 3) of the card's dtype, whole numbers from 0 to 255: rooms
    with tiled floors, every third with grain.
    ``focal_px``, if the card asks for it, is float32 (frames,) between 0.6 and 1.4 widths. Only
    integer arithmetic and NumPy's frozen legacy generator are used, so that every machine makes
    the same bytes.
    """
    # The newer Generator may change its streams between NumPy releases; this one may not.
    random = np.random.RandomState(seed)
    size_hw = (card.input.height, card.input.width)
    images = np.stack([_scene(random, index, *size_hw) for index in range(frames)])
    feeds = {"image": images.astype(card.input.dtype)}
    if card.input.focal:
        ratios = [_FOCALS[index % len(_FOCALS)] for index in range(frames)]
        feeds["focal_px"] = np.array(ratios, np.float32) * np.float32(card.input.width)
    return feeds


def _scene(random: np.random.RandomState, index: int, height: int, width: int) -> np.ndarray:
    back_hw = (random.randint(height // 6, height // 4), random.randint(width // 6, width // 4))
    centre_yx = (
        height // 2 + random.randint(-(height // 8), height // 8 + 1),
        width // 2 + random.randint(-(width // 8), width // 8 + 1),
    )
    scene_hwc = _room(random, height, width, back_hw, centre_yx)
    # The farthest first, so that the nearer ones hide them.
    for nearness in sorted(random.randint(_FAR, 4 * _FAR, _THINGS)):
        _put_thing(random, scene_hwc, int(nearness), back_hw, centre_yx)
    if index % 3 == 2:
        scene_hwc += random.randint(-20, 21, scene_hwc.shape)
    return np.clip(scene_hwc, 0, 255).astype(np.uint8)


def _room(
    random: np.random.RandomState,
    height: int,
    width: int,
    back_hw: tuple[int, int],
    centre_yx: tuple[int, int],
) -> np.ndarray:
    """Walls, ceiling and floor around the back wall (half its size is ``back_hw``); int64."""
    dy_hw = np.arange(height)[:, None] - centre_yx[0] + np.zeros((1, width), np.int64)
    dx_hw = np.arange(width)[None, :] - centre_yx[1] + np.zeros((height, 1), np.int64)
    upright_hw = _FAR * np.abs(dx_hw) // back_hw[1]
    level_hw = _FAR * np.abs(dy_hw) // back_hw[0]
    nearness_hw = np.maximum(np.maximum(upright_hw, level_hw), _FAR)
    surface_hw = np.where(upright_hw > level_hw, 1 + (dx_hw > 0), 3 + (dy_hw > 0))
    surface_hw[nearness_hw == _FAR] = 0
    colours = random.randint(64, 256, (5, 3))
    # Lit from the camera's side: the far end has half the light.
    light_hw = 256 - 128 * _FAR // nearness_hw
    scene_hwc = colours[surface_hw] * light_hw[..., None] // 256
    across_hw = 8 * _FAR * dx_hw // (back_hw[1] * nearness_hw)
    along_hw = 24 * _FAR // nearness_hw
    dark_hw = (surface_hw == 4) & ((across_hw + along_hw) % 2 == 0)
    scene_hwc[dark_hw] = scene_hwc[dark_hw] * 5 // 8
    return np.asarray(scene_hwc)


def _put_thing(
    random: np.random.RandomState,
    scene_hwc: np.ndarray,
    nearness: int,
    back_hw: tuple[int, int],
    centre_yx: tuple[int, int],
) -> None:
    """A box or a round thing in a plain colour, standing on the floor; in place."""
    height, width = scene_hwc.shape[:2]
    bottom = centre_yx[0] + back_hw[0] * nearness // _FAR
    middle = centre_yx[1] + back_hw[1] * nearness * random.randint(-80, 81) // (100 * _FAR)
    tall = max(2, back_hw[0] * nearness * random.randint(40, 140) // (100 * _FAR))
    half = max(1, back_hw[1] * nearness * random.randint(10, 35) // (100 * _FAR))
    y_h, x_w = np.arange(height)[:, None], np.arange(width)[None, :]
    inside_hw = (y_h < bottom) & (y_h >= bottom - tall) & (np.abs(x_w - middle) <= half)
    if random.randint(0, 2):
        up_hw = 2 * (bottom - y_h) - tall
        inside_hw &= (up_hw * half) ** 2 + ((x_w - middle) * tall) ** 2 <= (tall * half) ** 2
    colour = random.randint(32, 224, 3)
    light_hw = 256 - 96 * np.clip(x_w - middle + half, 0, 2 * half) // (2 * half) + 0 * y_h
    scene_hwc[inside_hw] = (colour * light_hw[..., None] // 256)[inside_hw]
