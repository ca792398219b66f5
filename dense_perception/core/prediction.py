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
class Prediction:
    """The answer to one :class:`~dense_perception.core.frame.Frame`.

    Every map has the size ``width`` x ``height``; ``intrinsics`` are of that size.
    ``intrinsics_assumed`` says that they come from a default field of view rather than from a
    calibration. ``timings_ms`` holds milliseconds by stage (``prepare``, ``infer``, ``restore``).
    """

    width: int
    height: int
    intrinsics: Intrinsics
    intrinsics_assumed: bool = False
    stamp_ns: int = 0
    frame_id: str = ""
    depth: DepthMap | None = None
    labels: LabelMap | None = None
    timings_ms: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if (self.intrinsics.width, self.intrinsics.height) != (self.width, self.height):
            raise InputError(
                f"prediction is {self.width}x{self.height} but its intrinsics are for "
                f"{self.intrinsics.width}x{self.intrinsics.height}"
            )
        for name, entry in (("depth", self.depth), ("labels", self.labels)):
            if entry is not None and entry.values_hw.shape != (self.height, self.width):
                raise InputError(
                    f"prediction is {self.width}x{self.height} but its {name} has shape "
                    f"{entry.values_hw.shape}"
                )
