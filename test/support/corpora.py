"""Miniature corpora of closed-form scenes: a floor, a wall and a box seen by a level camera."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np


def render(
    rng: np.random.Generator, width: int, height: int, *, with_box: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """RGB (H, W, 3) uint8, planar depth (H, W) float64 metres and (fx, fy, cx, cy).

    Without the box depth has no steps.
    """
    focal = width * rng.uniform(0.7, 1.1)
    cx, cy = (width - 1) / 2, (height - 1) / 2
    v = np.repeat(np.arange(height, dtype=np.float64)[:, None], width, axis=1)
    camera_height, wall = rng.uniform(0.8, 1.6), rng.uniform(2.5, 6.0)
    below = (v - cy) / focal
    floor = np.where(below > 1e-6, camera_height / np.maximum(below, 1e-6), np.inf)
    depth = np.minimum(floor, wall)
    shade = np.where(floor < wall, 90, 170)[..., None] * np.ones(3)
    left, top = rng.integers(0, width // 2), rng.integers(height // 4, height // 2)
    box = (slice(top, top + height // 3), slice(left, left + width // 3))
    colour = rng.integers(40, 255, 3)
    if with_box:
        depth[box] = np.minimum(depth[box], wall * 0.5)
        shade[box] = colour
    # Nearer is brighter: something a network can learn in seconds.
    shade = shade * np.clip(1.6 / np.sqrt(depth), 0.3, 1.2)[..., None]
    rgb = np.clip(shade + rng.normal(0, 4, shade.shape), 0, 255).astype(np.uint8)
    return rgb, depth, np.array([focal, focal, cx, cy])


def write_corpus(
    root: Path,
    frames: int = 24,
    shards: int = 2,
    width: int = 96,
    height: int = 72,
    seed: int = 0,
    labels: bool = False,
    boxes: bool = True,
    negative: bool = False,
) -> Path:
    """A whole corpus in the generators' layout; returns ``root``.

    With ``labels`` what is nearer than 2.5 m is floor, the rest wall. Pictures may be ``negative``.
    """
    rng = np.random.default_rng(seed)
    for index, count in enumerate(np.diff(np.linspace(0, frames, shards + 1).astype(int))):
        folder = root / f"shard_{index:05d}"
        folder.mkdir(parents=True)
        scenes = [render(rng, width, height, with_box=boxes) for _ in range(count)]
        rgb = np.stack([scene[0] for scene in scenes])
        np.save(folder / "rgb.npy", 255 - rgb if negative else rgb)
        np.save(folder / "depth_m.npy", np.stack([scene[1] for scene in scenes]).astype(np.float16))
        if labels:
            near = np.stack([scene[1] < 2.5 for scene in scenes])
            np.save(folder / "labels.npy", np.where(near, 2, 1).astype(np.uint8))
        np.save(
            folder / "intrinsics.npy", np.stack([scene[2] for scene in scenes]).astype(np.float32)
        )
    description = {
        "schema": 1,
        "name": root.name,
        "generator": "closed-form",
        "seed": seed,
        "width": width,
        "height": height,
        "frames": frames,
    }
    (root / "corpus.json").write_text(json.dumps(description), encoding="utf-8")
    return root
