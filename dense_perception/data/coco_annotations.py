"""COCO's annotation files: things with boxes and masks, or panoptic segments with their PNGs.

Nothing is left out in silence: whatever does not fit is in ``problems``, named by its id.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import cv2
import numpy as np
from tqdm import tqdm

from dense_perception.core.errors import InputError
from dense_perception.core.json_text import parse_json
from dense_perception.core.printable import counted, short
from dense_perception.core.storage import read_file
from dense_perception.data.coco_masks import leaves, read_mask
from dense_perception.metrics.detection import Rle, TrueThing, pixels_of_rle
from dense_perception.metrics.panoptic import UNSEGMENTED, Segments

_MOST_BYTES = 1 << 30
_Found = TypeVar("_Found")
_SHOWN = 5


@dataclass(frozen=True)
class AnnotatedPicture:
    """A picture's file name and size, and its ``things``, or its panoptic ``segments_file``.

    ``segments`` are the segments' classes and which of them are crowds, by id.
    """

    file_name: str
    width: int
    height: int
    things: tuple[TrueThing, ...] = ()
    segments_file: str = ""
    segments: Mapping[int, tuple[int, bool]] = field(default_factory=dict)


@dataclass(frozen=True)
class Annotations:
    """What a file holds; ``classes`` are the names of its categories, numbered from 0."""

    path: Path
    is_panoptic: bool
    classes: tuple[str, ...]
    pictures: tuple[AnnotatedPicture, ...]
    problems: tuple[str, ...]


def read_annotations(path: Path) -> Annotations:
    """
    :raises InputError: if the file cannot be read or is no COCO annotation file.
    """
    try:
        data = parse_json(read_file(path, _MOST_BYTES))
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if not isinstance(data, Mapping):
        raise InputError(f"{path} is no COCO file: expected a mapping with 'images'")
    missing = [name for name in ("images", "annotations", "categories") if not _is_list(data, name)]
    if missing:
        raise InputError(f"{path} is no COCO file: it has no list of {' or '.join(missing)}")
    return _Reader(path, data).read()


def read_segments(folder: Path, picture: AnnotatedPicture) -> tuple[Segments, list[str]]:
    """A panoptic picture's segments, and what is wrong with it; pixels of no segment are void.

    :raises InputError: if the PNG is missing, no picture of three bytes, or of another size.
    """
    content = np.frombuffer(read_file(folder / picture.segments_file), np.uint8)
    bgr_hwc = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    if bgr_hwc is None:
        raise InputError(f"{folder / picture.segments_file} is no PNG")
    if bgr_hwc.shape[:2] != (picture.height, picture.width):
        raise InputError(
            f"{picture.segments_file} is {bgr_hwc.shape[1]}x{bgr_hwc.shape[0]}, its picture "
            f"{picture.width}x{picture.height}"
        )
    wide = bgr_hwc.astype(np.int64)
    ids_hw = wide[..., 2] + 256 * wide[..., 1] + 65536 * wide[..., 0]
    present = {int(number) for number in np.unique(ids_hw)} - {UNSEGMENTED}
    problems = []
    if strange := sorted(present - picture.segments.keys()):
        problems.append(
            f"{picture.segments_file} has pixels of the segments {_some(strange)}, which its "
            "annotation does not list: they are void"
        )
        ids_hw[np.isin(ids_hw, strange)] = UNSEGMENTED
    if absent := sorted(picture.segments.keys() - present):
        problems.append(
            f"{picture.segments_file} has no pixel of its segments {_some(absent)}: they are missed"
        )
    classes = {number: label for number, (label, _) in picture.segments.items()}
    crowds = frozenset(number for number, (_, crowd) in picture.segments.items() if crowd)
    return Segments(ids_hw, classes, crowds), problems


class _Reader:
    """Reads the lists entry by entry; what does not fit is a problem and left out."""

    def __init__(self, path: Path, data: Mapping[str, Any]) -> None:
        self._path, self._data = path, data
        self._problems: list[str] = []
        self._outside: list[int] = []
        self._maskless: list[int] = []

    def read(self) -> Annotations:
        labels, names = self._categories()
        images = self._images()
        annotations = [a for a in self._data["annotations"] if self._is_entry(a, "annotation")]
        panoptic = any("segments_info" in each for each in annotations)
        if panoptic:
            pictures = tuple(self._panoptic(annotations, images, labels))
        else:
            pictures = tuple(self._things(annotations, images, labels))
        return Annotations(self._path, panoptic, names, pictures, tuple(self._problems))

    def _categories(self) -> tuple[dict[int, int], tuple[str, ...]]:
        labels: dict[int, int] = {}
        names: list[str] = []
        folded: dict[str, int] = {}
        for entry in self._data["categories"]:
            number, name = self._id(entry), entry.get("name") if _is_mapping(entry) else None
            if number is None or not isinstance(name, str) or not name:
                self._say(f"category {short(entry)} has no id and name")
            elif number in labels:
                self._say(f"category {number} ({name}) is there twice: the first counts")
            elif (first := folded.get(name.casefold())) is not None:
                labels[number] = labels[first]
                self._say(
                    f"category {number} ({name}) has the name of category {first}: both are one "
                    "class"
                )
            else:
                folded[name.casefold()] = number
                labels[number] = len(names)
                names.append(name)
        if not names:
            raise InputError(f"{self._path} names no categories")
        return labels, tuple(names)

    def _images(self) -> dict[int, AnnotatedPicture]:
        found: dict[int, AnnotatedPicture] = {}
        files: set[str] = set()
        for entry in self._data["images"]:
            number = self._id(entry)
            if number is None:
                self._say(f"image {short(entry)} has no id that is a whole number")
                continue
            name, sides = entry.get("file_name"), [entry.get(n) for n in ("width", "height")]
            if not (isinstance(name, str) and Path(name).name and all(map(_is_side, sides))):
                self._say(f"image {number} has no file_name, width and height")
            elif Path(name).is_absolute() or ".." in Path(name).parts:
                self._say(f"image {number} is {name!r}, which is outside of the pictures' folder")
            elif number in found or name in files:
                self._say(f"image {number} ({name}) is there twice: the first counts")
            else:
                found[number] = AnnotatedPicture(name, int(sides[0]), int(sides[1]))
                files.add(name)
        if not found:
            raise InputError(f"{self._path} lists no pictures: {'; '.join(self._problems[:3])}")
        return found

    def _things(
        self,
        annotations: Sequence[Mapping[str, Any]],
        images: Mapping[int, AnnotatedPicture],
        labels: Mapping[int, int],
    ) -> Iterator[AnnotatedPicture]:
        by_image: dict[int, list[TrueThing]] = {number: [] for number in images}
        seen: set[int] = set()
        bar = tqdm(
            annotations, self._path.name, delay=2, unit="annotation", leave=False, disable=None
        )
        for entry in bar:
            name = f"annotation {short(entry.get('id'))}"
            number = self._id(entry)
            if number in seen:
                self._say(f"{name} is there twice: both count")
            seen.update([] if number is None else [number])
            image = _named(images, entry.get("image_id"))
            if image is None:
                self._say(f"{name} is of the image {short(entry.get('image_id'))}, not in the file")
                continue
            label = _named(labels, entry.get("category_id"))
            if label is None:
                self._say(
                    f"{name} has the category {short(entry.get('category_id'))}, which the file "
                    "does not name: left out"
                )
                continue
            thing = self._thing(entry, name, image, label)
            if thing is not None:
                by_image[entry["image_id"]].append(thing)
        if self._outside:
            self._say(
                f"{counted(len(self._outside), 'annotation')} "
                f"{'reaches' if len(self._outside) == 1 else 'reach'} outside of the picture "
                f"({_some(self._outside)}): masks are cut off there"
            )
        if self._maskless and len(self._maskless) < sum(map(len, by_image.values())):
            self._say(
                f"{counted(len(self._maskless), 'annotation')} without a segmentation "
                f"({_some(self._maskless)})"
            )
        for number, image in images.items():
            yield AnnotatedPicture(
                image.file_name, image.width, image.height, tuple(by_image[number])
            )

    def _thing(
        self, entry: Mapping[str, Any], name: str, image: AnnotatedPicture, label: int
    ) -> TrueThing | None:
        box = entry.get("bbox")
        if not (_are_numbers(box) and len(box) == 4 and box[2] > 0 and box[3] > 0):
            self._say(f"{name} has the box {short(box)}, expected x, y, width and height: left out")
            return None
        x, y, width, height = (float(side) for side in box)
        given, number = entry.get("segmentation"), self._id(entry) or 0
        mask = None
        if given is None or given == []:
            self._maskless.append(number)
        else:
            mask = self._mask(given, name, image)
        sides = x + width, y + height
        if (
            min(x, y) < -1
            or sides[0] > image.width + 1
            or sides[1] > image.height + 1
            or (mask is not None and leaves(given, image.width, image.height))
        ):
            self._outside.append(number)
        return TrueThing(
            (x, y, *sides),
            label,
            self._is_crowd(entry, name),
            mask,
            self._area(entry, name),
        )

    def _mask(self, given: object, name: str, image: AnnotatedPicture) -> Rle | None:
        try:
            mask = read_mask(given, image.width, image.height)
            if not pixels_of_rle(mask):
                raise InputError("has no pixel in the picture")
        except InputError as error:
            self._say(f"the segmentation of {name} {error}")
            return None
        return mask

    def _is_crowd(self, entry: Mapping[str, Any], name: str) -> bool:
        given = entry.get("iscrowd", 0)
        if given in (0, 1) and not isinstance(given, str):
            return bool(given)
        crowd = given == "1"
        self._say(
            f"{name} has iscrowd {short(given)}, expected 0 or 1: it counts as "
            f"{'a crowd' if crowd else 'one thing'}"
        )
        return crowd

    def _area(self, entry: Mapping[str, Any], name: str) -> float | None:
        """None leaves it to the mask, or the box."""
        area = entry.get("area")
        if area is None:
            return None
        if type(area) in (int, float) and 0 < area < math.inf:
            return float(area)
        self._say(
            f"{name} has the area {short(area)}, expected a number above 0: that of its mask or "
            "box counts"
        )
        return None

    def _panoptic(
        self,
        annotations: Sequence[Mapping[str, Any]],
        images: Mapping[int, AnnotatedPicture],
        labels: Mapping[int, int],
    ) -> Iterator[AnnotatedPicture]:
        done: set[int] = set()
        for entry in annotations:
            number = entry.get("image_id")
            image = _named(images, number)
            listed, file = entry.get("segments_info"), entry.get("file_name")
            if image is None or not isinstance(listed, list) or not isinstance(file, str):
                self._say(f"the annotation of image {short(number)} is not whole: left out")
                continue
            assert isinstance(number, int)
            if number in done:
                self._say(f"image {number} has two annotations: the first counts")
                continue
            done.add(number)
            if Path(file).is_absolute() or ".." in Path(file).parts:
                self._say(f"image {number}: {file!r} is outside of the PNGs' folder: left out")
                continue
            segments: dict[int, tuple[int, bool]] = {}
            twice = False
            for each in listed:
                own = self._id(each)
                label = _named(labels, each.get("category_id")) if _is_mapping(each) else None
                if own is None or label is None:
                    self._say(
                        f"image {number}: segment {short(each)} has no id or an unknown category: "
                        "its pixels are void"
                    )
                elif own in segments:
                    twice = True
                    self._say(f"image {number}: two segments have the id {own}: left out")
                else:
                    crowd = self._is_crowd(each, f"segment {own} of image {number}")
                    segments[own] = (label, crowd)
            if not twice:
                yield AnnotatedPicture(
                    image.file_name,
                    image.width,
                    image.height,
                    segments_file=file,
                    segments=segments,
                )
        if without := sorted(set(images) - done):
            images_have = f"{counted(len(without), 'image')} ha{'s' if len(without) == 1 else 've'}"
            self._say(f"{images_have} no annotation ({_some(without)}): left out")

    def _is_entry(self, entry: object, what: str) -> bool:
        if _is_mapping(entry):
            return True
        self._say(f"{what} {short(entry)} is no mapping: left out")
        return False

    def _id(self, entry: object) -> int | None:
        number = entry.get("id") if isinstance(entry, Mapping) else None
        return number if type(number) is int else None

    def _say(self, problem: str) -> None:
        self._problems.append(f"{self._path.name}: {problem}")


def _is_list(data: Mapping[str, Any], name: str) -> bool:
    return isinstance(data.get(name), list)


def _is_mapping(value: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)


def _named(found: Mapping[int, _Found], number: object) -> _Found | None:
    """What is of that id; whatever else stands in its place is of none."""
    return found.get(number) if type(number) is int else None


def _is_side(value: object) -> bool:
    return type(value) is int and 0 < value < 65536


def _are_numbers(value: object) -> TypeGuard[list[float]]:
    return isinstance(value, list) and all(
        type(number) in (int, float) and abs(number) < 1e9 for number in value
    )


def _some(numbers: Sequence[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:_SHOWN])
    return shown + (", ..." if len(numbers) > _SHOWN else "")
