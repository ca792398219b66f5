"""``dense-perception run`` as the tests call it, on pictures of known size."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dense_perception import cli

SIZE = (48, 64)


def picture(seed: int, height: int = SIZE[0], width: int = SIZE[1]) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def save(path: Path, rgb_hwc: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.ascontiguousarray(rgb_hwc[..., ::-1]))


def run(model: str, source: Path | str, output: Path, *options: str) -> int:
    words = ["run", model, "--input", str(source), "--output", str(output), "--quiet"]
    return cli.main([*words, "--backend", "onnxruntime", "--threads", "1", *options])
