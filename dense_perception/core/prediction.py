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


def known_only(values_hw: np.ndarray, known_hw: np.ndarray) -> np.ndarray:
    """A copy of floats with NaN where ``known_hw`` (bool, of their shape) is false."""
    # Arithmetic goes over whole registers: writing through a mask takes up to ten times longer.
    with np.errstate(invalid="ignore"):
        found: np.ndarray = values_hw * known_hw
        found /= known_hw
    return found


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
class Instances:
    """The things found in a frame, a row each, the best scores first.

    ``boxes_n4`` is ``float32``: x1, y1, x2, y2 in pixels of the prediction's size, from the left
    edge of the first pixel, within the picture. ``scores_n`` is ``float32``, above 0 to 1, and
    ``classes_n`` ``uint8``, labels of ``labels``. ``ids_hw``, where the model gives masks, is
    ``uint8`` or ``uint16``: k is the thing of row k - 1, 0 none; where masks overlap, the higher
    score's. ``masks_nhw`` is ``uint8``, each thing's own mask as probability in units of 1/255;
    only where it was asked for. ``track_ids_n`` is ``int64``: what a tracker calls each thing,
    0 where it does not know it yet.

    :raises InputError: for another dtype, shape, or range.
    """

    boxes_n4: np.ndarray
    scores_n: np.ndarray
    classes_n: np.ndarray
    labels: LabelSet
    ids_hw: np.ndarray | None = None
    masks_nhw: np.ndarray | None = None
    track_ids_n: np.ndarray | None = None

    def __post_init__(self) -> None:
        count = len(self.boxes_n4)
        expected = (
            ("boxes", self.boxes_n4, ("float32",), (count, 4)),
            ("scores", self.scores_n, ("float32",), (count,)),
            ("classes", self.classes_n, ("uint8",), (count,)),
            ("track ids", self.track_ids_n, ("int64",), (count,)),
            ("instance ids", self.ids_hw, ("uint8", "uint16"), None),
            ("masks", self.masks_nhw, ("uint8",), None),
        )
        for name, array, dtypes, shape in expected:
            if array is None:
                continue
            rank = 3 if name == "masks" else 2
            fits = array.ndim == rank if shape is None else array.shape == shape
            if array.dtype not in dtypes or not fits:
                wanted = shape or ("(n, height, width)" if rank == 3 else "(height, width)")
                raise InputError(
                    f"{name} of {count} instances are {array.dtype} of shape {array.shape}, "
                    f"expected {' or '.join(dtypes)} of shape {wanted}"
                )
        if self.masks_nhw is not None and len(self.masks_nhw) != count:
            raise InputError(f"there are {len(self.masks_nhw)} masks of {count} instances")
        if count and not (self.scores_n > 0).all():
            raise InputError(f"a score is {self.scores_n.min()}, expected all above 0")
        if (np.diff(self.scores_n) > 0).any():
            raise InputError("the scores of instances are not sorted, expected the best first")
        if count and int(self.classes_n.max()) >= len(self.labels.labels):
            raise InputError(
                f"a class is {self.classes_n.max()}, the labels {self.labels.name} have "
                f"{len(self.labels.labels)}"
            )
        if self.ids_hw is not None and self.ids_hw.size and int(self.ids_hw.max()) > count:
            raise InputError(f"an instance id is {self.ids_hw.max()}, there are {count} instances")

    def __len__(self) -> int:
        return len(self.boxes_n4)

    @property
    def names(self) -> tuple[str, ...]:
        """The class of each row, in words."""
        return tuple(self.labels.labels[label] for label in self.classes_n)

    @property
    def numbers(self) -> np.ndarray:
        """(n,) ``int64``: what each thing is called: its identity, else its row from 1."""
        if self.track_ids_n is not None:
            return self.track_ids_n
        return np.arange(1, len(self) + 1)

    def selected(self, kept_n: np.ndarray) -> Instances:
        """The rows where the boolean ``kept_n`` is true, their ids numbered again from 1.

        Pixels of the others have the id 0.
        """
        if kept_n.all():
            return self
        ids_hw = self.ids_hw
        if ids_hw is not None:
            ids_hw = renumbered(kept_n, ids_hw.dtype)[ids_hw]
        return Instances(
            self.boxes_n4[kept_n],
            self.scores_n[kept_n],
            self.classes_n[kept_n],
            self.labels,
            ids_hw,
            None if self.masks_nhw is None else self.masks_nhw[kept_n],
            None if self.track_ids_n is None else self.track_ids_n[kept_n],
        )


def renumbered(kept_n: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The new id by the old one, (n + 1,): those of kept rows count from 1, the others are 0."""
    table = np.zeros(len(kept_n) + 1, dtype)
    table[1:][kept_n] = np.arange(1, np.count_nonzero(kept_n) + 1)
    return table


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
    instances: Instances | None = None
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
        if self.instances is not None:
            self._check_instances(self.instances)

    def _check_instances(self, found: Instances) -> None:
        size_hw = (self.height, self.width)
        for name, array in (("instance ids", found.ids_hw), ("masks", found.masks_nhw)):
            if array is not None and array.shape[-2:] != size_hw:
                raise InputError(
                    f"prediction is {self.width}x{self.height} but its {name} have shape "
                    f"{array.shape}"
                )
        right_bottom = np.array([self.width, self.height] * 2, np.float32)
        inside = (found.boxes_n4 >= 0) & (found.boxes_n4 <= right_bottom)
        if not inside.all():
            outside = found.boxes_n4[~inside.all(axis=1)][0]
            raise InputError(
                f"prediction is {self.width}x{self.height} but a box is {outside.tolist()}, "
                "expected x1, y1, x2, y2 within it"
            )
