"""Average precision of boxes and masks by COCO's rules, counted by faster-coco-eval.

Its figures are those of pycocotools: over overlaps from 0.50 to 0.95, the 101 recalls, at most 100
things a picture, crowds and things of other sizes ignored.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, TypedDict

import numpy as np

from dense_perception.core.errors import InputError


class Rle(TypedDict):
    """A mask as COCO's run lengths: ``size`` is height and width."""

    size: list[int]
    counts: bytes


@dataclass(frozen=True)
class TrueThing:
    """An annotated thing: ``box`` is x1, y1, x2, y2 in pixels, ``label`` its class.

    ``crowd`` marks a region that holds several; ``area`` is in pixels, by default the mask's, or
    the box's. Where ``mask`` is unknown, what is found inside the box counts neither way for masks.
    """

    box: tuple[float, float, float, float]
    label: int
    crowd: bool = False
    mask: Rle | None = None
    area: float | None = None


@dataclass(frozen=True)
class FoundThings:
    """What a model found in a picture; ``masks`` one for each row, or None for a model of boxes."""

    boxes_n4: np.ndarray
    scores_n: np.ndarray
    classes_n: np.ndarray
    masks: Sequence[Rle] | None = None


@dataclass(frozen=True)
class Precision:
    """Shares of 0 to 1, NaN where nothing can count: the mean over classes that occur.

    ``ap50`` and ``ap75`` are at these overlaps, ``ap_small``, ``ap_medium`` and ``ap_large`` of
    things up to 32 x 32, from there to 96 x 96 and above, in pixels of the picture; ``recall`` is
    the mean recall of 100 things a picture, ``by_class`` the AP of each class that occurs.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    recall: float
    by_class: dict[str, float]


@dataclass
class DetectionScores:
    """Collects pictures, then counts: :meth:`boxes`, :meth:`masks`.

    :raises InputError: if faster-coco-eval is not installed.
    """

    classes: Sequence[str]
    _images: list[dict[str, Any]] = field(default_factory=list)
    _true: list[dict[str, Any]] = field(default_factory=list)
    _found: list[dict[str, Any]] = field(default_factory=list)
    _finds_masks: bool = True
    _has_masks: bool = False

    def __post_init__(self) -> None:
        library()

    def add(self, width: int, height: int, found: FoundThings, true: Sequence[TrueThing]) -> None:
        """A picture; without any ``true`` thing all that is found is false.

        :raises InputError: if a class is out of range.
        """
        number = len(self._images) + 1
        labels = [thing.label for thing in true] + [int(label) for label in found.classes_n]
        if labels and not 0 <= min(labels) <= max(labels) < len(self.classes):
            raise InputError(
                f"things have the classes {min(labels)} to {max(labels)}, expected 0 to "
                f"{len(self.classes) - 1}"
            )
        self._images.append({"id": number, "width": width, "height": height})
        for thing in true:
            entry = self._entry(number, thing.box, thing.label, thing.mask)
            # 0 means "matched with nothing" in the library, so ids count from 1.
            entry |= {"id": len(self._true) + 1, "iscrowd": int(thing.crowd)}
            if thing.area is not None:
                entry["area"] = thing.area
            self._true.append(entry)
            self._has_masks |= thing.mask is not None
        self._finds_masks &= found.masks is not None
        for row, (box, label) in enumerate(zip(found.boxes_n4, found.classes_n, strict=True)):
            mask = None if found.masks is None else found.masks[row]
            entry = self._entry(number, tuple(float(side) for side in box), int(label), mask)
            entry |= {"id": len(self._found) + 1, "score": float(found.scores_n[row])}
            self._found.append(entry | {"iscrowd": 0})

    def boxes(self) -> Precision:
        """By the overlap of boxes."""
        return self._count("bbox")

    def masks(self) -> Precision | None:
        """By the overlap of masks; ``None`` where the model, or all of the truth, has none."""
        has_masks = self._finds_masks and (self._has_masks or not self._true)
        return self._count("segm") if has_masks and self._images else None

    def _entry(
        self, picture: int, box: Sequence[float], label: int, mask: Rle | None
    ) -> dict[str, Any]:
        left, top, right, bottom = box
        entry = {
            "image_id": picture,
            "category_id": label + 1,
            "bbox": [left, top, right - left, bottom - top],
            "area": (right - left) * (bottom - top),
        }
        if mask is not None:
            entry |= {"segmentation": mask, "area": float(pixels_of_rle(mask))}
        return entry

    def _ignored(self, entry: dict[str, Any]) -> dict[str, Any]:
        """A thing of which only the box is known, as COCO's rules have a crowd."""
        picture = self._images[entry["image_id"] - 1]
        left, top, width, height = entry["bbox"]
        corners = [left, top, left + width, top, left + width, top + height, left, top + height]
        rle = rle_of_polygons([corners], picture["width"], picture["height"])
        return entry | {"segmentation": rle, "iscrowd": 1}

    def _count(self, kind: str) -> Precision:
        coco = library()
        categories = [{"id": n + 1, "name": name} for n, name in enumerate(self.classes)]
        found, true = self._found, self._true
        if kind == "segm":
            true = [each if "segmentation" in each else self._ignored(each) for each in true]
        if kind == "bbox":
            # How large a found box is decides by its sides, though there be a mask.
            found = [{**entry, "area": entry["bbox"][2] * entry["bbox"][3]} for entry in found]
        data = [
            coco.COCO({"images": self._images, "annotations": entries, "categories": categories})
            for entries in ([dict(entry) for entry in true], [dict(entry) for entry in found])
        ]
        counting = coco.COCOeval_faster(*data, iouType=kind, print_function=_ignore)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            counting.evaluate()
            counting.accumulate()
        precision = np.asarray(counting.eval["precision"])
        recall = np.asarray(counting.eval["recall"])
        return _precision(precision, recall, self.classes)


