"""Image files of every accepted format, as ``run`` reads them and as cameras send them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.imaging.decode import decode_compressed, decode_compressed_depth
from dense_perception.media.sources import PictureSource
from test.fuzz.mutations import pick
from test.fuzz.pictures import broken, depth_png, valid

CANDIDATES = (".jpg", ".png", ".bmp", ".webp", ".tif", ".ppm", ".pgm", ".gif", ".avif")


def accepted_formats() -> tuple[str, ...]:
    """Those of which a valid picture is read."""
    found = []
    for suffix in CANDIDATES:
        try:
            decode_compressed(valid(suffix, np.random.default_rng(0)))
        except (InputError, AssertionError, cv2.error):  # OpenCV 4.6 writes neither GIF nor AVIF
            continue
        found.append(suffix)
    return tuple(found)


class Images:
    """Every third as a file in a folder, every tenth as compressed depth, the others as bytes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._formats = accepted_formats()
        assert {".jpg", ".png", ".bmp", ".webp"} <= set(self._formats)

    def make(self, rng: np.random.Generator) -> Callable[[], str]:
        if rng.random() < 0.1:
            depth, encoding = broken(depth_png(rng), rng), pick(rng, ("", "16UC1", "32FC1"))
            return lambda: _answered(decode_compressed_depth(depth, encoding))
        suffix = pick(rng, self._formats)
        data = broken(valid(suffix, rng), rng)
        if rng.random() < 2 / 3:
            keep_gray = bool(rng.integers(2))
            return lambda: _answered(decode_compressed(data, keep_gray=keep_gray))
        path = self._folder / f"picture{pick(rng, (suffix, *CANDIDATES))}"
        path.write_bytes(data)
        return lambda: _from_file(path)


def _answered(pixels: np.ndarray) -> str:
    assert pixels.size
    return "answered"


def _from_file(path: Path) -> str:
    try:
        source = PictureSource(path)
        found = list(source)
    finally:
        path.unlink()
    assert found or source.problems
    return "answered" if found else "refused"


def target(folder: Path) -> Images:
    return Images(folder)
