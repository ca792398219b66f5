"""The model folder: ONNX files, compared before they are published, and the card beside them.

Without PyTorch: what begins with a network is :mod:`~dense_perception.export.package`.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import yaml

from dense_perception.backends.nvidia.tensorrt8_graph import (
    GraphRefused,
    for_tensorrt8,
    version_of,
)
from dense_perception.core.card import ModelCard
from dense_perception.core.card_specs import PRECISIONS, ModelFile
from dense_perception.core.difference import TOLERANCES, Difference
from dense_perception.core.errors import ArtefactError, BackendError, InputError
from dense_perception.core.storage import scratch_folder
from dense_perception.export import compare
from dense_perception.export.calibration import split_frames
from dense_perception.export.compare import (
    Arrays,
    card_feeds,
    compare_runtimes,
    difference_of,
    plain_outputs,
)
from dense_perception.export.graph_file import embed_card, write_onnx
from dense_perception.export.half import Rounder, to_half
from dense_perception.export.quantize import BYTES, QuantizeOptions, Quantizer
from dense_perception.export.sensitivity import Found, Judge, search

FP16_DROP = 0.002
BYTES_DROP = 0.02
"""What a precision may cost by default; see :class:`~dense_perception.export.sensitivity.Judge`."""
_MARGIN = 2.0
OnStep = Callable[[str, int], None]
"""Told each step, and how many more have turned out to be needed."""


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
    :param tensorrt: "8.5" or "8.6" writes graphs that this version reads; every runtime reads them.
    """

    precisions: Sequence[str] = ()
    frames: Sequence[Arrays] = ()
    source: str = ""
    options: QuantizeOptions = field(default_factory=QuantizeOptions)
    max_drop: float = BYTES_DROP
    fp16_drop: float = FP16_DROP
    tensorrt: str = ""

    @property
    def quantised(self) -> list[str]:
        """Those of its precisions that need frames."""
        return [kind for kind in BYTES if kind in self.precisions]


