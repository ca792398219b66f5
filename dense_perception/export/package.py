"""The model folder: ONNX files, compared before they are published, and the card beside them."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import yaml
from torch import nn

from dense_perception.core.card import ModelCard
from dense_perception.core.card_specs import PRECISIONS, ModelFile
from dense_perception.core.difference import TOLERANCES, Difference
from dense_perception.core.errors import ArtefactError, BackendError, InputError
from dense_perception.core.reference_frames import reference_feeds
from dense_perception.core.storage import scratch_folder
from dense_perception.export.calibration import split_frames
from dense_perception.export.compare import (
    Arrays,
    card_feeds,
    compare_runtimes,
    difference_of,
    plain_outputs,
    runtime_outputs,
    torch_outputs,
)
from dense_perception.export.half import Rounder, to_half
from dense_perception.export.onnx_graph import embed_card, to_onnx, write_onnx
from dense_perception.export.quantize import BYTES, QuantizeOptions, Quantizer
from dense_perception.export.sensitivity import Found, Judge, search

FP32_LIMIT = Difference(1e-4, 1e-5)
"""How far a runtime may be from eager PyTorch for the graph to be right without further proof."""
FP64_TIMES = Difference(16.0, 4.0)
"""How many times eager PyTorch's own rounding error (against fp64) the graph's may be.

