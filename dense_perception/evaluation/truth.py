"""What models are judged by: frames with their truth, in recordings that are read in parts."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from dense_perception.core.camera import Frame
from dense_perception.core.labels import VOID
from dense_perception.core.limits import MAX_JPEG_SCANS, MAX_PIXELS
from dense_perception.core.prediction import DepthMap, known_only
from dense_perception.imaging.messages import ImageReader
from dense_perception.media.problems import Problems

PARTS = "parts"
"""The folder of scores in that of a report."""
PART_FRAMES = 64
"""About how many frames a part has: what is lost when a run is stopped, and what a worker takes."""


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """What another system said of a frame, as its recording has it.

    ``labels_hw`` (H, W) whole numbers from 0, with ``classes`` their names, empty if unknown.
    """

    depth: DepthMap | None = None
    labels_hw: np.ndarray | None = None
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TruthFrame:
    """One frame and what is known of it.

    ``depth_m`` (H, W) float32 planar metres, NaN where there is none; ``labels_hw`` (H, W) int64
    from 0, VOID where there is none, of ``classes`` (empty if nobody named them); each None where
    nothing is known. ``camera_7`` is the camera in the world, position and quaternion.
    ``recorded`` are other systems' answers by topic. ``frame`` without intrinsics: not calibrated.
    ``instances_hw`` and ``instance_labels`` number the things in view, as
    :class:`~dense_perception.data.sample.Sample` does.
    """

    recording: str
    key: str
    frame: Frame
    depth_m: np.ndarray | None = None
    labels_hw: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    camera_7: np.ndarray | None = None
    recorded: Mapping[str, RecordedAnswer] = field(default_factory=dict)
    instances_hw: np.ndarray | None = None
    instance_labels: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a source: frames ``start`` to ``stop`` (excluded), or nanoseconds of a bag.

    None is its beginning or its end. ``frames`` is about how many there are.
    """

    number: int
    frames: int
    start: int | None = None
    stop: int | None = None

    @property
    def text(self) -> str:
        """Which one it is."""
        ends = (f"from {self.start}" if self.start else "", f"to {self.stop}" if self.stop else "")
        return " ".join(["part", str(self.number), *filter(None, ends)])


@dataclass(frozen=True)
class TruthOptions:
    """How truth is read; see ``dense-perception evaluate --help``.

    ``recorded`` are the topics whose answers are contestants. ``limit``: no more frames of each
    source than this. ``hfov_deg`` where a bag has no calibration. ``first_label`` is the value of
    the first class in label files; ``bits`` how many of 16-bit pictures count, 0 for all. Larger
    images than ``max_pixels``, and JPEGs of more than ``max_scans``, are refused.
    ``matrix`` says which one of a colour camera's calibration counts: ``K``, ``P`` or ``auto``.
    ``unit_m``: metres a step of the depth images in folders.
    """

    topic: str | None = None
    depth_topic: str | None = None
    points: tuple[str, ...] = ()
    label_topic: str | None = None
    recorded: tuple[str, ...] = ()
    tolerance_ms: float = 5.0
    world: str = ""
    hfov_deg: float = 60.0
    limit: int | None = None
    first_label: int = 1
    bits: int = 0
    max_pixels: int = MAX_PIXELS
    max_scans: int = MAX_JPEG_SCANS
    matrix: str = "auto"
    unit_m: float = 0.001

    def reader(self) -> ImageReader:
        """What reads the images of one camera."""
        return ImageReader(self.bits, self.max_pixels, self.max_scans)


def known_depth(depth_m: np.ndarray) -> np.ndarray | None:
    """(H, W) float32 of a sample, where 0 is none, with NaN there; None where there is none."""
    known = depth_m > 0
    return known_only(depth_m, known) if known.any() else None


def counted_labels(labels_hw: np.ndarray | None) -> np.ndarray | None:
    """The labels of a sample, where 0 is none, as int64 from 0, VOID for none."""
    if labels_hw is None:
        return None
    labels = labels_hw.astype(np.int64)
    return np.where(labels == 0, VOID, labels - 1)


class TruthSource(Protocol):
    """Frames with truth, in parts that can be read in any order and each gives the same again.

    ``notes`` are what is doubtful about all of it. ``problems`` says what could not be used of the
    part that was read last. ``unmatched`` counts its frames that nothing belongs to, and ``empty``
    those to which belongs what holds no truth.
    """

    name: str
    path: str
    kind: str
    classes: tuple[str, ...]
    notes: list[str]
    problems: Problems
    unmatched: int
    empty: int

    def parts(self) -> list[Part]: ...

    def frames(self, part: Part) -> Generator[TruthFrame]:
        """The frames of one part in order; what cannot be used is among ``problems``."""

    def why_none(self) -> str:
        """Why no frame could be compared, where ``problems`` do not say."""

    def close(self) -> None: ...
