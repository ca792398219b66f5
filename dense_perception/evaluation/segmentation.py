"""Labels against annotated pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from dense_perception.core.card import ModelCard
from dense_perception.core.errors import DensePerceptionError, InputError
from dense_perception.core.labels import VOID
from dense_perception.evaluation.dense_metrics import Confusion
from dense_perception.imaging.decode import decode_compressed

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
    """The value of the first class in published label files: ADE20K's count from 1, 0 is void."""
    assert card.segmentation is not None
    return 1 if card.segmentation.labels == "ade20k" else 0


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


def compare(
    label: Labeller, pairs: Iterator[tuple[Path, Path]], confusion: Confusion, first: int
) -> Iterator[str]:
    """Add every pair to ``confusion``; yields what was wrong with those that could not be used."""
    for picture, annotation in pairs:
        try:
            rgb_hwc = decode_compressed(picture.read_bytes())
            confusion.add(label(rgb_hwc), read_labels(annotation, first))
        except (DensePerceptionError, OSError) as error:
            yield f"{picture.name}: {error}"


def multi_scale_labeller(
    card: ModelCard, checkpoint: Path | None, *, multi_scale: bool, flip: bool
) -> Labeller:
    """The published network in PyTorch, as its authors evaluate it.

    The short side is scaled to the card's window, the aspect kept; windows slide over each scale
    and mirror image; probabilities are averaged. A card without a window slides its input size.

    :raises ArtefactError: if the checkpoint is missing or does not fit.
    """
    import torch

    from dense_perception.export.published import load_published
    from dense_perception.nets.sliding_window import SCALES, multi_scale_probabilities
    from dense_perception.nets.zoo import normalisation

    assert card.segmentation is not None
    network, _, _ = load_published(card, checkpoint)
    mean, std = (torch.tensor(v)[:, None, None] for v in normalisation(card.network))
    window = card.segmentation.window or min(card.input.height, card.input.width)
    stride = card.segmentation.stride or 2 * window // 3
    scales = SCALES if multi_scale else (1.0,)

    def label(rgb_hwc: np.ndarray) -> np.ndarray:
        height, width = rgb_hwc.shape[:2]
        short = min(height, width)
        size = (max(window, width * window // short), max(window, height * window // short))
        scaled_hwc = cv2.resize(rgb_hwc, size, interpolation=cv2.INTER_LINEAR)
        image_chw = (torch.from_numpy(scaled_hwc).permute(2, 0, 1) / 255 - mean) / std
        probabilities = multi_scale_probabilities(
            network,
            image_chw[None],
            window,
            stride,
            scales=scales,
            flip=flip,
            size_hw=(height, width),
        )
        return probabilities[0].argmax(0).numpy()

    return label
