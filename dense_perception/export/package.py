"""The model folder: ONNX files, compared before they are published, and the card beside them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import yaml
from torch import nn

from dense_perception.core.card import ModelCard, ModelFile
from dense_perception.core.errors import ArtefactError
from dense_perception.export.graph import embed_card, to_onnx, write_onnx
from dense_perception.export.parity import (
    Arrays,
    Difference,
    card_feeds,
    compare_runtimes,
    runtime_outputs,
    torch_outputs,
)
from dense_perception.export.quantize import QuantizeOptions, quantize

FP32_LIMIT = Difference(1e-4, 1e-5)
"""How far a runtime may be from eager PyTorch; more is a wrong graph, not rounding."""
_INT8_FLOOR = Difference(0.05, 0.005)
_FP32_TOLERANCE = Difference(1e-3, 1e-4)
_MARGIN = 3.0


@dataclass(frozen=True)
class Row:
    """One comparison: a file in a runtime against what it should say."""

    file: str
    bytes: int
    runtime: str
    against: str
    difference: Difference


@dataclass(frozen=True)
class Exported:
    """What was written, and how it compared."""

    card: ModelCard
    card_path: Path
    rows: list[Row]


def export_model(
    network: nn.Module,
    card: ModelCard,
    output: Path,
    calibration: Iterable[Mapping[str, np.ndarray]] | None = None,
    options: QuantizeOptions | None = None,
    *,
    overwrite: bool = False,
    on_step: Callable[[str], None] = lambda step: None,
) -> Exported:
    """Write ``NAME_fp32.onnx``, with ``calibration`` ``NAME_int8.onnx``, and ``NAME.yaml``.

    Everything is made and compared in a temporary folder first; a failure leaves ``output`` as it
    was.

    :raises ArtefactError: if a file exists and ``overwrite`` is false, a runtime disagrees with
        eager PyTorch, or something cannot be written.
    :raises CardError: if the card contradicts the network.
    """
    precisions = ["fp32"] if calibration is None else ["fp32", "int8"]
    targets = [output / f"{card.name}_{kind}.onnx" for kind in precisions]
    card_path = output / f"{card.name}.yaml"
    existing = [path.name for path in (*targets, card_path) if path.exists()]
    if existing and not overwrite:
        raise ArtefactError(
            f"{output} already holds {', '.join(existing)}: choose another folder or overwrite"
        )
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output, prefix=".export-") as temporary:
            maker = _Maker(network, card, Path(temporary), on_step)
            maker.fp32()
            if calibration is not None:
                maker.int8(calibration, options)
            for path in targets:
                os.replace(maker.folder / path.name, path)
            text = yaml.safe_dump(maker.card.to_dict(), sort_keys=False, allow_unicode=True)
            staged = maker.folder / card_path.name
            staged.write_text(text, encoding="utf-8")
            os.replace(staged, card_path)
    except OSError as error:
        raise ArtefactError(f"cannot write to {output}: {error.strerror or error}") from error
    return Exported(maker.card, card_path, maker.rows)


class _Maker:
    """Makes and compares the files of one model in a scratch folder."""

    def __init__(
        self, network: nn.Module, card: ModelCard, folder: Path, on_step: Callable[[str], None]
    ) -> None:
        self.network = network
        self.card = replace(card, precision="fp32", files={})
        self.folder = folder
        self.on_step = on_step
        self.rows: list[Row] = []
        self.feeds = card_feeds(card)
        self.model = onnx.ModelProto()

    def fp32(self) -> None:
        self.on_step("fp32 graph")
        self.model = to_onnx(self.network, _with_tolerance(self.card, _FP32_TOLERANCE))
        path = self._write(self.model, "fp32")
        self.on_step("fp32 against PyTorch")
        want = torch_outputs(self.network, self.card, self.feeds)
        for name, difference in self._compare(path, want, "PyTorch").items():
            if not difference.within(FP32_LIMIT):
                raise ArtefactError(
                    f"{name} differs from PyTorch by {difference.max_of_range:.1e} of the range "
                    f"(mean {difference.mean_of_range:.1e}), expected at most "
                    f"{FP32_LIMIT.max_of_range:.0e}: the graph is wrong, or the runtime is; try "
                    "another version of it"
                )
        self._list(path, "fp32")

    def int8(
        self, calibration: Iterable[Mapping[str, np.ndarray]], options: QuantizeOptions | None
    ) -> None:
        self.on_step("calibrate")
        model = quantize(self.model, calibration, options)
        self.on_step("int8 across runtimes")
        path = self._write(model, "int8")
        # The file's own meaning is what ONNX Runtime computes; the others are held to it.
        own = runtime_outputs("onnxruntime", path, self.feeds)
        found = self._compare(path, own, "ONNX Runtime")
        largest = max((d.max_of_range for d in found.values()), default=0.0)
        mean = max((d.mean_of_range for d in found.values()), default=0.0)
        tolerance = Difference(
            max(_INT8_FLOOR.max_of_range, round(_MARGIN * largest, 4)),
            max(_INT8_FLOOR.mean_of_range, round(_MARGIN * mean, 4)),
        )
        embed_card(
            model, _with_tolerance(replace(self.card, precision="int8", files={}), tolerance)
        )
        path = self._write(model, "int8")
        self.on_step("int8 against fp32")
        fp32 = runtime_outputs("onnxruntime", self.folder / self._name("fp32"), self.feeds)
        self._compare(path, fp32, "fp32")
        self._list(path, "int8")

    def _name(self, precision: str) -> str:
        return f"{self.card.name}_{precision}.onnx"

    def _write(self, model: onnx.ModelProto, precision: str) -> Path:
        path = self.folder / self._name(precision)
        write_onnx(model, path)
        return path

    def _compare(self, path: Path, want: Arrays, against: str) -> dict[str, Difference]:
        found = compare_runtimes(path, want, self.card, self.feeds)
        size = path.stat().st_size
        self.rows += [
            Row(path.name, size, name, against, difference) for name, difference in found.items()
        ]
        return found

    def _list(self, path: Path, precision: str) -> None:
        content = path.read_bytes()
        entry = ModelFile(path.name, hashlib.sha256(content).hexdigest(), len(content))
        self.card = replace(self.card, files={**self.card.files, precision: entry})


def _with_tolerance(card: ModelCard, tolerance: Difference) -> ModelCard:
    """The card as it goes into one file: how far a runtime may be from ONNX Runtime."""
    parity = {
        "seed": int(card.parity.get("seed", 0)),
        "frames": int(card.parity.get("frames", 3)),
        "max_of_range": tolerance.max_of_range,
        "mean_of_range": tolerance.mean_of_range,
    }
    return replace(card, parity=parity)
