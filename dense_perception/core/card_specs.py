"""The parts of a model card: input, outputs, where the weights and the files are."""

from __future__ import annotations

from dataclasses import dataclass

from dense_perception.core.labels import LABEL_SETS, LabelSet
from dense_perception.core.prediction import GRAY_MAPS, DepthKind

SCHEMA = 1
TASKS = ("depth", "segmentation", "instances", "multitask")
FURTHER_MAPS = ("normals", *GRAY_MAPS)
RESIZES = ("stretch", "letterbox", "lower_bound", "minimal", "windows")
INTERPOLATIONS = ("area", "linear", "cubic")
RESTORES = ("linear", "corners", "cubic")
PIXELS = ("uint8", "float32")
PLACES = ("centre", "corner")
OWN_LABELS = "own"
MOST_INSTANCES = 1000
PRECISIONS = ("fp32", "fp16", "int8", "fp8")


@dataclass(frozen=True)
class InputSpec:
    """What the graph input ``image`` wants: NHWC RGB, 0 to 255, of ``height`` x ``width`` pixels.

    ``resize`` says which size a frame gets (:func:`dense_perception.imaging.resize.network_size`),
    ``interpolation`` how it gets there, ``restore`` how maps get back. With ``lower_bound`` and
    ``minimal`` the graph takes every size whose sides are multiples of ``multiple``, and ``height``
    and ``width`` are what the rule starts from. With ``windows`` the graph takes square windows of
    a picture whose sides are scaled to ``short_side`` and at most ``long_side``. With ``letterbox``
    the whole picture fits into the graph's size, and ``pad`` (RGB, 0 to 255) fills the rest:
    around it with ``place`` ``centre``, right of it and below with ``corner``. ``focal`` says
    that the graph has a second input ``focal_px``: float32 of shape (N,), the focal length at the
    network's size. ``dtype`` is the pixels': with ``float32`` they are resized without rounding and
    may lie beyond 0 and 255, where the interpolation overshoots.
    """

    height: int
    width: int
    resize: str = "stretch"
    focal: bool = False
    multiple: int = 1
    interpolation: str = "area"
    restore: str = "linear"
    short_side: int = 0
    long_side: int = 0
    dtype: str = "uint8"
    pad: tuple[int, int, int] = (0, 0, 0)
    place: str = "centre"

    @property
    def free(self) -> bool:
        """Whether the graph takes other sizes than ``height`` x ``width``."""
        return self.resize in ("lower_bound", "minimal")


@dataclass(frozen=True)
class DepthSpec:
    """The graph output ``depth``: float32 of shape (N, height, width); see :class:`DepthKind`."""

    kind: DepthKind
    min_m: float = 0.0
    max_m: float = float("inf")


@dataclass(frozen=True)
class SegmentationSpec:
    """The graph outputs ``labels`` and ``confidence``; ``labels`` names a set of core/labels.py.

    ``window`` and ``stride`` are in pixels: the network looks through square windows that overlap
    and their scores are averaged. A window of 0 is the whole image. With ``scores`` above 0 the
    graph gives ``scores`` instead, float32 (N, classes, rows, columns), one for so many pixels in
    each direction, and labels are chosen at the picture's size. ``names`` are those of the classes
    where ``labels`` is ``own``, from label 0.
    """

    labels: str
    window: int = 0
    stride: int = 0
    scores: int = 0
    names: tuple[str, ...] = ()

    @property
    def label_set(self) -> LabelSet:
        """What the labels mean."""
        return LabelSet(OWN_LABELS, self.names) if self.names else LABEL_SETS[self.labels]


@dataclass(frozen=True)
class InstancesSpec:
    """The graph outputs ``boxes``, ``box_scores`` and ``box_classes``: the things in a picture.

    ``labels`` names a set of core/labels.py, or is ``own`` with the classes' ``names``. The lists
    have ``count`` rows, the best scores first; unused rows are 0. With ``masks`` the graph also
    gives ``instance_ids`` and, for evaluation alone, ``masks``. With ``panoptic`` ids and the
    labels of ``segmentation`` come from one merge, so that they agree pixel by pixel, and there are
    no ``masks``: those of a merge do not overlap, and the ids say where they are.
    """

    labels: str
    count: int
    masks: bool = False
    panoptic: bool = False
    names: tuple[str, ...] = ()

    @property
    def label_set(self) -> LabelSet:
        """What the classes mean."""
        return LabelSet(OWN_LABELS, self.names) if self.names else LABEL_SETS[self.labels]

    @property
    def has_ids(self) -> bool:
        """Whether the graph gives ``instance_ids``."""
        return self.masks or self.panoptic

    @property
    def id_type(self) -> str:
        """The dtype of ``instance_ids``: that of bytes where ``count`` rows fit."""
        return "uint8" if self.count < 256 else "uint16"


@dataclass(frozen=True)
class OnnxSource:
    """A published ONNX file of the same network: as :class:`CheckpointSource`, and ``like``, the
    kind of pipeline that `dense-perception import` knows it by."""

    url: str
    file: str
    sha256: str = ""
    like: str = ""


@dataclass(frozen=True)
class CheckpointSource:
    """Where the published weights are: ``url``, and the bare ``file`` name they are kept under.

    ``sha256`` is the file's digest or its published beginning (8 to 64 hex digits), empty where its
    publisher states none.
    """

    url: str
    file: str
    sha256: str = ""
    note: str = ""
    onnx: OnnxSource | None = None


@dataclass(frozen=True)
class ModelFile:
    """One precision of the model on disk: file name beside the card, SHA-256, bytes."""

    file: str
    sha256: str
    bytes: int
