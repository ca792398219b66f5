"""The one protocol every runtime is driven through, and what a card promises of its graph."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dense_perception.backends.engine_cache import EngineKey
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import ArtefactError, BackendError, CardError
from dense_perception.core.instance_lists import BOXES, CLASSES, IDS, MASKS, SCORES
from dense_perception.core.onnx_file import OnnxFile


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, NumPy dtype and shape of a graph input or output; ``None`` is a free dimension."""

    name: str
    dtype: np.dtype
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        sides = ", ".join("?" if side is None else str(side) for side in self.shape)
        return f"{self.name}: {self.dtype} ({sides})"

    def admits(self, array: np.ndarray) -> bool:
        return (
            array.dtype == self.dtype
            and array.ndim == len(self.shape)
            and all(want in (None, got) for want, got in zip(self.shape, array.shape, strict=True))
        )


Infer = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]
SizeCheck = Callable[[OnnxFile, str, tuple[int, int, int], Infer], None]
"""Compares what was compiled later with the reference: the file, a name for what is checked, batch,
height and width, and how to run it. Raises EngineRefusedError."""


class Backend(ABC):
    """A loaded graph in one runtime: :meth:`infer` until :meth:`close`.

    ``name`` is the backend's name in parameters and tables, ``description`` what actually runs
    (runtime version, device, threads). Not thread-safe: one worker drives one backend.
    """

    name: str
    description: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    identity: str = ""
    """Names the engine that runs, where there is one: its key and its bytes."""
    problem: str = ""
    """What makes it slower than it could be, though not wrong; empty if nothing does."""
    unstored: str = ""
    """Why its engine is not in the cache, so that the next start builds it anew; empty if it is."""
    better_engine: EngineKey | None = None
    """What to build for it to run faster, where its engine is for a smaller batch."""
    has_engines: bool = False
    """Whether loading takes an engine that may have to be built first, for minutes perhaps.

    The constructor takes ``batch`` then, for how many images it is built, and ``build``, without
    which it raises :class:`~dense_perception.backends.engine_cache.EngineMissingError` instead.
    """
    is_reference: bool = False
    """Whether the others are compared with this one."""
    size_check: SizeCheck | None = None
    """What a runtime that compiles for each size calls for sizes that were not checked at load."""

    def infer(
        self, feeds: Mapping[str, np.ndarray], wanted: Collection[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Run the graph on C-contiguous arrays, one per input; returns one array per output.

        ``wanted`` names the outputs to return; only these are copied and, where the runtime can,
        computed. None is all of them. The returned arrays may be overwritten by the next call.

        :raises BackendError: if an input is missing, unknown or of another dtype or shape, an
            output is unknown, or the runtime fails or answers with another dtype or shape.
        """
        taken = {spec.name for spec in self.inputs}
        if set(feeds) != taken:
            raise BackendError(f"got inputs {sorted(feeds)}, the graph takes {sorted(taken)}")
        for spec in self.inputs:
            array = feeds[spec.name]
            if not spec.admits(array):
                raise BackendError(
                    f"got input {spec.name} as {array.dtype} {array.shape}, the graph takes {spec}"
                )
        specs = {spec.name: spec for spec in self.outputs}
        names = list(specs)
        if wanted is not None:
            if not wanted or not set(wanted) <= set(names):
                raise BackendError(f"wanted outputs {sorted(wanted)}, the graph gives {names}")
            names = [name for name in names if name in wanted]
        answer = self._run(feeds, names)
        for name in names:
            if not specs[name].admits(answer[name]):
                got = answer[name]
                raise BackendError(
                    f"{self.description} gave output {name} as {got.dtype} {got.shape}, the graph "
                    f"gives {specs[name]}: use another version of it, or another backend"
                )
        return answer

    def input_buffer(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """An array of that shape for :meth:`infer`, whose contents the caller writes before.

        What is handed in is copied; this is the memory from which the runtime takes that input
        itself, where it has such. It is good until the next call of any method.

        :raises BackendError: if there is no such input, the backend is closed, or has no memory.
        """
        spec = next((spec for spec in self.inputs if spec.name == name), None)
        if spec is None:
            raise BackendError(f"got input {name}, the graph takes {list(map(str, self.inputs))}")
        kept = self._input_buffers.get(name)
        if kept is None or kept.shape != shape:
            kept = self._input_buffers[name] = np.empty(shape, spec.dtype)
        return kept

    @functools.cached_property
    def _input_buffers(self) -> dict[str, np.ndarray]:
        return {}

    @classmethod
    def engine_key(cls, _file: OnnxFile, _device: str, _batch: int = 1) -> EngineKey | None:
        """The engine that loading ``_file`` builds where none is stored; ``None`` of those without.

        :raises BackendError: if the runtime or the device is missing.
        """
        return None

    @abstractmethod
    def _run(self, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
        """Run on checked inputs; returns the outputs ``names``."""

    @abstractmethod
    def close(self) -> None:
        """Free the runtime's memory. Safe to call twice."""

    def closed(self) -> BackendError:
        """What :meth:`infer` raises after :meth:`close`."""
        return BackendError(f"the {self.name} backend is closed: load the model again")


def batch_size(feeds: Mapping[str, np.ndarray]) -> int:
    """The common length of the inputs' first axis.

    :raises BackendError: if they differ or it is 0.
    """
    sizes = {len(array) for array in feeds.values()}
    if len(sizes) != 1 or 0 in sizes:
        raise BackendError(f"got inputs of batch sizes {sorted(sizes)}, expected one above 0")
    return sizes.pop()


def run_in_parts(
    run: Callable[[Mapping[str, np.ndarray], Sequence[str]], dict[str, np.ndarray]],
    feeds: Mapping[str, np.ndarray],
    names: Sequence[str],
    largest: int,
) -> dict[str, np.ndarray]:
    """The outputs ``names`` of any batch, from a ``run`` that takes ``largest`` images at most.

    ``run`` may overwrite its answers at its next call.

    :raises BackendError: what ``run`` raises, or as :func:`batch_size`.
    """
    batch = batch_size(feeds)
    if batch <= largest:
        return run(feeds, names)
    parts = []
    for start in range(0, batch, largest):
        part = {name: array[start : start + largest] for name, array in feeds.items()}
        parts.append({name: array.copy() for name, array in run(part, names).items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def one_line(error: BaseException) -> str:
    """A runtime's message without its line breaks, 300 characters at most."""
    return " ".join(str(error).split())[:300]


def stated_precision(file: OnnxFile) -> str:
    """What the card inside the file says; nothing where it has no card that can be read."""
    try:
        return ModelCard.from_onnx(file).precision
    except (ArtefactError, CardError):
        return ""


def refused(runtime: str, version: str, file: OnnxFile, error: Exception) -> BackendError:
    """What a runtime's refusal to load a file becomes, with the cure."""
    if stated_precision(file) == "fp8":
        return BackendError(
            f"{runtime} {version} refuses {file.path}, which is fp8: {one_line(error)}; update "
            f"{runtime}, or take another precision, such as int8"
        )
    return BackendError(
        f"{runtime} {version} refuses {file.path}: {one_line(error)}; get the file again, or "
        "export it with this version of the package"
    )


def promised(card: ModelCard) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The inputs and outputs that ``card`` promises, in the graph's order.

    Inputs: ``image`` (N, height, width, 3) of the card's dtype and, for a focal-aware model,
    ``focal_px`` float32 (N,). Outputs of (N, height, width): ``depth`` float32, ``labels`` and
    ``confidence``, ``edges``, ``keypoints`` and ``reshading`` uint8, and ``normals`` float32
    (N, height, width, 3); or, of windows, ``scores`` float32 (N, classes, rows, columns) for the
    labels. Of instances, with M rows: ``boxes`` float32 (N, M, 4), ``box_scores`` float32 and
    ``box_classes`` uint8 (N, M), ``instance_ids`` (N, height, width) of the card's id type and
    ``masks`` uint8 (N, M, height, width), in units of 1/255. N is free, and height and width are
    where the card says so.
    """
    size: tuple[int | None, ...] = (None, card.input.height, card.input.width)
    if card.input.free:
        size = (None, None, None)
    inputs = [TensorSpec("image", np.dtype(card.input.dtype), (*size, 3))]
    if card.input.focal:
        inputs.append(TensorSpec("focal_px", np.dtype(np.float32), (None,)))
    outputs = []
    labelled = card.segmentation
    for output in (*card.outputs, *card.on_request):
        if output in ("instances", IDS, MASKS):
            outputs += _promised_of_instances(card, output, size)
            continue
        if output == "labels" and labelled is not None and labelled.scores:
            classes = len(labelled.label_set.labels)
            sides = (card.input.height // labelled.scores, card.input.width // labelled.scores)
            outputs.append(TensorSpec("scores", np.dtype(np.float32), (None, classes, *sides)))
            continue
        for name in ("labels", "confidence") if output == "labels" else (output,):
            dtype = np.dtype(np.float32 if name in ("depth", "normals") else np.uint8)
            outputs.append(TensorSpec(name, dtype, (*size, 3) if name == "normals" else size))
    return tuple(inputs), tuple(outputs)


def _promised_of_instances(
    card: ModelCard, output: str, size: tuple[int | None, ...]
) -> list[TensorSpec]:
    assert card.instances is not None
    rows = (None, card.instances.count)
    if output == IDS:
        return [TensorSpec(IDS, np.dtype(card.instances.id_type), size)]
    if output == MASKS:
        return [TensorSpec(MASKS, np.dtype(np.uint8), (*rows, *size[1:]))]
    return [
        TensorSpec(BOXES, np.dtype(np.float32), (*rows, 4)),
        TensorSpec(SCORES, np.dtype(np.float32), rows),
        TensorSpec(CLASSES, np.dtype(np.uint8), rows),
    ]


def check_graph(card: ModelCard, backend: Backend, where: str) -> None:
    """Compare the graph's real inputs and outputs with the card's (:func:`promised`).

    N is free or 1, and further outputs do no harm.

    :raises CardError: naming the tensor, what the graph has and what the card promises.
    """
    inputs, outputs = promised(card)
    _compare("input", inputs, backend.inputs, where, exact=True)
    _compare("output", outputs, backend.outputs, where, exact=False)


def _compare(
    kind: str,
    promises: tuple[TensorSpec, ...],
    specs: tuple[TensorSpec, ...],
    where: str,
    *,
    exact: bool,
) -> None:
    found = {spec.name: spec for spec in specs}
    wanted = {spec.name: (spec.dtype, spec.shape[1:]) for spec in promises}
    missing = [name for name in wanted if name not in found]
    surplus = [name for name in found if name not in wanted] if exact else []
    if missing or surplus:
        raise CardError(
            f"{where}: the card contradicts its graph: {kind}s are {sorted(found)}, the card "
            f"promises {sorted(wanted)}: export the model again"
        )
    for name, (dtype, tail) in wanted.items():
        spec = found[name]
        batch, *sides = spec.shape if spec.shape else (0,)
        fits = len(sides) == len(tail) and all(
            side in (None, want) for side, want in zip(sides, tail, strict=True)
        )
        if spec.dtype != dtype or batch not in (None, 1) or not fits:
            if None in tail and None not in sides:
                raise CardError(
                    f"{where}: {kind} {spec} has one size, the card promises every one: export the "
                    "model with --size WxH in your camera's aspect for this runtime"
                )
            promised = ", ".join(["N", *("?" if side is None else str(side) for side in tail)])
            raise CardError(
                f"{where}: the card contradicts its graph: {kind} {spec}, the card promises "
                f"{name}: {dtype} ({promised}): export the model again"
            )