def _precision(precision: np.ndarray, recall: np.ndarray, classes: Sequence[str]) -> Precision:
    """Means of (overlaps, recalls, classes, sizes, numbers) where there is something to find."""

    def mean(values: np.ndarray) -> float:
        values = values[values > -1]
        return float(values.mean()) if values.size else float("nan")

    most = precision[..., -1]
    by_class = {name: mean(most[:, :, n, 0]) for n, name in enumerate(classes)}
    return Precision(
        ap=mean(most[..., 0]),
        ap50=mean(most[0, :, :, 0]),
        ap75=mean(most[5, :, :, 0]),
        ap_small=mean(most[..., 1]),
        ap_medium=mean(most[..., 2]),
        ap_large=mean(most[..., 3]),
        recall=mean(recall[:, :, 0, -1]),
        by_class={name: value for name, value in by_class.items() if not np.isnan(value)},
    )


def rle_of_mask(mask_hw: np.ndarray) -> Rle:
    """A boolean or 0 / 1 mask in run lengths."""
    found: Rle = _masks().encode(np.asfortranarray(mask_hw, np.uint8))
    return found


def rle_of_polygons(polygons: Sequence[Sequence[float]], width: int, height: int) -> Rle:
    """The union of polygons, each x, y, x, y, ...; what is outside of the picture is cut off."""
    found: Rle = _masks().segmToRle([list(each) for each in polygons], width, height)
    return found


def rle_of_counts(counts: Sequence[int], width: int, height: int) -> Rle:
    """COCO's uncompressed run lengths, as annotations of crowds have them."""
    entry = {"size": [height, width], "counts": list(counts)}
    found: Rle = _masks().frPyObjects(entry, height, width)
    return found


def pixels_of_rle(rle: Rle) -> int:
    """How many pixels a mask has."""
    return int(_masks().area(rle))


def boxes_of_rles(masks: Sequence[Rle]) -> np.ndarray:
    """x1, y1, x2, y2 around the pixels of each mask, (n, 4) float64."""
    sides_n4 = np.asarray(_masks().toBbox(list(masks)), np.float64).reshape(-1, 4)
    return np.concatenate([sides_n4[:, :2], sides_n4[:, :2] + sides_n4[:, 2:]], axis=1)


def covers(masks: Sequence[Rle], other: Rle) -> bool:
    """Whether every pixel of ``other`` is in one of the masks, of one size."""
    library = _masks()
    together = pixels_of_rle(library.merge(list(masks)))
    return together == pixels_of_rle(library.merge([*masks, other]))


def mask_of_rle(rle: Rle) -> np.ndarray:
    """(height, width) bool."""
    return np.asarray(_masks().decode(rle)).astype(bool)


def library() -> ModuleType:
    """
    :raises InputError: if faster-coco-eval is not installed.
    """
    try:
        import faster_coco_eval
    except ImportError as error:
        raise InputError(
            "average precision needs faster-coco-eval, which is not installed: "
            "pip install 'dense_perception[detection]', or pip install faster-coco-eval"
        ) from error
    found: ModuleType = faster_coco_eval
    return found


def _masks() -> ModuleType:
    found: ModuleType = library().mask
    return found


def _ignore(*_: object) -> None:
    """The library's table is not shown."""
