"""One picture of a corpus: frames spread over it, each with its depth and its labels beside it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dense_perception.core.errors import InputError, TrainingError
from dense_perception.core.labels import LabelSet
from dense_perception.core.storage import atomic_write
from dense_perception.data.corpus import Corpus, evenly
from dense_perception.data.sample import Sample
from dense_perception.imaging.colorize import colorize, robust_limits

_CELL = (192, 144)
_LINE = 14
_ACROSS = 3


def write_contact_sheet(corpus: Corpus, path: Path, frames: int = 24) -> None:
    """Write ``path``, a PNG or JPEG, of ``frames`` frames.

    Depth is coloured between the limits of its frame, which stand beside the key; black is none.

    :raises InputError: if the file cannot be written.
    """
    palette = _palette(corpus)
    cells = [_cell(corpus, index, palette) for index in evenly(len(corpus), frames)]
    height, width = (max(cell.shape[axis] for cell in cells) for axis in (0, 1))
    rows = -(-len(cells) // _ACROSS)
    sheet = np.full((rows * height, _ACROSS * width, 3), 32, np.uint8)
    for k, cell in enumerate(cells):
        top, left = k // _ACROSS * height, k % _ACROSS * width
        sheet[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    suffix = path.suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg"):
        raise InputError(f"{path} is neither PNG nor JPEG: name the sheet .png or .jpg")
    packed = cv2.imencode(suffix, cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1]
    try:
        with atomic_write(path) as stream:
            stream.write(packed.tobytes())
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def _cell(corpus: Corpus, index: int, palette: np.ndarray) -> np.ndarray:
    try:
        sample = corpus[index]
    except TrainingError:
        blank = np.zeros((_CELL[1], _CELL[0], 3), np.uint8)
        return _titled([blank], f"{corpus.keys[index]} cannot be read")
    tiles = [_fitted(sample.rgb_hwc, cv2.INTER_AREA)]
    title = sample.key
    depth_m = np.asarray(sample.depth_m, np.float32)
    limits = robust_limits(np.where(depth_m > 0, depth_m, np.nan))
    if limits is not None:
        tiles.append(_fitted(_coloured(depth_m, *limits), cv2.INTER_NEAREST))
        title += f"  {limits[0]:.2f}-{limits[1]:.2f} m"
    else:
        tiles.append(np.zeros_like(tiles[0]))
    if sample.labels_hw is not None:
        tiles.append(_fitted(palette[sample.labels_hw], cv2.INTER_NEAREST))
    return _titled(tiles, title + _pose(sample))


def _coloured(depth_m: np.ndarray, near_m: float, far_m: float) -> np.ndarray:
    return colorize(np.where(depth_m > 0, depth_m, np.nan).astype(np.float32), near_m, far_m)


def _pose(sample: Sample) -> str:
    return "" if sample.camera_7 is None else f"  {float(sample.camera_7[2]):.2f} m up"


def _fitted(rgb_hwc: np.ndarray, interpolation: int) -> np.ndarray:
    height, width = rgb_hwc.shape[:2]
    scale = min(_CELL[0] / width, _CELL[1] / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(rgb_hwc, size, interpolation=interpolation))


def _titled(tiles: list[np.ndarray], title: str) -> np.ndarray:
    row = np.concatenate(tiles, axis=1)
    band = np.zeros((_LINE, row.shape[1], 3), np.uint8)
    cv2.putText(band, title, (2, 10), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (255, 255, 255), 1)
    return np.pad(np.concatenate([band, row]), ((0, 3), (0, 6), (0, 0)))


def _palette(corpus: Corpus) -> np.ndarray:
    """(256, 3) uint8 RGB by label from 1 on; void is black."""
    colours = LabelSet("", tuple(str(k) for k in range(255))).colors()
    given = np.array(corpus.description.get("colours") or np.zeros((0, 3)), np.uint8)
    if not corpus.description.get("void"):
        given = given[1:]
    colours[: len(given)] = given
    return np.concatenate([np.zeros((1, 3), np.uint8), colours[:255]])
