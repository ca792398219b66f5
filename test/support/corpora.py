"""Miniature corpora of closed-form scenes: a floor, a wall and a box seen by a level camera."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.data.description import write_description
from dense_perception.data.sample import Sample, instance_labels
from dense_perception.data.shards import write_shard


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


def write_things(
    root: Path, frames: int = 8, width: int = 96, height: int = 72, *, labels: bool = True
) -> Path:
    """A whole corpus of pictures with one to three upright boxes on a wall, which have numbers.

    Labels are 1 for the wall and 2 for the boxes; without them only the numbers have a class.
    """
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(frames):
        rgb_hwc = rng.integers(60, 80, (height, width, 3)).astype(np.uint8)
        depth_m = np.full((height, width), 4.0, np.float32)
        ids_hw = np.zeros((height, width), np.uint16)
        for number in range(1, int(rng.integers(2, 5))):
            third = (number - 1) * width // 3
            left = third + int(rng.integers(1, 6))
            top = int(rng.integers(5, height // 2))
            place = (slice(top, top + height // 3), slice(left, left + width // 4))
            rgb_hwc[place], depth_m[place] = rng.integers(120, 255, 3), 1.5 + number
            ids_hw[place] = number
        labels_hw = np.where(ids_hw > 0, 2, 1).astype(np.uint8)
        samples.append(
            Sample(
                rgb_hwc,
                depth_m,
                Intrinsics.from_fov(width, height, 60.0),
                labels_hw if labels else None,
                instances_hw=ids_hw,
                instance_labels=instance_labels(ids_hw, labels_hw),
            )
        )
    write_shard(root, 0, samples)
    write_description(root, {"classes": ["void", "wall", "box"]})
    return root


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
