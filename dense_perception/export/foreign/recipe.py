"""What has to be known of a graph of others, and where it comes from.

:class:`Facts` are what one source says: the command line, a preset, a Hugging Face folder, the
graph's metadata. They are laid over each other, the strongest first; a :class:`Recipe` is what was
settled in the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

from dense_perception.core.card_specs import InputSpec
from dense_perception.core.prediction import DepthKind

Triple = tuple[float, float, float]

IMAGENET: tuple[Triple, Triple] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES: tuple[Triple, Triple] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
PLAIN: tuple[Triple, Triple] = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
LAYOUTS = ("NCHW", "NHWC")
CHANNELS = ("RGB", "BGR")
"""What can be said of a colour picture; a graph of one channel is fed :data:`GRAY`."""
GRAY = "gray"
GRAY_WEIGHTS: Triple = (0.299, 0.587, 0.114)
"""Of red, green and blue (ITU-R BT.601), as OpenCV and Pillow make gray pictures."""
GRAY_HALF = 5e-4
"""Added before gray is rounded to bytes: it comes in thousandths, and halves would go any way."""
WHOLE = ("uint8", "int32", "int64")
"""Kinds of whole numbers that a graph may take bytes in."""
PIXEL_RANGES: Mapping[str, tuple[float, float]] = {
    "unit": (0.0, 1.0),
    "bytes": (0.0, 255.0),
    "signed": (-1.0, 1.0),
}
"""What black and white are before mean and std."""
SCORES = ("logits", "probabilities", "labels", "queries")
"""What a graph gives for labels; ``queries`` are Mask2Former's classes and masks."""
ACTIVATIONS = ("softmax", "sigmoid")


@dataclass(frozen=True)
class Facts:
    """What one source says; None is nothing. ``reasons`` say why, ``origin`` where they do not.

    ``size`` is (width, height), ``free`` whether the graph is to take every size of the rule.
    ``background`` says that ``labels`` leave out the first class, ``odd_labels`` why names of
    classes could not be read.
    """

    origin: str = ""
    size: tuple[int, int] | None = None
    free: bool | None = None
    layout: str | None = None
    channels: str | None = None
    pixels: str | None = None
    mean: Triple | None = None
    std: Triple | None = None
    resize: str | None = None
    multiple: int | None = None
    interpolation: str | None = None
    pad: tuple[int, int, int] | None = None
    place: str | None = None
    dtype: str | None = None
    restore: str | None = None
    task: str | None = None
    outputs: tuple[str, ...] | None = None
    depth_kind: str | None = None
    depth_scale: float | None = None
    depth_shift: float | None = None
    depth_inverse: bool | None = None
    depth_range: tuple[float, float] | None = None
    scores: str | None = None
    activation: str | None = None
    threshold: float | None = None
    labels: tuple[str, ...] | None = None
    background: bool | None = None
    odd_labels: str | None = None
    void: tuple[int, ...] | None = None
    licence: str | None = None
    name: str | None = None
    family: str | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)

    def why(self, entry: str) -> str:
        return self.reasons.get(entry, self.origin)


def laid_over(layers: Iterable[Facts]) -> Facts:
    """One :class:`Facts` of several, each entry from the first that has it, with its reason."""
    values: dict[str, object] = {}
    reasons: dict[str, str] = {}
    for layer in layers:
        for entry in fields(Facts):
            if entry.name in ("origin", "reasons") or entry.name in values:
                continue
            value = getattr(layer, entry.name)
            if value is not None:
                values[entry.name] = value
                reasons[entry.name] = layer.why(entry.name)
    return Facts(**values, reasons=reasons)  # type: ignore[arg-type]


