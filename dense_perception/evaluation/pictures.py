"""Folders of pictures with label PNGs of the same names, as ADE20K is laid out, as frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import InputError
from dense_perception.core.labels import VOID
from dense_perception.core.storage import read_file
from dense_perception.data.sample import Sample
from dense_perception.evaluation.segmentation import picture_pairs, read_labels
from dense_perception.imaging.messages import ImageReader

PICTURES = "pictures:"
_FOV_DEG = 60.0  # of no consequence: labels have no metres


class LabelledPictures:
    """The pictures of ``pictures:IMAGES:LABELS``, sorted by name.

    :param first: the value of the first class in the label files.
    :raises InputError: if a folder is missing, or no picture has labels.
    """

    classes: tuple[str, ...] = ()

    def __init__(self, text: str, first: int, reader: ImageReader) -> None:
        images, _, labels = text.removeprefix(PICTURES).rpartition(":")
        if not images:
            raise InputError(f"{text} names no two folders, expected {PICTURES}IMAGES:LABELS")
        self.name = Path(images).name
        pairs, self.left_out = picture_pairs(Path(images), Path(labels))
        self._pairs = {picture.name: (picture, annotation) for picture, annotation in pairs}
        self.keys = tuple(self._pairs)
        self._first, self._reader = first, reader

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Sample:
        return self.frame(self.keys[index])

    def frame(self, key: str) -> Sample:
        """The picture of that name; it has no depth.

        :raises InputError: if a file cannot be read, or their sizes differ.
        """
        picture, annotation = self._pairs[key]
        rgb_hwc = self._reader.picture(read_file(picture))
        labels_hw = read_labels(annotation, self._first)
        height, width = rgb_hwc.shape[:2]
        if labels_hw.shape != (height, width):
            raise InputError(
                f"its labels are {labels_hw.shape[1]}x{labels_hw.shape[0]}, the picture is "
                f"{width}x{height}"
            )
        return Sample(
            rgb_hwc,
            np.zeros((height, width), np.float32),
            Intrinsics.from_fov(width, height, _FOV_DEG),
            np.where(labels_hw == VOID, 0, labels_hw + 1).astype(np.uint8),
            key=key,
        )
