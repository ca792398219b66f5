"""Model cards: what a model is, how it is fed, what its outputs mean, and whose it is.

The same card is ``models/NAME.yaml`` (the registry) and JSON inside the ONNX file, under the
metadata key ``dense_perception.card``. The embedded one is authoritative for the graph; the YAML
adds where the files are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dense_perception.core.card_reader import CardReader
from dense_perception.core.card_specs import (
    FURTHER_MAPS,
    SCHEMA,
    CheckpointSource,
    DepthSpec,
    InputSpec,
    InstancesSpec,
    ModelFile,
    SegmentationSpec,
)
from dense_perception.core.errors import CardError
from dense_perception.core.json_text import json_text
from dense_perception.core.onnx_file import OnnxFile, read_onnx_metadata
from dense_perception.core.strict import json_value, yaml_file

METADATA_KEY = "dense_perception.card"


@dataclass(frozen=True)
class ModelCard:
    """One model; ``network``, ``licence``, ``provenance``, ``results`` are free-form data.

    ``maps`` names what a ``multitask`` model gives beside depth and labels, graph outputs of these
    names: ``normals`` float32 (N, height, width, 3), ``edges``, ``keypoints`` and ``reshading``
    uint8 (N, height, width). Every subset of depth, labels, instances and maps is allowed but the
    empty one.
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
    instances: InstancesSpec | None = None
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
        """What the model gives, by the names of :class:`Prediction`'s entries, in its order.

        ``instance_ids`` is a part of ``instances``: where each thing is, pixel by pixel.
        """
        named = [("depth", self.depth is not None), ("labels", self.segmentation is not None)]
        things = self.instances
        return (
            *(name for name, given in named if given),
            *(name for name in FURTHER_MAPS if name in self.maps),
            *(("instances",) if things is not None else ()),
            *(("instance_ids",) if things is not None and things.has_ids else ()),
        )

    @property
    def on_request(self) -> tuple[str, ...]:
        """What the model gives besides, only to whom asks for it: every thing's own mask."""
        things = self.instances
        return ("masks",) if things is not None and things.masks and not things.panoptic else ()

    @classmethod
    def from_dict(cls, data: object, where: str) -> ModelCard:
        """Check and build a card; ``where`` names its origin in error messages.

        :raises CardError: naming the offending entry, what it was and what was expected.
        """
        return cls(**CardReader(data, where).entries(cls.__dataclass_fields__))

    @classmethod
    def from_yaml(cls, path: Path) -> ModelCard:
        """Read ``models/NAME.yaml`` with the safe loader.

        :raises CardError: if it cannot be read or is not a valid card.
        """
        return cls.from_dict(yaml_file(path, "the model card", CardError), str(path))

    @classmethod
    def from_onnx(cls, source: Path | OnnxFile) -> ModelCard:
        """Read the card inside an ONNX file.

        :raises ArtefactError: if the file is not a whole ONNX model.
        :raises CardError: if it carries no card or a malformed one.
        """
        text = read_onnx_metadata(source).get(METADATA_KEY)
        path = source.path if isinstance(source, OnnxFile) else source
        if text is None:
            raise CardError(
                f"{path} is an ONNX file without a model card (metadata key {METADATA_KEY!r}), so "
                f"what goes in and comes out is unknown: run `dense-perception import {path}`, or "
                "export the network's weights, `dense-perception export model.pt` of one trained "
                "here, `dense-perception export NAME --weights FILE` of a published one"
            )
        where = f"the card inside {path}"
        return cls.from_dict(json_value(text, where, CardError), where)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for YAML or JSON; the inverse of :meth:`from_dict`."""
        data: dict[str, Any] = {"schema": SCHEMA, **asdict(self)}
        default = InputSpec(self.input.height, self.input.width)
        data["input"]["pad"] = list(self.input.pad)
        for key in (
            *("multiple", "interpolation", "restore", "short_side", "long_side", "dtype"),
            *("pad", "place"),
        ):
            if getattr(self.input, key) == getattr(default, key):
                del data["input"][key]
        if self.segmentation is not None and not self.segmentation.scores:
            del data["segmentation"]["scores"]
        if self.depth is not None:
            data["depth"]["kind"] = self.depth.kind.value
            if self.depth.max_m == float("inf"):
                del data["depth"]["max_m"]
        for key in ("segmentation", "instances"):
            if getattr(self, key) is not None:
                names = data[key].pop("names")
                data[key] |= {"names": list(names)} if names else {}
        if self.instances is not None:
            data["instances"] = {key: value for key, value in data["instances"].items() if value}
        if self.source is not None:
            data["source"] = {key: value for key, value in data["source"].items() if value}
            if self.source.onnx is not None:
                onnx = data["source"]["onnx"]
                data["source"]["onnx"] = {key: value for key, value in onnx.items() if value}
        data["maps"] = list(self.maps)
        return {key: value for key, value in data.items() if value not in ({}, [], None)}

    def embedded_json(self) -> str:
        """The text stored in the ONNX metadata: everything but where the files are."""
        data = self.to_dict()
        data.pop("files", None)
        return json_text(data, sort_keys=True)