@dataclass(frozen=True)
class PictureRecipe:
    """How bytes become the graph's input: ``(low + byte / 255 * (high - low) - mean) / std``.

    ``low`` and ``high`` are those of ``pixels``; mean and std are in the order of ``channels``.
    """

    name: str
    kind: str
    layout: str
    channels: str
    pixels: str
    mean: Triple
    std: Triple

    @property
    def whole(self) -> bool:
        """Whether the graph takes bytes, whatever whole numbers they come in."""
        return self.kind in WHOLE

    @property
    def gain(self) -> Triple:
        """What a byte is multiplied with."""
        low, high = PIXEL_RANGES[self.pixels]
        one, two, three = ((high - low) / (255 * s) for s in self.std)
        return one, two, three

    @property
    def offset(self) -> Triple:
        """What is added then."""
        low, _ = PIXEL_RANGES[self.pixels]
        one, two, three = ((low - m) / s for m, s in zip(self.mean, self.std, strict=True))
        return one, two, three


@dataclass(frozen=True)
class DepthRecipe:
    """How an output becomes depth: ``scale * y + shift``, or one over it with ``inverse``."""

    output: str
    kind: DepthKind
    scale: float = 1.0
    shift: float = 0.0
    inverse: bool = False
    min_m: float = 0.0
    max_m: float = float("inf")


@dataclass(frozen=True)
class LabelRecipe:
    """How outputs become labels and their confidence.

    ``channels_last`` says that classes are the last axis. ``names`` are by label; labels in
    ``void`` and those whose confidence is below ``threshold`` become 255. A graph with one score a
    pixel has two classes, the second where its probability is at least one half.
    """

    outputs: tuple[str, ...]
    scores: str
    activation: str
    channels_last: bool
    names: tuple[str, ...]
    label_set: str = ""
    threshold: float = 0.0
    void: tuple[int, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """All that wrapping and checking need."""

    picture: PictureRecipe
    input: InputSpec
    depth: DepthRecipe | None
    labels: LabelRecipe | None

    @property
    def outputs(self) -> tuple[str, ...]:
        """The foreign outputs in use, each once."""
        depth = (self.depth.output,) if self.depth else ()
        return tuple(dict.fromkeys((*depth, *(self.labels.outputs if self.labels else ()))))


PRESETS: Mapping[str, Facts] = {
    "depth_anything_v2": Facts(
        origin="preset depth_anything_v2",
        size=(518, 518),
        pixels="unit",
        mean=IMAGENET[0],
        std=IMAGENET[1],
        resize="lower_bound",
        multiple=14,
        interpolation="cubic",
        restore="corners",
        task="depth",
        depth_kind="relative_inverse",
        family="depth_anything_v2",
    ),
    "dpt": Facts(
        origin="preset dpt",
        size=(384, 384),
        pixels="unit",
        mean=HALVES[0],
        std=HALVES[1],
        resize="minimal",
        multiple=32,
        interpolation="cubic",
        dtype="float32",
        restore="cubic",
        task="depth",
        depth_kind="relative_inverse",
        family="dpt",
    ),
    "segformer": Facts(
        origin="preset segformer",
        size=(512, 512),
        pixels="unit",
        mean=IMAGENET[0],
        std=IMAGENET[1],
        resize="stretch",
        task="segmentation",
        activation="softmax",
        family="segformer",
    ),
    "mmseg": Facts(
        origin="preset mmseg",
        size=(512, 512),
        pixels="unit",
        mean=IMAGENET[0],
        std=IMAGENET[1],
        resize="stretch",
        interpolation="linear",
        task="segmentation",
        activation="softmax",
        family="mmseg",
    ),
    "ultralytics-sem": Facts(
        origin="preset ultralytics-sem",
        size=(640, 640),
        pixels="unit",
        mean=PLAIN[0],
        std=PLAIN[1],
        resize="letterbox",
        interpolation="linear",
        pad=(114, 114, 114),
        place="centre",
        task="segmentation",
        activation="softmax",
        family="ultralytics",
    ),
    "nav2": Facts(
        origin="preset nav2",
        pixels="unit",
        mean=IMAGENET[0],
        std=IMAGENET[1],
        resize="stretch",
        task="segmentation",
        activation="softmax",
        background=True,
        family="nav2",
    ),
}
"""What is usual for graphs of these kinds, by the name that ``--like`` takes."""
