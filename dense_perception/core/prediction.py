"""What a model says about one frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import InputError
from dense_perception.core.labels import LabelSet

GRAY_MAPS = ("edges", "keypoints", "reshading")
MAPS = ("depth", "labels", "normals", *GRAY_MAPS)
"""The maps a :class:`Prediction` may hold, by the names of its entries."""


class DepthKind(str, Enum):
    """What the numbers of a depth map mean; declared by the card, never guessed."""

    METRIC = "metric"
    """Metres along the optical axis (planar z, REP 118)."""
    RELATIVE_INVERSE = "relative_inverse"
    """Inverse depth up to an unknown scale and shift."""
    RELATIVE = "relative"
    """Depth up to an unknown scale."""


@dataclass(frozen=True, slots=True, eq=False)
class DepthMap:
    """HxW ``float32``; NaN marks invalid pixels (REP 117); metres if ``kind`` is METRIC.

    :raises InputError: for another dtype or rank.
    """

    values_hw: np.ndarray
    kind: DepthKind = DepthKind.METRIC

    def __post_init__(self) -> None:
        if self.values_hw.dtype != np.float32 or self.values_hw.ndim != 2:
            raise InputError(
                f"a depth map is float32 of shape (height, width), got {self.values_hw.dtype} of "
                f"shape {self.values_hw.shape}"
            )

    def metres(self) -> np.ndarray:
        """The map in metres, HxW ``float32``, NaN where invalid.

        :raises InputError: if the model's depth is relative.
        """
        if self.kind is not DepthKind.METRIC:
            raise InputError(
                f"this depth is {self.kind.value}, not metric: choose a metric model or give a "
                "scale source"
            )
        return self.values_hw


@dataclass(frozen=True, slots=True, eq=False)
class LabelMap:
    """HxW ``uint8`` labels of ``labels``, and the confidence in each.

    ``confidence_hw`` is HxW ``uint8``: the label's probability in units of 1/255.

    :raises InputError: for another dtype or rank, or maps of different sizes.
    """

    values_hw: np.ndarray
    confidence_hw: np.ndarray
    labels: LabelSet

    def __post_init__(self) -> None:
        for name, array in (("labels", self.values_hw), ("confidence", self.confidence_hw)):
            if array.dtype != np.uint8 or array.ndim != 2 or array.shape != self.values_hw.shape:
                raise InputError(
                    f"{name} are {array.dtype} of shape {array.shape}, expected uint8 of shape "
                    f"(height, width) {self.values_hw.shape}"
                )

    def colored(self) -> np.ndarray:
        """The labels' colours: HxWx3 ``uint8`` RGB."""
        return self.labels.colors()[self.values_hw]


@dataclass(frozen=True, slots=True, eq=False)
class NormalMap:
    """HxWx3 ``float32``: unit surface normals in the optical frame (x right, y down, z forward).

    They point at the camera: the product with the viewing ray is negative. NaN, in all three
    numbers, where unknown.

    :raises InputError: for another dtype or shape.
    """

    values_hwc: np.ndarray

    def __post_init__(self) -> None:
        array = self.values_hwc
        if array.dtype != np.float32 or array.ndim != 3 or array.shape[2] != 3:
            raise InputError(
                f"normals are {array.dtype} of shape {array.shape}, expected float32 of shape "
                "(height, width, 3)"
            )

    def colored(self) -> np.ndarray:
        """HxWx3 ``uint8`` RGB, (n + 1) / 2 with y and z negated: as Taskonomy and others draw them.

        A floor is green, a wall that is faced blue; black where unknown.
        """
        height, width = self.values_hwc.shape[:2]
        # Whole rows at a time: NumPy is ten times slower on triples.
        gains = np.tile(np.array([127, -127, -127], np.float32), width)
        scaled = self.values_hwc.reshape(height, 3 * width) * gains
        scaled += np.float32(128)
        np.fmax(scaled, np.float32(0), out=scaled)  # of NaN and 0 it takes 0
        return scaled.astype(np.uint8).reshape(height, width, 3)


@dataclass(frozen=True, slots=True, eq=False)
class GrayMap:
    """HxW ``uint8``, 0 to 255 for 0 to 1: texture edges, 2D keypoints or reshading.

    :raises InputError: for another dtype or rank.
    """

    values_hw: np.ndarray

    def __post_init__(self) -> None:
        if self.values_hw.dtype != np.uint8 or self.values_hw.ndim != 2:
            raise InputError(
                f"a gray map is uint8 of shape (height, width), got {self.values_hw.dtype} of "
                f"shape {self.values_hw.shape}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The answer to one :class:`~dense_perception.core.camera.Frame`.

    Every map has the size ``width`` x ``height``; ``intrinsics`` are of that size.
    ``intrinsics_assumed`` says that they come from a default field of view rather than from a
    calibration. ``timings_ms`` holds milliseconds by stage (``prepare``, ``infer``, ``restore``).

    ``edges`` are Sobel texture edges, ``keypoints`` the strength of corners, ``reshading`` the
    scene as white walls lit by a lamp at the camera.
    """

    width: int
    height: int
    intrinsics: Intrinsics
    intrinsics_assumed: bool = False
    stamp_ns: int = 0
    frame_id: str = ""
    depth: DepthMap | None = None
    labels: LabelMap | None = None
    normals: NormalMap | None = None
    edges: GrayMap | None = None
    keypoints: GrayMap | None = None
    reshading: GrayMap | None = None
    timings_ms: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if (self.intrinsics.width, self.intrinsics.height) != (self.width, self.height):
            raise InputError(
                f"prediction is {self.width}x{self.height} but its intrinsics are for "
                f"{self.intrinsics.width}x{self.intrinsics.height}"
            )
        for name in MAPS:
            entry = getattr(self, name)
            if entry is None:
                continue
            shape = (entry.values_hwc if name == "normals" else entry.values_hw).shape
            if shape[:2] != (self.height, self.width):
                raise InputError(
                    f"prediction is {self.width}x{self.height} but its {name} has shape {shape}"
                )
