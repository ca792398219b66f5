"""Model cards: what a model is, how it is fed, what its outputs mean, and whose it is.

The same card is ``models/NAME.yaml`` (the registry) and JSON inside the ONNX file, under the
metadata key ``dense_perception.card``. The embedded one is authoritative for the graph; the YAML
adds where the files are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dense_perception.core.errors import CardError
from dense_perception.core.labels import LABEL_SETS
from dense_perception.core.onnx_metadata import read_onnx_metadata
from dense_perception.core.prediction import GRAY_MAPS, DepthKind

SCHEMA = 1
METADATA_KEY = "dense_perception.card"
TASKS = ("depth", "segmentation", "multitask")
FURTHER_MAPS = ("normals", *GRAY_MAPS)
RESIZES = ("stretch",)
PRECISIONS = ("fp32", "fp16", "int8")
_NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.onnx")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHECKPOINT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.(pt|pth|safetensors)")
_PUBLISHED_SHA256 = re.compile(r"([0-9a-f]{8,64})?")


@dataclass(frozen=True)
class InputSpec:
    """What the graph input ``image`` wants: uint8 NHWC RGB of ``height`` x ``width`` pixels.

    ``resize`` says how a frame of another size gets there. ``focal`` says that the graph has a
    second input ``focal_px``: float32 of shape (N,), the focal length at the network's size.
    """

    height: int
    width: int
    resize: str = "stretch"
    focal: bool = False


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
    and their scores are averaged. A window of 0 is the whole image.
    """

    labels: str
    window: int = 0
    stride: int = 0


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


