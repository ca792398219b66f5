"""What the readers of data sets in files share: frames by key, each read when it is asked for."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import InputError
from dense_perception.data.files import read_image, read_jpeg, read_rgb
from dense_perception.data.sample import Sample

# Of data sets that know no camera: a common field of view. Their depth, if any, is not metric.
_HFOV_DEG = 60.0


class FileSet(ABC):
    """Frames in files; ``keys`` are letters, digits, ``_`` and ``-``.

    ``problems`` are sentences about what is wrong in them and was left out or replaced.

    :param entries: whatever finds a frame, by key, in order.
    :raises InputError: without an entry.
    """

    name = ""
    classes: tuple[str, ...] = ()
    problems: Sequence[str] = ()

    def __init__(self, root: Path, entries: Mapping[str, tuple[Path, ...]], expected: str) -> None:
        self.root = root
        self.entries = dict(entries)
        self.keys: Sequence[str] = tuple(self.entries)
        if not self.keys:
            raise InputError(f"{root} holds no frame of {self.name}, expected {expected}")

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        return self.frame(self.keys[index])

    def frame(self, key: str) -> Sample:
        """The frame of that key.

        :raises KeyError: if there is none.
        :raises InputError: if a file is missing, damaged or of another size; it is named.
        """
        return self.read(key, *self.entries[key])

    @abstractmethod
    def read(self, key: str, *paths: Path) -> Sample:
        """The frame whose entry is ``paths``."""


def make_sample(
    key: str,
    colour: Path,
    depth_m: np.ndarray | None = None,
    labels_hw: np.ndarray | None = None,
    camera: Intrinsics | None = None,
    camera_7: np.ndarray | None = None,
    recording: str = "",
    stamp_ns: int | None = None,
) -> Sample:
    """A sample of a colour file and its truth; without a camera a usual one is assumed.

    :raises InputError: if the colour image cannot be read, or sizes differ.
    """
    rgb_hwc = read_rgb(colour)
    height, width = rgb_hwc.shape[:2]
    for what, found in (("depth", depth_m), ("label", labels_hw)):
        if found is not None and found.shape != (height, width):
            raise InputError(
                f"{colour} has {width}x{height} pixels, its {what} image "
                f"{found.shape[1]}x{found.shape[0]}: they do not belong together"
            )
    return Sample(
        rgb_hwc,
        np.zeros((height, width), np.float32) if depth_m is None else depth_m,
        camera or Intrinsics.from_fov(width, height, _HFOV_DEG),
        labels_hw,
        camera_7=camera_7,
        key=key,
        recording=recording,
        stamp_ns=stamp_ns,
        jpeg=read_jpeg(colour),
    )


def read_depth(path: Path, unit_m: float, none: int = 0) -> np.ndarray:
    """A 16-bit depth image as float32 metres, 0 for the value ``none``.

    :raises InputError: if it is something else.
    """
    steps = read_image(path)
    if steps.dtype != np.uint16 or steps.ndim != 2:
        raise InputError(
            f"{path} is {steps.dtype} with shape {steps.shape}, expected depth of 16 bits"
        )
    return np.where(steps == none, 0, steps.astype(np.float32) * np.float32(unit_m))


def read_labels(path: Path) -> np.ndarray:
    """A label image of one channel as int32.

    :raises InputError: if it is something else.
    """
    labels = read_image(path)
    if labels.ndim != 2 or labels.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"{path} is {labels.dtype} with shape {labels.shape}, expected labels of one channel"
        )
    return labels.astype(np.int32)


def looked_up(labels_hw: np.ndarray, table: Mapping[int, int], path: Path) -> np.ndarray:
    """Stored labels to those of a corpus (from 1, 0 is void), as uint8.

    :raises InputError: if there is a label that ``table`` does not name.
    """
    known = np.full(max([*table, int(labels_hw.max(initial=0))]) + 1, -1, np.int32)
    for stored, label in table.items():
        known[stored] = label
    found = known[labels_hw]
    if found.min(initial=0) < 0:
        unknown = sorted(set(np.unique(labels_hw).tolist()) - table.keys())
        raise InputError(f"{path} has the labels {unknown[:5]}, which are none of its data set's")
    return found.astype(np.uint8)


def key_of(path: Path | str) -> str:
    """A path below a data set's folder as a key."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", str(path)).strip("_")[-80:]


def images_below(folder: Path, pattern: str = "*") -> list[Path]:
    """The images of a folder, sorted."""
    suffixes = (".jpg", ".jpeg", ".png")
    return sorted(path for path in folder.glob(pattern) if path.suffix.lower() in suffixes)
