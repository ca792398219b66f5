"""Labels against annotated pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from dense_perception.core.card import ModelCard
from dense_perception.core.card_specs import OWN_LABELS
from dense_perception.core.errors import DensePerceptionError, InputError
from dense_perception.core.labels import VOID
from dense_perception.imaging.decode import decode_compressed
from dense_perception.metrics.dense import Confusion

PICTURES = (".jpg", ".jpeg", ".png")
Labeller = Callable[[np.ndarray], np.ndarray]
"""HxWx3 ``uint8`` RGB to HxW integer labels of the same size."""


def picture_pairs(images: Path, labels: Path) -> list[tuple[Path, Path]]:
    """Pictures and the PNGs of the same name in ``labels``, sorted, as ADE20K is laid out.

    :raises InputError: if a folder is missing, holds no picture, or none has labels.
    """
    for folder in (images, labels):
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}: check the path")
    pictures = sorted(path for path in images.iterdir() if path.suffix.lower() in PICTURES)
    pairs = [(path, labels / f"{path.stem}.png") for path in pictures]
    found = [pair for pair in pairs if pair[1].is_file()]
    if not found:
        raise InputError(
            f"{images} holds {len(pictures)} pictures, of which none has a PNG of the same name in "
            f"{labels}: name the folders of one split, e.g. images/validation and "
            "annotations/validation"
        )
    return found


def first_label(card: ModelCard) -> int:
    """The value of the first class in label files: 1 where 0 is none, as in ADE20K and corpora."""
    assert card.segmentation is not None
    return 1 if card.segmentation.labels in ("ade20k", "generated_rooms", OWN_LABELS) else 0


def read_labels(path: Path, first: int) -> np.ndarray:
    """A label PNG as HxW int64 from 0; values below ``first`` and 255 become :data:`VOID`.

    :raises InputError: if it is no picture of one channel.
    """
    buffer = np.frombuffer(path.read_bytes(), np.uint8)
    values = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED) if buffer.size else None
    if values is None or values.ndim != 2 or values.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"{path} is no picture of labels: expected a PNG of one channel, 8 or 16 bits"
        )
    shifted = values.astype(np.int64) - first
    return np.where((shifted < 0) | (values == VOID), VOID, shifted)


def _check_numbering(true_hw: np.ndarray, first: int, classes: int) -> None:
    """Labels above the classes are of another list or numbering: counted, they would be wrong."""
    used = true_hw[true_hw != VOID]
    if not used.size:
        raise InputError(
            f"its labels name no class, expected {first} to {first + classes - 1}: it teaches "
            "nothing about the model"
        )
    if used.max() >= classes:
        raise InputError(
            f"its labels go up to {int(used.max()) + first}, the model's classes are {first} to "
            f"{first + classes - 1}: they belong to another list of classes or count from another "
            "number"
        )


def compare(
    label: Labeller, pairs: Iterator[tuple[Path, Path]], confusion: Confusion, first: int
) -> Iterator[str]:
    """Add every pair to ``confusion``; yields what was wrong with those that could not be used."""
    for picture, annotation in pairs:
        try:
            rgb_hwc = decode_compressed(picture.read_bytes())
            true_hw = read_labels(annotation, first)
            _check_numbering(true_hw, first, len(confusion.counts))
            confusion.add(label(rgb_hwc), true_hw)
        except (DensePerceptionError, OSError) as error:
            yield f"{picture.name}: {error}"
