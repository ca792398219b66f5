"""Labels against annotated pictures."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dense_perception.core.card import ModelCard
from dense_perception.core.card_specs import OWN_LABELS
from dense_perception.core.errors import DensePerceptionError, InputError
from dense_perception.core.labels import VOID
from dense_perception.core.printable import counted
from dense_perception.core.storage import read_file
from dense_perception.imaging.decode import decode_labels
from dense_perception.imaging.messages import ImageReader
from dense_perception.imaging.resize import views
from dense_perception.media.files import has_picture_name
from dense_perception.metrics.dense import Confusion
from dense_perception.runtime.perceiver import Perceiver

_SHOWN = 5
Labeller = Callable[[np.ndarray], np.ndarray]
"""HxWx3 ``uint8`` RGB to HxW integer labels of the same size."""


def picture_pairs(images: Path, labels: Path) -> tuple[list[tuple[Path, Path]], str]:
    """Pictures and the PNGs of the same name in ``labels``, sorted, as ADE20K is laid out.

    The second is a line about pictures that have no labels, empty where all have.

    :raises InputError: if a folder is missing, holds no picture, or none has labels.
    """
    for folder in (images, labels):
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}: check the path")
    pictures = sorted(path for path in images.iterdir() if has_picture_name(path))
    present = {file.name.casefold(): file for file in labels.iterdir()}
    wanted = [(path, present.get(f"{path.stem}.png".casefold())) for path in pictures]
    found = [(path, file) for path, file in wanted if file is not None]
    if not found:
        raise InputError(
            f"{images} holds {counted(len(pictures), 'picture')}, of which none has a PNG of the "
            f"same name in {labels}: name the folders of one split, e.g. images/validation and "
            "annotations/validation"
        )
    without = [path.name for path, file in wanted if file is None]
    if not without:
        return found, ""
    shown = ", ".join(without[:_SHOWN]) + (", ..." if without[_SHOWN:] else "")
    return found, (
        f"{len(without)} of {len(pictures)} pictures have no PNG of the same name in {labels} and "
        f"were left out: {shown}"
    )


def first_label(card: ModelCard) -> int:
    """The value of the first class in label files: 1 where 0 is none, as in ADE20K and corpora."""
    assert card.segmentation is not None
    return 1 if card.segmentation.labels in ("ade20k", "generated_rooms", OWN_LABELS) else 0


def read_labels(path: Path, first: int) -> np.ndarray:
    """A label PNG as HxW int64 from 0; values below ``first`` and 255 become :data:`VOID`.

    :raises InputError: if it is no picture of one channel.
    """
    try:
        values = decode_labels(read_file(path))
    except InputError as error:
        raise InputError(f"{path} is no picture of labels: {error}") from error
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


@dataclass(frozen=True)
class LabelReport:
    """How the labels of ``pictures`` compared: shares of 0 to 1, and what could not be used.

    ``ious`` are those of the classes that occur, by name.
    """

    pictures: int
    mean_iou: float
    pixel_accuracy: float
    ious: dict[str, float]
    problems: list[str]


def evaluate_labels(
    card: ModelCard,
    label: Labeller,
    pairs: Sequence[tuple[Path, Path]],
    *,
    reader: ImageReader | None = None,
    progress: bool = False,
) -> LabelReport:
    """Compare what ``label`` says of each picture with the label file beside it.

    ``reader`` says how pictures are read, by default with all their bits; ``progress`` shows a bar
    on a terminal.

    :raises InputError: if no picture could be compared.
    """
    assert card.segmentation is not None
    names = card.segmentation.label_set.labels
    confusion, reader = Confusion(len(names)), reader or ImageReader()
    disable = None if progress else True
    bar = tqdm(pairs, unit="picture", disable=disable, file=sys.stderr)
    problems = list(compare(label, iter(bar), confusion, first_label(card), reader))
    return label_report(names, confusion, len(pairs), problems, reader.doubts)


def label_report(
    names: Sequence[str],
    confusion: Confusion,
    pictures: int,
    problems: Sequence[str],
    advice: Sequence[str] = (),
) -> LabelReport:
    """What came of ``pictures``, of which one for each of ``problems`` was not counted.

    :raises InputError: if no picture could be compared.
    """
    if len(problems) == pictures:
        raise InputError(
            f"none of the {pictures} pictures could be compared: {'; '.join(problems[:3])}"
        )
    return LabelReport(
        pictures=pictures - len(problems),
        mean_iou=confusion.mean_iou,
        pixel_accuracy=confusion.pixel_accuracy,
        ious={
            name: float(iou)
            for name, iou in zip(names, confusion.iou, strict=True)
            if not np.isnan(iou)  # a class that occurs nowhere
        },
        problems=[*problems, *advice],
    )


def compare(
    label: Labeller,
    pairs: Iterator[tuple[Path, Path]],
    confusion: Confusion,
    first: int,
    reader: ImageReader | None = None,
) -> Iterator[str]:
    """Add every pair to ``confusion``; yields what was wrong with those that could not be used.

    ``reader`` says how pictures are read, by default with all their bits.
    """
    reader = reader or ImageReader()
    for picture, annotation in pairs:
        try:
            rgb_hwc = reader.picture(read_file(picture))
            true_hw = read_labels(annotation, first)
            _check_numbering(true_hw, first, len(confusion.counts))
            confusion.add(label(rgb_hwc), true_hw)
        except (DensePerceptionError, OSError) as error:
            yield f"{picture.name}: {error}"


def perceiver_labeller(perceiver: Perceiver) -> Labeller:
    """Labels as the exported model gives them.

    :raises InputError: if it gives none.
    """
    _require_labels(perceiver.card)

    def label(rgb_hwc: np.ndarray) -> np.ndarray:
        labels = perceiver(rgb_hwc).labels
        assert labels is not None
        return labels.values_hw

    return label


def network_labeller(
    card: ModelCard, checkpoint: Path | None, *, multi_scale: bool, flip: bool
) -> Labeller:
    """Labels as the published network gives them in PyTorch, averaged over scales and mirrored.

    :raises InputError: if the model gives none.
    :raises ArtefactError: if the checkpoint is missing or does not fit.
    """
    from dense_perception.nets.labeller import published_labeller
    from dense_perception.nets.sliding_window import SCALES

    _require_labels(card)
    of_views = published_labeller(card, checkpoint, flip=flip)
    scales = SCALES if multi_scale else (1.0,)
    return lambda rgb_hwc: of_views(views(rgb_hwc, card, scales), rgb_hwc.shape[:2])


def _require_labels(card: ModelCard) -> None:
    """
    :raises InputError: if the model gives no labels.
    """
    if card.segmentation is None:
        raise InputError(f"model {card.name} gives no labels: choose a segmentation model")
