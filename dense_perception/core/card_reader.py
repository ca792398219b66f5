"""Checks the plain data of a model card, entry by entry, strictly."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from dense_perception.core.card_specs import (
    FURTHER_MAPS,
    INTERPOLATIONS,
    MOST_INSTANCES,
    OWN_LABELS,
    PIXELS,
    PLACES,
    PRECISIONS,
    RESIZES,
    RESTORES,
    SCHEMA,
    TASKS,
    CheckpointSource,
    DepthSpec,
    InputSpec,
    InstancesSpec,
    ModelFile,
    OnnxSource,
    SegmentationSpec,
)
from dense_perception.core.errors import CardError
from dense_perception.core.labels import LABEL_SETS, folded
from dense_perception.core.prediction import DepthKind
from dense_perception.core.printable import short
from dense_perception.core.strict import Entries

_NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.onnx")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHECKPOINT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.(pt|pth|pkl|safetensors)")
_ONNX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.onnx")
_PUBLISHED_SHA256 = re.compile(r"([0-9a-f]{8,64})?")


class CardReader(Entries):
    """Turns untrusted plain data into a card, one named complaint at a time."""

    def __init__(self, data: object, where: str) -> None:
        super().__init__(data, where, CardError)

    def entries(self, known: Collection[str]) -> dict[str, Any]:
        """Every entry checked, by the names in ``known``."""
        schema = self.data.get("schema")
        if schema != SCHEMA:
            raise CardError(
                f"{self.where}: schema is {short(schema)}, this version reads {SCHEMA}: update the "
                "package or export the model again"
            )
        self.check_names({"schema", *known})
        name = self.entry_text("name")
        if not _NAME.fullmatch(name):
            raise self.refusal("name", name, "lower_case_words")
        task = self.choice("task", self.entry_text("task"), TASKS)
        depth = self.depth()
        if task == "depth" and depth is None:
            raise CardError(f"{self.where}: task is 'depth' but there is no 'depth' entry")
        segmentation = self.segmentation()
        if task == "segmentation" and segmentation is None:
            raise CardError(
                f"{self.where}: task is 'segmentation' but there is no 'segmentation' entry"
            )
        instances = self.instances(segmentation)
        if task == "instances" and instances is None:
            raise CardError(f"{self.where}: task is 'instances' but there is no 'instances' entry")
        maps = self.maps(task)
        if task == "multitask" and not (depth or segmentation or instances or maps):
            raise CardError(
                f"{self.where}: task is 'multitask' but there is no 'depth', 'segmentation', "
                "'instances' or 'maps' entry"
            )
        return dict(
            name=name,
            family=self.entry_text("family"),
            variant=self.entry_text("variant"),
            task=task,
            summary=self.entry_text("summary"),
            input=self.input(),
            depth=depth,
            segmentation=segmentation,
            maps=maps,
            instances=instances,
            source=self.source(),
            precision=self.choice("precision", self.data.get("precision", "fp32"), PRECISIONS),
            files=self.files(),
            cost=self.numbers("cost", {"parameters": 1e15, "gflops": 1e12}),
            parity=self.parity(),
            **{
                key: self.entry_mapping(key)
                for key in ("network", "licence", "provenance", "results")
            },
        )

    def entry_text(self, key: str) -> str:
        return self.text(key, self.data.get(key))

    def entry_mapping(self, key: str) -> Mapping[str, Any]:
        return self.mapping(key, self.data.get(key, {}))

    def numbers(self, key: str, highest: Mapping[str, float]) -> Mapping[str, Any]:
        """A mapping of anything; of its entries these, where they are there, are numbers from 0."""
        entry = self.entry_mapping(key)
        for name, high in highest.items():
            if name in entry:
                self.number(f"{key}.{name}", entry[name], 0, high)
        return entry

    def parity(self) -> Mapping[str, Any]:
        entry = self.numbers("parity", {"max_of_range": 1e9, "mean_of_range": 1e9})
        for name, low, high in (("seed", 0, 2**63), ("frames", 1, 1000)):
            if name in entry:
                self.whole(f"parity.{name}", entry[name], low, high)
        return entry

    def input(self) -> InputSpec:
        entry = self.entry_mapping("input")
        sides = {}
        for key in ("height", "width"):
            side = self.number(f"input.{key}", entry.get(key), 16, 8192)
            if side != int(side):
                raise self.refusal(f"input.{key}", side, "a whole number")
            sides[key] = int(side)
        focal = self.flag("input.focal", entry.get("focal", False))
        resize = self.choice("input.resize", entry.get("resize", "stretch"), RESIZES)
        lowest = {"multiple": 1, "short_side": 0, "long_side": 0}
        numbers = {
            key: self._whole(f"input.{key}", entry.get(key, low), low)
            for key, low in lowest.items()
        }
        interpolation = self.choice(
            "input.interpolation", entry.get("interpolation", "area"), INTERPOLATIONS
        )
        restore = self.choice("input.restore", entry.get("restore", "linear"), RESTORES)
        spec = InputSpec(
            sides["height"],
            sides["width"],
            resize,
            focal,
            interpolation=interpolation,
            restore=restore,
            dtype=self.choice("input.dtype", entry.get("dtype", "uint8"), PIXELS),
            pad=self._pad(entry.get("pad", (0, 0, 0))),
            place=self.choice("input.place", entry.get("place", "centre"), PLACES),
            **numbers,
        )
        for key in ("pad", "place"):
            if key in entry and resize != "letterbox":
                raise self.refusal(f"input.{key}", entry[key], "none without resize: letterbox")
        if resize not in ("stretch", "letterbox") and interpolation == "area":
            raise self.refusal("input.interpolation", interpolation, "linear or cubic")
        if resize == "windows" and not 16 <= spec.short_side <= spec.long_side:
            raise self.refusal("input.short_side", spec.short_side, "16 to input.long_side")
        if spec.free and (spec.height % spec.multiple or spec.width % spec.multiple):
            raise self.refusal("input.multiple", spec.multiple, "a divisor of height and width")
        return spec

    def _pad(self, value: object) -> tuple[int, int, int]:
        if not isinstance(value, (list, tuple)) or len(value) != 3:
            raise self.refusal("input.pad", value, "red, green and blue, each from 0 to 255")
        red, green, blue = (self.whole("input.pad", each, 0, 255) for each in value)
        return red, green, blue

    def _whole(self, name: str, value: object, low: int) -> int:
        number = self.number(name, value, low, 8192)
        if number != int(number):
            raise self.refusal(name, value, "a whole number")
        return int(number)

    def depth(self) -> DepthSpec | None:
        if "depth" not in self.data:
            return None
        entry = self.entry_mapping("depth")
        kind = self.choice("depth.kind", entry.get("kind"), tuple(k.value for k in DepthKind))
        low = self.number("depth.min_m", entry.get("min_m", 0.0), 0.0, 1e6)
        high = self.number("depth.max_m", entry.get("max_m", float("inf")), low, float("inf"))
        return DepthSpec(DepthKind(kind), float(low), float(high))

    def segmentation(self) -> SegmentationSpec | None:
        if "segmentation" not in self.data:
            return None
        entry = self.entry_mapping("segmentation")
        labels = self.choice("segmentation.labels", entry.get("labels"), (*LABEL_SETS, OWN_LABELS))
        names = self.texts("segmentation.names", entry.get("names", ()))
        if (labels == OWN_LABELS) != bool(names) or len(set(names)) != len(names):
            raise self.refusal(
                "segmentation.names", names, f"different ones with labels: {OWN_LABELS}, else none"
            )
        window = int(self.number("segmentation.window", entry.get("window", 0), 0, 8192))
        stride = int(self.number("segmentation.stride", entry.get("stride", 0), 0, max(window, 0)))
        if window and not stride:
            raise self.refusal("segmentation.stride", 0, f"1 to {window}")
        scores = self._whole("segmentation.scores", entry.get("scores", 0), 0)
        windowed = self.input().resize == "windows"
        if windowed != bool(scores) or (windowed and not window):
            raise self.refusal(
                "segmentation.scores",
                scores,
                "1 or more with resize: windows and a window",
            )
        return SegmentationSpec(labels, window, stride, scores, names)

    def instances(self, labelled: SegmentationSpec | None) -> InstancesSpec | None:
        """The entry, which has to agree with that of ``segmentation`` where it is ``panoptic``."""
        if "instances" not in self.data:
            return None
        entry = self.entry_mapping("instances")
        known = ("labels", "count", "masks", "panoptic", "names")
        unknown = [name for name in entry if name not in known]
        if unknown:
            raise self.refusal("instances", unknown, f"entries among {list(known)}")
        labels = self.choice("instances.labels", entry.get("labels"), (*LABEL_SETS, OWN_LABELS))
        names = self.texts("instances.names", entry.get("names", ()))
        if (labels == OWN_LABELS) != bool(names) or len(set(names)) != len(names):
            raise self.refusal(
                "instances.names", names, f"different ones with labels: {OWN_LABELS}, else none"
            )
        spec = InstancesSpec(
            labels,
            self.whole("instances.count", entry.get("count"), 1, MOST_INSTANCES),
            self.flag("instances.masks", entry.get("masks", False)),
            self.flag("instances.panoptic", entry.get("panoptic", False)),
            names,
        )
        if len(spec.label_set.labels) > 256:
            raise self.refusal("instances.names", len(names), "256 classes at most")
        if self.input().resize == "windows" or (labelled is not None and labelled.window):
            raise self.refusal("instances", dict(entry), "none for a network that sees windows")
        if spec.panoptic and labelled is None:
            raise self.refusal("instances.panoptic", True, "a 'segmentation' entry beside it")
        if spec.panoptic and labelled is not None:
            every = folded(labelled.label_set.labels)
            strange = [n for n in spec.label_set.labels if n.casefold() not in every]
            if strange:
                raise self.refusal(
                    "instances.labels", strange, f"classes of the labels {labelled.labels} too"
                )
        return spec

    def maps(self, task: str) -> tuple[str, ...]:
        names = self.data.get("maps", [])
        if (
            not isinstance(names, (list, tuple))
            or not all(name in FURTHER_MAPS for name in names)
            or len(set(names)) != len(names)
        ):
            raise self.refusal("maps", names, f"a list of different ones of {list(FURTHER_MAPS)}")
        if names and task != "multitask":
            raise self.refusal("maps", names, f"none for the task {task!r}")
        return tuple(names)

    def source(self) -> CheckpointSource | None:
        if "source" not in self.data:
            return None
        entry = self.entry_mapping("source")
        texts = self._texts(
            entry,
            "source",
            file=(_CHECKPOINT, "a bare file name ending in .pt, .pth, .pkl or .safetensors"),
            note=(re.compile(r".*", re.DOTALL), "a text"),
        )
        onnx = None
        if "onnx" in entry:
            if not isinstance(entry["onnx"], Mapping):
                raise self.refusal("source.onnx", entry["onnx"], "entries: url, file, ...")
            onnx = OnnxSource(
                **self._texts(
                    entry["onnx"],
                    "source.onnx",
                    file=(_ONNX, "a bare file name ending in .onnx"),
                    like=(re.compile(r"\w*"), "a word"),
                )
            )
        return CheckpointSource(**texts, onnx=onnx)

    def _texts(
        self,
        entry: Mapping[str, object],
        name: str,
        **further: tuple[re.Pattern[str], str],
    ) -> dict[str, str]:
        rules = {
            "url": (re.compile(r"https?://\S+"), "an http or https address"),
            "sha256": (_PUBLISHED_SHA256, "8 to 64 hex digits, or nothing"),
            **further,
        }
        texts = {}
        for key, (pattern, expected) in rules.items():
            text = entry.get(key, "")
            if not (isinstance(text, str) and pattern.fullmatch(text)):
                raise self.refusal(f"{name}.{key}", text, expected)
            texts[key] = text
        return texts

    def files(self) -> dict[str, ModelFile]:
        files = {}
        for precision, entry in self.entry_mapping("files").items():
            self.choice("files", precision, PRECISIONS)
            name, digest, size = (
                (entry.get("file"), entry.get("sha256"), entry.get("bytes"))
                if isinstance(entry, Mapping)
                else (None, None, None)
            )
            # A bare file name only: a card must not be able to point outside its own folder.
            if not (isinstance(name, str) and _FILE.fullmatch(name)):
                raise self.refusal(
                    f"files.{precision}.file", name, "a bare file name ending in .onnx"
                )
            if not (isinstance(digest, str) and _SHA256.fullmatch(digest)):
                raise self.refusal(f"files.{precision}.sha256", digest, "64 hex digits")
            files[precision] = ModelFile(
                name, digest, int(self.number(f"files.{precision}.bytes", size, 1, 1e12))
            )
        return files
