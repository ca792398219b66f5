"""COCO's things as frames whose things are numbered, without labels of the other pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dense_perception.core.boxes import shared_areas
from dense_perception.core.errors import InputError
from dense_perception.core.printable import counted
from dense_perception.data.coco_annotations import read_annotations
from dense_perception.data.sample import Sample
from dense_perception.data.sets.files import FileSet, key_of, make_sample
from dense_perception.metrics.detection import (
    TrueThing,
    boxes_of_rles,
    covers,
    mask_of_rle,
    pixels_of_rle,
)


class CocoThings(FileSet):
    """COCO things: ``val2017/NAME.jpg`` (or ``images/val2017``) and
    ``annotations/instances_val2017.json``, or any file of the same kind at that place.

    Crowds are things that nobody is to learn, and so are the boxes of things without a mask. Where
    things overlap, the smaller one has the pixels. Pictures without a thing are frames, too.
    """

    name = "coco_things"

    def __init__(self, root: Path, split: str = "val2017") -> None:
        path = root / "annotations" / f"instances_{split}.json"
        if not path.is_file():
            raise InputError(
                f"{root} holds no frame of {self.name}, expected annotations/{path.name}"
            )
        found = read_annotations(path)
        if found.is_panoptic:
            raise InputError(f"{path} has panoptic segments: name it coco_panoptic:{root}")
        self.classes = found.classes
        self.problems = list(found.problems)
        images = next((p for p in (root / split, root / "images" / split) if p.is_dir()), root)
        entries: dict[str, tuple[Path, ...]] = {}
        self._things: dict[str, tuple[TrueThing, ...]] = {}
        without_mask = covered = 0
        bar = tqdm(found.pictures, path.name, delay=2, unit="picture", leave=False, disable=None)
        for picture in bar:
            key = key_of(Path(picture.file_name).with_suffix(""))
            if key in entries:
                self.problems.append(
                    f"{path.name}: {picture.file_name} and another picture are both the frame "
                    f"{key}: the first counts"
                )
                continue
            entries[key] = (images / picture.file_name,)
            self._things[key] = picture.things
            without_mask += sum(each.mask is None and not each.crowd for each in picture.things)
            covered += _covered(picture.things)
        if without_mask:
            self.problems.append(
                f"{path.name}: {counted(without_mask, 'thing')} without a mask: what is in the "
                "box is not learnt and counts neither way"
            )
        if covered:
            are = "is" if covered == 1 else "are"
            self.problems.append(
                f"{path.name}: {counted(covered, 'thing')} that smaller ones cover wholly {are} "
                "dropped: nothing is left of the mask, as a pixel is of one thing"
            )
        super().__init__(root, dict(sorted(entries.items())), f"annotations/{path.name}")

    def read(self, key: str, *paths: Path) -> Sample:
        sample = make_sample(key, paths[0])
        height, width = sample.rgb_hwc.shape[:2]
        instances_hw = np.zeros((height, width), np.uint16)
        masks = [_mask(thing, width, height, paths[0]) for thing in self._things[key]]
        classes: dict[int, int] = {}
        # Who is ignored comes first, then the smaller the later.
        pairs = sorted(
            zip(self._things[key], masks, strict=True),
            key=lambda pair: _place(pair[0], int(np.count_nonzero(pair[1]))),
        )
        for number, (thing, mask_hw) in enumerate(pairs, start=1):
            instances_hw[mask_hw] = number
            classes[number] = thing.label + 1 if _is_learnt(thing) else 0
        seen = set(np.unique(instances_hw).tolist())
        classes = {number: label for number, label in classes.items() if number in seen}
        return replace(sample, instances_hw=instances_hw, instance_labels=classes)


def _is_learnt(thing: TrueThing) -> bool:
    return thing.mask is not None and not thing.crowd


def _place(thing: TrueThing, pixels: int) -> tuple[bool, int]:
    """Where a thing comes among those of a picture, each of which covers those before it."""
    return _is_learnt(thing), -pixels


def _covered(things: Sequence[TrueThing]) -> int:
    """How many things of a picture that are to be learnt have no pixel of their own."""
    masks = [each.mask for each in things if each.mask is not None and not each.crowd]
    if len(masks) < 2:
        return 0
    pixels = np.array([pixels_of_rle(mask) for mask in masks], np.int64)
    order = np.argsort(-pixels, kind="stable")
    pixels, masks = pixels[order], [masks[place] for place in order]
    boxes_n4 = boxes_of_rles(masks)
    meets_nn = shared_areas(boxes_n4, boxes_n4) > 0
    count = 0
    for row in range(len(masks)):
        over = np.flatnonzero(meets_nn[row, row + 1 :]) + row + 1
        # Without enough pixels they cannot cover it, which spares most of the work.
        if pixels[over].sum() >= pixels[row]:
            count += covers([masks[place] for place in over], masks[row])
    return count


def _mask(thing: TrueThing, width: int, height: int, path: Path) -> np.ndarray:
    """(height, width) bool; of a thing without a mask its box."""
    if thing.mask is not None:
        if thing.mask["size"] != [height, width]:
            raise InputError(
                f"{path} has {width}x{height} pixels, its annotations are for "
                f"{thing.mask['size'][1]}x{thing.mask['size'][0]}: they do not belong together"
            )
        return mask_of_rle(thing.mask)
    mask_hw = np.zeros((height, width), bool)
    left, top, right, bottom = (max(0, round(side)) for side in thing.box)
    mask_hw[top:bottom, left:right] = True
    return mask_hw
