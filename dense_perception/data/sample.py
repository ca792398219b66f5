"""One frame with its truth: what every source of training and evaluation data gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from dense_perception.core.camera import Intrinsics


@dataclass(frozen=True, slots=True)
class Sample:
    """One frame: ``rgb_hwc`` uint8, ``depth_m`` (H, W) planar metres, 0 = none, and intrinsics.

    ``labels_hw`` (H, W) uint8 counts the classes from 1, 0 = void; None where there are no labels.
    A frame without any depth has ``depth_m`` 0 everywhere.

    ``key`` names the frame in its corpus, ``recording`` what it was taken from, ``stamp_ns`` when;
    frames of one number ``scene`` show one place. ``camera_7`` is float32 position x, y, z and
    quaternion qx, qy, qz, qw of the optical frame (x right, y down, z forward) in the world (z up).
    Each is None or empty where it is not known.

    ``instances_hw`` (H, W) uint16 numbers the things in view, 0 = none, and ``instance_labels``
    gives the class of each that is in view, as ``labels_hw`` counts; None and empty where they are
    not known. Class 0 is a thing that counts neither for nor against a model, such as a crowd. A
    thing has one number in all frames of a scene.

    ``jpeg`` is the image as a JPEG file where it came as one, so that storing it again loses
    nothing.
    """

    rgb_hwc: np.ndarray
    depth_m: np.ndarray
    intrinsics: Intrinsics
    labels_hw: np.ndarray | None = None
    scene: int | None = None
    camera_7: np.ndarray | None = None
    key: str = ""
    recording: str = ""
    stamp_ns: int | None = None
    jpeg: bytes | None = None
    instances_hw: np.ndarray | None = None
    instance_labels: Mapping[int, int] = field(default_factory=dict)


def instance_labels(instances_hw: np.ndarray, labels_hw: np.ndarray) -> dict[int, int]:
    """The class that most pixels of each instance have; uint16 and uint8, both (H, W)."""
    inside = instances_hw > 0
    pairs = instances_hw[inside].astype(np.uint32) << 8 | labels_hw[inside]
    codes, counts = np.unique(pairs, return_counts=True)
    most: dict[int, int] = {}
    for code in codes[np.argsort(counts, kind="stable")].tolist():
        most[code >> 8] = code & 255
    return dict(sorted(most.items()))


class Frames(Protocol):
    """What a data set is to training and evaluation: a length and samples by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


class NamedFrames(Frames, Protocol):
    """Frames with a name, keys, and the names of their classes.

    ``keys`` are unique and in the order of the indices. ``classes`` are the names of the labels
    from 1 on; empty where nobody named them.
    """

    @property
    def name(self) -> str: ...

    @property
    def keys(self) -> Sequence[str]: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    def frame(self, key: str, /) -> Sample:
        """The frame of that key.

        :raises KeyError: if there is none.
        """
