"""Data sets of labels alone: ADE20K, Pascal Context, COCO stuff and panoptic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.core.json_text import parse_json
from dense_perception.core.labels import LABEL_SETS
from dense_perception.data.files import read_image
from dense_perception.data.sample import Sample
from dense_perception.data.sets.files import (
    FileSet,
    images_below,
    key_of,
    looked_up,
    make_sample,
    read_labels,
)


class Ade20k(FileSet):
    """The scene parsing benchmark: ``images/validation/NAME.jpg`` and
    ``annotations/validation/NAME.png`` (0 for none, classes from 1 to 150).
    """

    name = "ade20k"
    classes = LABEL_SETS["ade20k"].labels

    def __init__(self, root: Path, split: str = "validation") -> None:
        entries: dict[str, tuple[Path, ...]] = {}
        for colour in images_below(root / "images" / split):
            labels = root / "annotations" / split / f"{colour.stem}.png"
            if labels.is_file():
                entries[key_of(colour.stem)] = (colour, labels)
        super().__init__(root, entries, f"images/{split}/NAME.jpg and annotations/{split}/NAME.png")

    def read(self, key: str, *paths: Path) -> Sample:
        table = {label: label for label in range(151)}
        return make_sample(key, paths[0], None, looked_up(read_labels(paths[1]), table, paths[1]))


class PascalContext(FileSet):
    """Pascal Context, 59 classes and background: ``JPEGImages/NAME.jpg``,
    ``SegmentationClassContext/NAME.png`` and ``ImageSets/SegmentationContext/val.txt``, below
    ``VOC2010`` or right here.
    """

    name = "pascal_context"
    classes = LABEL_SETS["pascal_context"].labels

    def __init__(self, root: Path, split: str = "val") -> None:
        places = (root, root / "VOC2010", root / "VOCdevkit" / "VOC2010")
        folder = next((each for each in places if (each / "JPEGImages").is_dir()), root)
        names = folder / "ImageSets" / "SegmentationContext" / f"{split}.txt"
        stems = names.read_text(encoding="utf-8").split() if names.is_file() else []
        entries = {
            key_of(stem): (
                folder / "JPEGImages" / f"{stem}.jpg",
                folder / "SegmentationClassContext" / f"{stem}.png",
            )
            for stem in stems
        }
        super().__init__(root, entries, f"ImageSets/SegmentationContext/{split}.txt")

    def read(self, key: str, *paths: Path) -> Sample:
        table = {**{label: label + 1 for label in range(60)}, 255: 0}
        return make_sample(key, paths[0], None, looked_up(read_labels(paths[1]), table, paths[1]))


class CocoStuff(FileSet):
    """COCO stuff: ``val2017/NAME.jpg`` (or ``images/val2017``) and
    ``stuffthingmaps/val2017/NAME.png`` (0 to 181, 255 for void).

    Or the stuff task's ``annotations/stuff_val2017_pixelmaps``, with the names in
    ``annotations/stuff_val2017.json``.
    """

    name = "coco_stuff"

    def __init__(self, root: Path, split: str = "val2017") -> None:
        maps = root / "stuffthingmaps" / split
        pixelmaps = root / "annotations" / f"stuff_{split}_pixelmaps"
        if maps.is_dir():
            self._table = {**{label: label + 1 for label in range(182)}, 255: 0}
            self.classes = _coco_names(root, split)
        else:
            maps = pixelmaps
            categories = _categories(root / "annotations" / f"stuff_{split}.json")
            self._table = {0: 0, **{number: k for k, number in enumerate(categories, 1)}}
            self.classes = tuple(categories.values())
        entries = _coco_entries(root, split, maps)
        super().__init__(root, entries, f"{split}/NAME.jpg and stuffthingmaps/{split}/NAME.png")

    def read(self, key: str, *paths: Path) -> Sample:
        labels_hw = looked_up(read_labels(paths[1]), self._table, paths[1])
        return make_sample(key, paths[0], None, labels_hw)


class CocoPanoptic(FileSet):
    """COCO panoptic: ``val2017/NAME.jpg``, ``annotations/panoptic_val2017.json`` and its PNGs,
    whose colours are the numbers of segments. Labels are the 133 categories in their order; the
    segments of those that are things (``isthing``) are numbered, crowds as things of nobody.
    """

    name = "coco_panoptic"

    def __init__(self, root: Path, split: str = "val2017") -> None:
        path = root / "annotations" / f"panoptic_{split}.json"
        data = _json(path)
        categories = _categories(path, data)
        self.classes = tuple(categories.values())
        labels = {number: k for k, number in enumerate(categories, 1)}
        folder = root / "annotations" / f"panoptic_{split}"
        images = _coco_images(root, split)
        entries: dict[str, tuple[Path, ...]] = {}
        self._segments: dict[str, dict[int, int]] = {}
        self._crowds: dict[str, set[int]] = {}
        problems: list[str] = []
        try:
            self._things = {
                labels[int(each["id"])] for each in data["categories"] if each.get("isthing")
            }
            for annotation in data["annotations"]:
                stem = Path(annotation["file_name"]).stem
                key = key_of(stem)
                entries[key] = (images / f"{stem}.jpg", folder / annotation["file_name"])
                segments: dict[int, int] = {}
                crowds = set()
                for each in annotation["segments_info"]:
                    number, category = int(each["id"]), int(each["category_id"])
                    where = f"{path.name}: segment {number} of {annotation['file_name']}"
                    if number in segments:
                        problems.append(f"{where} is listed twice: the first counts")
                        continue
                    if category not in labels:
                        problems.append(f"{where} has the unknown category {category}: it is void")
                    segments[number] = labels.get(category, 0)
                    crowds |= {number} if each.get("iscrowd") else set()
                self._segments[key], self._crowds[key] = segments, crowds
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is damaged: {error!r}") from error
        self.problems = problems
        super().__init__(root, dict(sorted(entries.items())), f"annotations/panoptic_{split}.json")

    def read(self, key: str, *paths: Path) -> Sample:
        bgr = read_image(paths[1])
        if bgr.ndim != 3 or bgr.dtype != np.uint8:
            raise InputError(f"{paths[1]} is {bgr.dtype} {bgr.shape}, expected 8-bit colours")
        blue, green, red = (bgr[..., k].astype(np.int64) for k in range(3))
        numbers, places = np.unique(red + 256 * green + 65536 * blue, return_inverse=True)
        segments = {0: 0, **self._segments[key]}
        unknown = [number for number in numbers.tolist() if number not in segments]
        if unknown:
            raise InputError(f"{paths[1]} has segments that the JSON does not name: {unknown[:3]}")
        labels = np.array([segments[number] for number in numbers.tolist()], np.uint8)
        sample = make_sample(key, paths[0], None, labels[places].reshape(bgr.shape[:2]))
        if not self._things:
            return sample
        is_thing = np.isin(labels, list(self._things))
        # Numbers of segments have 24 bits, those of things 16.
        own = np.where(is_thing, np.cumsum(is_thing), 0).astype(np.uint16)
        classes = {
            int(own[k]): 0 if number in self._crowds[key] else int(labels[k])
            for k, number in enumerate(numbers.tolist())
            if is_thing[k]
        }
        instances_hw = own[places].reshape(bgr.shape[:2])
        return replace(sample, instances_hw=instances_hw, instance_labels=classes)


def _coco_images(root: Path, split: str) -> Path:
    return next((each for each in (root / split, root / "images" / split) if each.is_dir()), root)


def _coco_entries(root: Path, split: str, maps: Path) -> dict[str, tuple[Path, ...]]:
    entries: dict[str, tuple[Path, ...]] = {}
    for colour in images_below(_coco_images(root, split)):
        labels = maps / f"{colour.stem}.png"
        if labels.is_file():
            entries[key_of(colour.stem)] = (colour, labels)
    return entries


def _coco_names(root: Path, split: str) -> tuple[str, ...]:
    """Names of the 182 numbers of stuff-thing maps; empty without the categories' files."""
    names = {}
    for kind in ("instances", "stuff"):
        path = root / "annotations" / f"{kind}_{split}.json"
        if path.is_file():
            names.update(_categories(path))
    return tuple(names.get(k, f"class {k}") for k in range(1, 183)) if names else ()


def _categories(path: Path, data: Any = None) -> dict[int, str]:  # noqa: ANN401
    """Names by number, in the order of the numbers."""
    data = _json(path) if data is None else data
    try:
        found = {int(each["id"]): str(each["name"]) for each in data["categories"]}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} names no categories: {error!r}") from error
    return dict(sorted(found.items()))


def _json(path: Path) -> Any:  # noqa: ANN401
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