def write_model(
    card: ModelCard,
    output: Path,
    begin: Callable[[FolderMaker], None],
    plan: Plan | None = None,
    *,
    precision: str = "fp32",
    overwrite: bool = False,
    on_step: OnStep = lambda step, more: None,
) -> Exported:
    """Write ``NAME_PRECISION.onnx``, what ``plan`` wants beside it, and ``NAME.yaml``.

    ``begin`` makes the first file, that of ``precision``, with :meth:`FolderMaker.write` and
    :meth:`FolderMaker.enter`, and the fp32 file if that one is fp16 and ``plan`` wants others.
    Everything is made and compared in a temporary folder first; a failure leaves ``output`` as it
    was.

    :raises ArtefactError: if a file exists and ``overwrite`` is false, no coarse graph is within
        its drop, or something cannot be written.
    :raises InputError: if int8 or fp8 is wanted without frames, fp8 with the method ``mse``, or
        anything of a first file that is quantised.
    """
    plan = plan or Plan()
    if plan.tensorrt and "fp8" in plan.precisions:
        raise InputError(f"fp8 needs TensorRT 10, got {plan.tensorrt}: take int8 or fp16")
    for kind in plan.quantised:
        plan.options.check_for(kind)
    if plan.quantised and not plan.frames:
        raise InputError(
            f"{' and '.join(plan.quantised)} needs frames to calibrate on: give pictures, a video "
            "or a bag"
        )
    further = [kind for kind in PRECISIONS if kind in plan.precisions and kind != precision]
    if further and precision in BYTES:
        raise InputError(
            f"{' and '.join(further)} is made of an fp32 or fp16 graph, this one is {precision}: "
            "take the model's fp32 file"
        )
    targets = [output / f"{card.name}_{kind}.onnx" for kind in (precision, *further)]
    card_path = output / f"{card.name}.yaml"

    def refuse_existing(when: str) -> None:
        existing = [path.name for path in (*targets, card_path) if path.exists()]
        if existing and not overwrite:
            raise ArtefactError(
                f"{output} {when} holds {', '.join(existing)}: choose another folder or overwrite"
            )

    refuse_existing("already")
    try:
        output.mkdir(parents=True, exist_ok=True)
        with scratch_folder(output, ".export-") as temporary:
            maker = FolderMaker(card, temporary, precision, on_step, plan.tensorrt)
            begin(maker)
            if further:
                maker.coarse(plan)
            text = yaml.safe_dump(maker.card.to_dict(), sort_keys=False, allow_unicode=True)
            staged = maker.folder / card_path.name
            staged.write_text(text, encoding="utf-8")
            with _alone(output):  # another may make a model of that name at the same time
                refuse_existing("by now")
                for path in targets:
                    if (maker.folder / path.name).exists():  # not what the target refuses
                        os.replace(maker.folder / path.name, path)
                os.replace(staged, card_path)
    except OSError as error:
        raise ArtefactError(f"cannot write to {output}: {error.strerror or error}") from error
    return Exported(maker.card, card_path, maker.rows, tuple(maker.warnings))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One writer of a folder at a time, as far as its file system knows locks."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class FolderMaker:
    """Makes and compares the files of one model in a scratch folder.

    ``card``, ``rows`` and ``warnings`` grow with each file, ``feeds`` are the card's reference
    frames, ``model`` is the graph that :meth:`coarse` starts from. With ``tensorrt`` the files are
    written as that version reads them.
    """

    def __init__(
        self,
        card: ModelCard,
        folder: Path,
        precision: str,
        on_step: OnStep,
        tensorrt: str = "",
    ) -> None:
        provenance = {key: v for key, v in card.provenance.items() if key != "precision"}
        self.card = replace(card, precision=precision, files={}, provenance=provenance)
        self.folder = folder
        self.on_step = on_step
        self.rows: list[Row] = []
        self.warnings: list[str] = []
        self.feeds = card_feeds(card)
        self.model = onnx.ModelProto()
        self.target = version_of(tensorrt)
        self._graphs: dict[Path, str] = {}
        self._heard: dict[tuple[str, str], Arrays] = {}

    def write(self, model: onnx.ModelProto, precision: str) -> Path:
        """The file as it is now.

        :raises BackendError: if the TensorRT that it is for refuses it.
        """
        path = self.folder / self._name(precision)
        model = for_tensorrt8(model, self.target) if self.target else model
        write_onnx(model, path)
        content = model.graph.SerializeToString(deterministic=True)
        self._graphs[path] = hashlib.sha256(content).hexdigest()
        return path

    def _ask(self, runtime: str, path: Path, feeds: Arrays) -> Arrays:
        """What a runtime says to the reference frames.

        Asked once of each graph: a file that is written again has another card inside, and
        compiling a large graph takes a minute.
        """
        key = runtime, self._graphs[path]
        if key not in self._heard:
            self.on_step(f"{path.stem} in {runtime}", 1)
            self._heard[key] = compare.runtime_outputs(runtime, path, feeds)
        return self._heard[key]

    def compare(
        self, path: Path, want: Arrays, against: str, *, refusable: bool = False
    ) -> dict[str, Difference]:
        """Every runtime against ``want``, each a row.

        With ``refusable`` one other than ONNX Runtime that refuses the file is left out, with a
        warning.
        """

        def left_out(name: str, error: BackendError) -> None:
            # Where the file lies now is gone in the end.
            why = str(error).replace(str(path), path.name)
            warning = f"{path.name} was not compared in {name}: {why}"
            if warning not in self.warnings:
                self.warnings.append(warning)

        on_refusal = left_out if refusable else None
        found = compare_runtimes(
            path, want, self.card, self.feeds, on_refusal=on_refusal, ask=self._ask
        )
        size = path.stat().st_size
        self.rows += [
            Row(path.name, size, name, against, difference) for name, difference in found.items()
        ]
        return found

    def enter(self, path: Path, precision: str) -> None:
        """Take a finished file up into the card.

        What runtimes say of it is forgotten: masks of every frame take hundreds of megabytes.
        Others are held against what ONNX Runtime says of the fp32 file, so that stays.
        """
        fp32 = "onnxruntime", self._graphs.get(self.folder / self._name("fp32"))
        self._heard = {key: heard for key, heard in self._heard.items() if key == fp32}
        content = path.read_bytes()
        entry = ModelFile(path.name, hashlib.sha256(content).hexdigest(), len(content))
        self.card = replace(self.card, files={**self.card.files, precision: entry})

    def tolerance(self, path: Path, precision: str) -> Difference:
        """What another runtime may differ by: a margin over what is seen here."""
        own = self._ask("onnxruntime", path, self.feeds)
        seen = self.compare(path, own, "ONNX Runtime", refusable=precision == "fp8")
        plain = difference_of(self.card, plain_outputs(path, self.feeds), own)
        size = path.stat().st_size
        self.rows.append(Row(path.name, size, "unoptimised", "ONNX Runtime", plain))
        return allowed([*seen.values(), plain], precision)

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
        if not plan.quantised:
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
        for kind in plan.quantised:
            self.on_step(kind, 0)
            build = partial(quantizer.build, precision=kind)
            found = search(quantizer.layers, build, judge, plan.max_drop, self.on_step)
            self._publish(kind, found, record)

    def _publish(self, precision: str, found: Found, record: Mapping[str, object]) -> None:
        """Hold every runtime to what ONNX Runtime says the file means, and put the card in."""
        self.on_step(f"{precision} across runtimes", 0)
        # A backend goes by what the file says.
        embed_card(found.model, replace(self.card, precision=precision, files={}))
        try:
            path = self.write(found.model, precision)
        except GraphRefused as error:
            self.warnings.append(f"{self._name(precision)} was not written: {error}")
            return
        tolerance = self.tolerance(path, precision)
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
        embed_card(found.model, with_tolerance(inside, tolerance))
        path = self.write(found.model, precision)
        self.on_step(f"{precision} against fp32", 0)
        fp32 = self._ask("onnxruntime", self.folder / self._name("fp32"), self.feeds)
        self.compare(path, fp32, "fp32", refusable=precision == "fp8")
        self.enter(path, precision)

    def _name(self, precision: str) -> str:
        return f"{self.card.name}_{precision}.onnx"


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


def with_tolerance(card: ModelCard, tolerance: Difference) -> ModelCard:
    """The card as it goes into one file: how far a runtime may be from ONNX Runtime."""
    parity = {
        "seed": int(card.parity.get("seed", 0)),
        "frames": int(card.parity.get("frames", 3)),
        "max_of_range": tolerance.max_of_range,
        "mean_of_range": tolerance.mean_of_range,
    }
    return replace(card, parity=parity)
