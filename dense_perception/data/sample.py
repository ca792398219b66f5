"""One frame with its truth: what every source of training and evaluation data gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