The mean tells two roundings of the same sums from a wrong graph. The largest is one pixel's of
hundreds of thousands, and a network that enlarges rounding spreads it widely: DPT-Hybrid at
1216x352 had ten times PyTorch's largest with less than four times its mean.
"""
FP16_DROP = 0.002
BYTES_DROP = 0.02
"""What a precision may cost by default; see :class:`~dense_perception.export.sensitivity.Judge`."""
_MARGIN = 2.0


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
    warnings: tuple[str, ...] = ()
    """What was not compared, and why."""


@dataclass(frozen=True)
class Plan:
    """Which files to make besides fp32, and how.

    :param precisions: some of ``fp16``, ``int8`` and ``fp8``.
    :param frames: graph inputs, one frame each, to calibrate on; int8 and fp8 need them. The last
        eighth, at most 8, is kept aside to measure the drop on. Without frames the card's
        reference frames measure it.
    :param source: what the frames are, for the card.
    :param max_drop: for int8 and fp8; see :class:`~dense_perception.export.sensitivity.Judge`.
    :param fp16_drop: the same for fp16.
    """

    precisions: Sequence[str] = ()
    frames: Sequence[Arrays] = ()
    source: str = ""
    options: QuantizeOptions = field(default_factory=QuantizeOptions)
    max_drop: float = BYTES_DROP
    fp16_drop: float = FP16_DROP


def export_model(
    network: nn.Module,
    card: ModelCard,
    output: Path,
    plan: Plan | None = None,
    *,
    overwrite: bool = False,
    on_step: Callable[[str, int], None] = lambda step, more: None,
) -> Exported:
    """Write ``NAME_fp32.onnx``, what ``plan`` wants beside it, and ``NAME.yaml``.

    Everything is made and compared in a temporary folder first; a failure leaves ``output`` as it
    was. ``on_step`` is told each step, and how many more have turned out to be needed.

    :raises ArtefactError: if a file exists and ``overwrite`` is false, a runtime disagrees with
        eager PyTorch, no coarse graph is within its drop, or something cannot be written.
    :raises CardError: if the card contradicts the network.
    :raises InputError: if int8 or fp8 is wanted without frames, or fp8 with the method ``mse``.
    """
    plan = plan or Plan()
    quantised = [kind for kind in BYTES if kind in plan.precisions]
    for kind in quantised:
        plan.options.check_for(kind)
    if quantised and not plan.frames:
        raise InputError(
            f"{' and '.join(quantised)} needs frames to calibrate on: give pictures, a video or "
            "a bag"
        )
    precisions = [kind for kind in PRECISIONS if kind == "fp32" or kind in plan.precisions]
    targets = [output / f"{card.name}_{kind}.onnx" for kind in precisions]
    card_path = output / f"{card.name}.yaml"
    existing = [path.name for path in (*targets, card_path) if path.exists()]
    if existing and not overwrite:
        raise ArtefactError(
            f"{output} already holds {', '.join(existing)}: choose another folder or overwrite"
        )
    try:
        output.mkdir(parents=True, exist_ok=True)
        with scratch_folder(output, ".export-") as temporary:
            maker = _Maker(network, card, temporary, on_step)
            maker.fp32()
            maker.coarse(plan)
            for path in targets:
                os.replace(maker.folder / path.name, path)
            text = yaml.safe_dump(maker.card.to_dict(), sort_keys=False, allow_unicode=True)
            staged = maker.folder / card_path.name
            staged.write_text(text, encoding="utf-8")
            os.replace(staged, card_path)
    except OSError as error:
        raise ArtefactError(f"cannot write to {output}: {error.strerror or error}") from error
    return Exported(maker.card, card_path, maker.rows, tuple(maker.warnings))


class _Maker:
    """Makes and compares the files of one model in a scratch folder."""

    def __init__(
        self, network: nn.Module, card: ModelCard, folder: Path, on_step: Callable[[str, int], None]
    ) -> None:
        self.network = network
        provenance = {key: v for key, v in card.provenance.items() if key != "precision"}
        self.card = replace(card, precision="fp32", files={}, provenance=provenance)
        self.folder = folder
        self.on_step = on_step
        self.rows: list[Row] = []
        self.warnings: list[str] = []
        self.feeds = card_feeds(card)
        self.model = onnx.ModelProto()

    def fp32(self) -> None:
        self.on_step("fp32 graph", 0)
        self.model = to_onnx(self.network, _with_tolerance(self.card, TOLERANCES["fp32"]))
        path = self._write(self.model, "fp32")
        self.on_step("fp32 against PyTorch", 0)
        want = torch_outputs(self.network, self.card, self.feeds)
        found = self._compare(path, want, "PyTorch")
        if not all(difference.within(FP32_LIMIT) for difference in found.values()):
            self._against_double(path, want)
        if self.card.input.free:
            self._at_another_size(path)
        self._list(path, "fp32")

    def _at_another_size(self, path: Path) -> None:
        """A graph of free sizes must not have kept anything of the size it was traced at.

        :raises ArtefactError: if it has.
        """
        spec = self.card.input
        other = replace(
            spec, height=spec.height + spec.multiple, width=spec.width + 3 * spec.multiple
        )
        card = replace(self.card, input=other)
        feeds = reference_feeds(card, 1)
        self.on_step(f"fp32 at {other.width}x{other.height}", 1)
        got = runtime_outputs("onnxruntime", path, feeds)
        found = difference_of(card, got, torch_outputs(self.network, card, feeds))
        # Rounding is judged at the card's size; a wrong graph is further off than this.
        if not found.within(TOLERANCES["fp16"]):
            raise ArtefactError(
                f"at {other.width}x{other.height} the graph differs from PyTorch by "
                f"{found.max_of_range:.1e} of the range (mean {found.mean_of_range:.1e}): it is "
                "right at one size only; export it with --size, or with another version of PyTorch"
            )

    def _against_double(self, path: Path, want: Arrays) -> None:
        """A network that enlarges rounding: both fp32 answers are held against fp64's.

        :raises ArtefactError: if a runtime is further from fp64 than rounding explains.
        """
        self.on_step("fp32 against fp64", 1)
        exact = torch_outputs(self.network, self.card, self.feeds, double=True)
        own = difference_of(self.card, want, exact)
        limit = Difference(
            max(FP32_LIMIT.max_of_range, FP64_TIMES.max_of_range * own.max_of_range),
            max(FP32_LIMIT.mean_of_range, FP64_TIMES.mean_of_range * own.mean_of_range),
        )
        self.rows.append(Row(path.name, path.stat().st_size, "PyTorch", "fp64", own))
        for name, difference in self._compare(path, exact, "fp64").items():
            if not difference.within(limit):
                raise ArtefactError(
                    f"{name} differs from the network in fp64 by {difference.max_of_range:.1e} of "
                    f"the range (mean {difference.mean_of_range:.1e}), expected at most "
                    f"{limit.max_of_range:.1e} (mean {limit.mean_of_range:.1e}; PyTorch's fp32 "
                    f"differs by {own.max_of_range:.1e}): the graph is wrong, or the runtime is; "
                    "try another version of it"
                )

    def coarse(self, plan: Plan) -> None:
        """The files of ``plan``."""
        kept, judged = split_frames(plan.frames)
        if not judged:
            count = len(self.feeds["image"])
            judged = [
                {name: array[index : index + 1] for name, array in self.feeds.items()}
                for index in range(count)
            ]
        judge = Judge(self.model, self.card, judged)
        if "fp16" in plan.precisions:
            self.on_step("fp16", 0)
            rounder = Rounder(self.model)
            found = search(rounder.candidates, rounder, judge, plan.fp16_drop, self.on_step)
            found = replace(found, model=to_half(self.model, found.kept))
            self._publish("fp16", found, {"max_drop": plan.fp16_drop})
        quantised = [kind for kind in BYTES if kind in plan.precisions]
        if not quantised:
            return
        looks = len(kept) * (2 if plan.options.needs_histograms else 1)
        self.on_step("calibrate", looks)
        quantizer = Quantizer(
            self.model,
            kept,
            plan.options,
            lambda done, total: self.on_step(f"calibrate: frame {done} of {total}", 0),
        )
        record = {
            "max_drop": plan.max_drop,
            "calibration": plan.source,
            "frames": len(kept),
            "ranges": plan.options.method,
            "smooth": plan.options.smooth,
            "layers": len(quantizer.layers),
        }
        for kind in quantised:
            self.on_step(kind, 0)
            build = partial(quantizer.build, precision=kind)
            found = search(quantizer.layers, build, judge, plan.max_drop, self.on_step)
            self._publish(kind, found, record)

    def _publish(self, precision: str, found: Found, record: Mapping[str, object]) -> None:
        """Hold every runtime to what ONNX Runtime says the file means, and put the card in."""
        self.on_step(f"{precision} across runtimes", 0)
        # A backend goes by what the file says.
        embed_card(found.model, replace(self.card, precision=precision, files={}))
        path = self._write(found.model, precision)
        tolerance = self._tolerance(path, precision)
        entry = {
            **record,
            "drop": round(found.drop, 5),
            "drop_if_all": round(found.full_drop, 5),
            "kept_fp32": list(found.kept),
        }
        if not np.isfinite(found.full_drop):
            entry["drop_if_all"] = "not finite"
        made = {**self.card.provenance.get("precision", {}), precision: entry}
        provenance = {**self.card.provenance, "precision": made}
        self.card = replace(self.card, provenance=provenance)
        inside = replace(
            self.card,
            precision=precision,
            files={},
            provenance={**provenance, "precision": {precision: entry}},
        )
        embed_card(found.model, _with_tolerance(inside, tolerance))
        path = self._write(found.model, precision)
        self.on_step(f"{precision} against fp32", 0)
        fp32 = runtime_outputs("onnxruntime", self.folder / self._name("fp32"), self.feeds)
        self._compare(path, fp32, "fp32", precision)
        self._list(path, precision)

    def _tolerance(self, path: Path, precision: str) -> Difference:
        """What another runtime may differ by: a margin over what is seen here."""
        own = runtime_outputs("onnxruntime", path, self.feeds)
        seen = self._compare(path, own, "ONNX Runtime", precision)
        plain = difference_of(self.card, plain_outputs(path, self.feeds), own)
        size = path.stat().st_size
        self.rows.append(Row(path.name, size, "unoptimised", "ONNX Runtime", plain))
        return allowed([*seen.values(), plain], precision)

    def _name(self, precision: str) -> str:
        return f"{self.card.name}_{precision}.onnx"

    def _write(self, model: onnx.ModelProto, precision: str) -> Path:
        path = self.folder / self._name(precision)
        write_onnx(model, path)
        return path

    def _compare(
        self, path: Path, want: Arrays, against: str, precision: str = "fp32"
    ) -> dict[str, Difference]:
        """fp8 is for GPUs: a runtime for CPUs that does not read it is left out with a warning."""

        def left_out(name: str, error: BackendError) -> None:
            # Where the file lies now is gone in the end.
            why = str(error).replace(str(path), path.name)
            warning = f"{path.name} was not compared in {name}: {why}"
            if warning not in self.warnings:
                self.warnings.append(warning)

        on_refusal = left_out if precision == "fp8" else None
        found = compare_runtimes(path, want, self.card, self.feeds, on_refusal=on_refusal)
        size = path.stat().st_size
        self.rows += [
            Row(path.name, size, name, against, difference) for name, difference in found.items()
        ]
        return found

    def _list(self, path: Path, precision: str) -> None:
        content = path.read_bytes()
        entry = ModelFile(path.name, hashlib.sha256(content).hexdigest(), len(content))
        self.card = replace(self.card, files={**self.card.files, precision: entry})


def allowed(seen: Iterable[Difference], precision: str) -> Difference:
    """The tolerance of a file whose runtimes were seen to differ by ``seen``.

    Where a runtime answers with one value only, a difference has no measure: it allows nothing
    more, and nodes that find it again take ONNX Runtime.
    """
    measured = [each for each in seen if math.isfinite(each.max_of_range)]
    worst, floor = Difference.worst(measured), TOLERANCES[precision]
    return Difference(
        max(floor.max_of_range, round(_MARGIN * worst.max_of_range, 4)),
        max(floor.mean_of_range, round(_MARGIN * worst.mean_of_range, 4)),
    )


def _with_tolerance(card: ModelCard, tolerance: Difference) -> ModelCard:
    """The card as it goes into one file: how far a runtime may be from ONNX Runtime."""
    parity = {
        "seed": int(card.parity.get("seed", 0)),
        "frames": int(card.parity.get("frames", 3)),
        "max_of_range": tolerance.max_of_range,
        "mean_of_range": tolerance.mean_of_range,
    }
    return replace(card, parity=parity)
