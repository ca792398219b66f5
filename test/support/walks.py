"""Recordings in which the red artefact's answer is known, and what reports say of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dense_perception.evaluation.contestants import RunOptions
from dense_perception.evaluation.request import Request
from test.support import recordings as bags
from test.support.artefacts import red_depth

FOCAL, COUNT = 64.0, 20
STEP_NS = 100_000_000
RUN = RunOptions(backend="onnxruntime", threads=1)
TRUTH = "/cam/depth/image_raw"
OTHER = "/other/depth"


def walk(
    folder: Path,
    seed: int = 0,
    *,
    truth: float = 1.0,
    other: float | None = None,
    calibrated: bool = True,
    depth: bool = True,
    storage: str = "mcap",
    unanswered: int = 0,
) -> Path:
    """A bag in which ``truth`` times the model's answer is true, and ``other`` times that is what
    another system said."""
    messages: list[tuple[str, int, Any]] = []
    rng = np.random.default_rng(seed)
    for index in range(COUNT):
        stamp = (index + 1) * STEP_NS
        rgb = rng.integers(0, 256, (48, 64, 3), np.uint8)
        true_m = (truth * red_depth(rgb, FOCAL)).astype(np.float32)
        if calibrated:
            info = bags.camera_info(64, 48, FOCAL, stamp, d=np.zeros(5))
            messages.append(("/cam/color/camera_info", stamp, info))
        messages.append(("/cam/color/image_raw", stamp, bags.image(rgb, "rgb8", stamp)))
        if depth:
            messages.append((TRUTH, stamp + 1, bags.image(true_m, "32FC1", stamp)))
        if other is not None and index >= unanswered:
            said_m = np.float32(other) * true_m
            messages.append((OTHER, stamp + 2, bags.image(said_m, "32FC1", stamp)))
    return bags.write_bag(folder, messages, storage=storage)


def values(report: Any, contestant: str) -> dict[str, float]:
    return {name: each["value"] for name, each in report["figures"][contestant].items()}


def replaced(request: Request, **changes: Any) -> Request:
    return Request(**{**request.__dict__, **changes})