@dataclass(frozen=True)
class ModelFile:
    """One precision of the model on disk: file name beside the card, SHA-256, bytes."""

    file: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class ModelCard:
    """One model; ``network``, ``licence``, ``provenance``, ``results`` are free-form data.

    ``maps`` names what a ``multitask`` model gives beside depth and labels, graph outputs of these
    names: ``normals`` float32 (N, height, width, 3), ``edges``, ``keypoints`` and ``reshading``
    uint8 (N, height, width). Every subset of depth, labels and maps is allowed but the empty one.
    ``cost`` holds ``parameters`` and ``gflops`` (2 per multiply-add, one image of the input size).
    """

    name: str
    family: str
    variant: str
    task: str
    summary: str
    input: InputSpec
    depth: DepthSpec | None = None
    segmentation: SegmentationSpec | None = None
    maps: tuple[str, ...] = ()
    source: CheckpointSource | None = None
    precision: str = "fp32"
    network: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    licence: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, ModelFile] = field(default_factory=dict)

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the model gives, by the names of :class:`Prediction`'s entries, in its order."""
        named = [("depth", self.depth is not None), ("labels", self.segmentation is not None)]
        return (
            *(name for name, given in named if given),
            *(name for name in FURTHER_MAPS if name in self.maps),
        )

    @classmethod
    def from_dict(cls, data: Any, where: str) -> ModelCard:
        """Check and build a card; ``where`` names its origin in error messages.

        :raises CardError: naming the offending entry, what it was and what was expected.
        """
        return _CardReader(data, where).card()

    @classmethod
    def from_yaml(cls, path: Path) -> ModelCard:
        """Read ``models/NAME.yaml`` with the safe loader.

        :raises CardError: if it cannot be read or is not a valid card.
        """
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise CardError(f"cannot read the model card {path}: {error}") from error
        return cls.from_dict(data, str(path))

    @classmethod
    def from_onnx(cls, path: Path) -> ModelCard:
        """Read the card inside an ONNX file.

        :raises ArtefactError: if the file is not a whole ONNX model.
        :raises CardError: if it carries no card or a malformed one.
        """
        text = read_onnx_metadata(path).get(METADATA_KEY)
        if text is None:
            raise CardError(
                f"{path} carries no model card (metadata key {METADATA_KEY!r}): export it with "
                "`dense-perception export`"
            )
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise CardError(f"the card inside {path} is not JSON: {error}") from error
        return cls.from_dict(data, f"the card inside {path}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for YAML or JSON; the inverse of :meth:`from_dict`."""
        data: dict[str, Any] = {"schema": SCHEMA, **asdict(self)}
        if self.depth is not None:
            data["depth"]["kind"] = self.depth.kind.value
            if self.depth.max_m == float("inf"):
                del data["depth"]["max_m"]
        if self.source is not None:
            data["source"] = {key: value for key, value in data["source"].items() if value}
        data["maps"] = list(self.maps)
        return {key: value for key, value in data.items() if value not in ({}, [], None)}

    def embedded_json(self) -> str:
        """The text stored in the ONNX metadata: everything but where the files are."""
        data = self.to_dict()
        data.pop("files", None)
        return json.dumps(data, sort_keys=True)


class _CardReader:
    """Turns untrusted plain data into a card, one named complaint at a time."""

    def __init__(self, data: Any, where: str) -> None:
        self.where = where
        if not isinstance(data, Mapping):
            raise CardError(f"{where}: a card is a mapping, got {type(data).__name__}")
        self.data = data

    def card(self) -> ModelCard:
        schema = self.data.get("schema")
        if schema != SCHEMA:
            raise CardError(
                f"{self.where}: schema is {schema!r}, this version reads {SCHEMA}: update the "
                "package or export the model again"
            )
        known = {"schema", *ModelCard.__dataclass_fields__}
        unknown = sorted(set(self.data) - known)
        if unknown:
            raise CardError(
                f"{self.where}: unknown entries {unknown}, expected some of {sorted(known)}"
            )
        name = self.text("name")
        if not _NAME.fullmatch(name):
            raise CardError(f"{self.where}: name is {name!r}, expected lower_case_words")
        task = self.choice("task", self.text("task"), TASKS)
        depth = self.depth()
        if task == "depth" and depth is None:
            raise CardError(f"{self.where}: task is 'depth' but there is no 'depth' entry")
        segmentation = self.segmentation()
        if task == "segmentation" and segmentation is None:
            raise CardError(
                f"{self.where}: task is 'segmentation' but there is no 'segmentation' entry"
            )
        maps = self.maps(task)
        if task == "multitask" and depth is None and segmentation is None and not maps:
            raise CardError(
                f"{self.where}: task is 'multitask' but there is no 'depth', 'segmentation' or "
                "'maps' entry"
            )
        return ModelCard(
            name=name,
            family=self.text("family"),
            variant=self.text("variant"),
            task=task,
            summary=self.text("summary"),
            input=self.input(),
            depth=depth,
            segmentation=segmentation,
            maps=maps,
            source=self.source(),
            precision=self.choice("precision", self.data.get("precision", "fp32"), PRECISIONS),
            files=self.files(),
            **{
                key: self.mapping(key)
                for key in ("network", "cost", "licence", "provenance", "results", "parity")
            },
        )

    def text(self, key: str) -> str:
        value = self.data.get(key)
        if not isinstance(value, str) or not value:
            raise CardError(f"{self.where}: {key} is {value!r}, expected a non-empty text")
        return value

    def choice(self, key: str, value: Any, choices: tuple[str, ...]) -> str:
        if value not in choices:
            raise CardError(f"{self.where}: {key} is {value!r}, expected one of {list(choices)}")
        return str(value)

    def mapping(self, key: str, of: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        value = (self.data if of is None else of).get(key, {})
        if not isinstance(value, Mapping):
            raise CardError(f"{self.where}: {key} is {value!r}, expected a mapping")
        return value

    def number(self, key: str, value: Any, low: float, high: float) -> float:
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not low <= value <= high
        ):
            raise CardError(
                f"{self.where}: {key} is {value!r}, expected a number in [{low}, {high}]"
            )
        return value

    def input(self) -> InputSpec:
        entry = self.mapping("input")
        sides = {}
        for key in ("height", "width"):
            side = self.number(f"input.{key}", entry.get(key), 16, 8192)
            if side != int(side):
                raise CardError(f"{self.where}: input.{key} is {side!r}, expected a whole number")
            sides[key] = int(side)
        focal = entry.get("focal", False)
        if not isinstance(focal, bool):
            raise CardError(f"{self.where}: input.focal is {focal!r}, expected true or false")
        resize = self.choice("input.resize", entry.get("resize", "stretch"), RESIZES)
        return InputSpec(sides["height"], sides["width"], resize, focal)

    def depth(self) -> DepthSpec | None:
        if "depth" not in self.data:
            return None
        entry = self.mapping("depth")
        kind = self.choice("depth.kind", entry.get("kind"), tuple(k.value for k in DepthKind))
        low = self.number("depth.min_m", entry.get("min_m", 0.0), 0.0, 1e6)
        high = self.number("depth.max_m", entry.get("max_m", float("inf")), low, float("inf"))
        return DepthSpec(DepthKind(kind), float(low), float(high))

    def segmentation(self) -> SegmentationSpec | None:
        if "segmentation" not in self.data:
            return None
        entry = self.mapping("segmentation")
        labels = self.choice("segmentation.labels", entry.get("labels"), tuple(LABEL_SETS))
        window = int(self.number("segmentation.window", entry.get("window", 0), 0, 8192))
        stride = int(self.number("segmentation.stride", entry.get("stride", 0), 0, max(window, 0)))
        if window and not stride:
            raise CardError(f"{self.where}: segmentation.stride is 0, expected 1 to {window}")
        return SegmentationSpec(labels, window, stride)

    def maps(self, task: str) -> tuple[str, ...]:
        names = self.data.get("maps", [])
        if (
            not isinstance(names, (list, tuple))
            or not all(name in FURTHER_MAPS for name in names)
            or len(set(names)) != len(names)
        ):
            raise CardError(
                f"{self.where}: maps is {names!r}, expected a list of different ones of "
                f"{list(FURTHER_MAPS)}"
            )
        if names and task != "multitask":
            raise CardError(f"{self.where}: maps is {names!r}, expected none for the task {task!r}")
        return tuple(names)

    def source(self) -> CheckpointSource | None:
        if "source" not in self.data:
            return None
        entry = self.mapping("source")
        texts = {key: entry.get(key, "") for key in ("url", "file", "sha256", "note")}
        for key, pattern, expected in (
            ("url", re.compile(r"https?://\S+"), "an http or https address"),
            ("file", _CHECKPOINT, "a bare file name ending in .pt, .pth or .safetensors"),
            ("sha256", _PUBLISHED_SHA256, "8 to 64 hex digits, or nothing"),
            ("note", re.compile(r".*", re.DOTALL), "a text"),
        ):
            if not (isinstance(texts[key], str) and pattern.fullmatch(texts[key])):
                raise CardError(
                    f"{self.where}: source.{key} is {texts[key]!r}, expected {expected}"
                )
        return CheckpointSource(**texts)

    def files(self) -> dict[str, ModelFile]:
        files = {}
        for precision, entry in self.mapping("files").items():
            self.choice("files", precision, PRECISIONS)
            name, digest, size = (
                (entry.get("file"), entry.get("sha256"), entry.get("bytes"))
                if isinstance(entry, Mapping)
                else (None, None, None)
            )
            # A bare file name only: a card must not be able to point outside its own folder.
            if not (isinstance(name, str) and _FILE.fullmatch(name)):
                raise CardError(
                    f"{self.where}: files.{precision}.file is {name!r}, expected a bare file name "
                    "ending in .onnx"
                )
            if not (isinstance(digest, str) and _SHA256.fullmatch(digest)):
                raise CardError(
                    f"{self.where}: files.{precision}.sha256 is {digest!r}, expected 64 hex digits"
                )
            files[precision] = ModelFile(
                name, digest, int(self.number(f"files.{precision}.bytes", size, 1, 1e12))
            )
        return files
