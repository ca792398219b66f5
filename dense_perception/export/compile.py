"""Engines in the cache before a node needs them: compiled, then checked as a node checks them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypedDict

from tqdm import tqdm

from dense_perception.backends.device import choose_device, parse_device
from dense_perception.backends.engine_cache import PROGRESS, Engine, forget_failure
from dense_perception.backends.nvidia.build import OnProgress
from dense_perception.backends.nvidia.tensorrt8_graph import GraphRefused
from dense_perception.backends.opening import backend_class
from dense_perception.backends.select import NOT_COMPARED, select_backend
from dense_perception.core.errors import BackendError, DensePerceptionError, UnavailableError
from dense_perception.core.onnx_file import OnnxFile
from dense_perception.core.registry import Model, find_model


@dataclass(frozen=True)
class CompileOptions:
    """``precision`` is one, or ``all``; ``device`` is the backend's usual one where it is empty.

    From ``max_batch`` to ``hardware_compatible`` the options are TensorRT's: see
    :class:`~dense_perception.backends.nvidia.build.TensorRtOptions`; ONNX Runtime's TensorRT
    provider takes ``max_batch``, too. With ``compute_capabilities`` engines for other GPUs are
    built, which cannot be checked here.
    ``progress_in_lines`` prints a line each second to stderr instead of a bar.
    """

    model: str
    backend: str
    precision: str = "all"
    device: str = ""
    trust_engine: bool = False
    compute_capabilities: Sequence[str] = ()
    max_batch: int = 1
    workspace_mb: int = 0
    dla_core: int = -1
    version_compatible: bool = False
    hardware_compatible: str = ""
    progress_in_lines: bool = False


class CompiledRow(TypedDict, total=False):
    """One engine; ONNX Runtime and OpenVINO name no file.

    ``problem`` says that it was not built, refused or not stored, ``note`` what makes it slower
    than it could be or what was skipped as wished; both are empty if all is well.
    """

    precision: str
    runtime: str
    device: str
    MB: float
    seconds: float
    built: bool
    reason: str
    engine: str
    check: str
    problem: str
    note: str


def compile_model(options: CompileOptions) -> list[CompiledRow]:
    """Compile each precision of a model, and load it as a node does unless it is for elsewhere.

    Where several engines are wanted, one that fails is a row with its ``problem``.

    :raises DensePerceptionError: if there is no such model or file, the backend is missing, or the
        only engine that is wanted fails.
    """
    model = find_model(options.model)
    kinds = model.precisions if options.precision == "all" else (options.precision,)
    if options.backend == "torch_tensorrt":
        return _torch_tensorrt(model, kinds, options)
    wanted = [(kind, place) for kind in kinds for place in options.compute_capabilities or [""]]
    rows: list[CompiledRow] = []
    for kind, capability in wanted:
        with _named(rows, kind, options, only=len(wanted) == 1, place=capability):
            file, _ = model.artefact(kind)
            if options.backend != "tensorrt":
                _forget_failure(options, file)
                rows.append(_checked(options, kind))
            elif row := _tensorrt(file, kind, capability, options):
                # What is not stored would be built a second time to be checked.
                is_final = bool(capability or row.get("problem"))
                rows.append(row if is_final else _checked(options, kind, row))
    if not rows:
        raise _nothing_built(options)
    return rows


def _nothing_built(options: CompileOptions) -> BackendError:
    return BackendError(f"no precision of {options.model} can be built; the lines above say why")


@contextmanager
def _named(
    rows: list[CompiledRow], kind: str, options: CompileOptions, *, only: bool, place: str = ""
) -> Iterator[None]:
    """A failure inside becomes a row, so that the others are built; of an ``only`` one it stays."""
    start = time.perf_counter()
    try:
        yield
    except DensePerceptionError as error:
        if only or (isinstance(error, UnavailableError) and not rows):
            raise  # without its runtime or device the others fail, too
        rows.append(
            {
                "precision": kind,
                "runtime": options.backend,
                "device": f"compute capability {place}" if place else _device(options),
                "seconds": round(time.perf_counter() - start, 1),
                "check": "not built",
                "problem": str(error),
            }
        )


def _tensorrt(
    file: OnnxFile, kind: str, capability: str, options: CompileOptions
) -> CompiledRow | None:
    """One engine, for this machine's GPU or for that compute capability; ``None`` if passed over.

    :raises BackendError: if it cannot be built, or what was asked for by its name cannot run there.
    """
    from dense_perception.backends.device import find_gpu
    from dense_perception.backends.nvidia.build import TensorRtOptions
    from dense_perception.backends.nvidia.engine import compile_engine, engine_key, refusal_of
    from dense_perception.backends.nvidia.module import RTX, load_runtime

    index, dla_core = parse_device(_device(options), "tensorrt", dla=True)
    runtime, trt = load_runtime(RTX if capability else None)
    gpu = None if capability else find_gpu(index)
    wanted = TensorRtOptions(
        max_batch=options.max_batch,
        workspace_mb=options.workspace_mb,
        compute_capability=capability,
        dla_core=dla_core,
        version_compatible=options.version_compatible,
        hardware_compatible=options.hardware_compatible,
    )
    key = engine_key(file, runtime, trt, wanted, gpu)
    if refusal := refusal_of(key, wanted, trt, gpu):
        if options.precision != "all":
            raise BackendError(refusal)
        print(f"passed over: {refusal}", file=sys.stderr)
        return None
    start = time.perf_counter()
    try:
        with build_progress(in_lines=options.progress_in_lines) as on_progress:
            engine = compile_engine(
                file, runtime, trt, wanted, gpu, on_progress, device=_device(options), again=True
            )
    except GraphRefused as error:
        if options.precision != "all":
            raise
        print(f"passed over: {kind}: {error}", file=sys.stderr)
        return None
    check = "not stored" if engine.problem else "at its first load"
    return _row(kind, engine, time.perf_counter() - start, check)


@contextmanager
def build_progress(*, in_lines: bool) -> Iterator[OnProgress]:
    """What a builder tells its steps to: a bar, or :data:`PROGRESS` and the step in lines."""
    if in_lines:
        said_s = 0.0

        def say(phase: str, done: int, total: int) -> None:
            nonlocal said_s
            if time.monotonic() - said_s >= 1.0:
                said_s = time.monotonic()
                with suppress(OSError):  # a full disk takes no log, and is no reason to stop
                    print(f"{PROGRESS}{phase}, step {done} of {total}", file=sys.stderr, flush=True)

        yield say
        return
    with tqdm(unit="step", disable=None, file=sys.stderr) as bar:

        def move(phase: str, done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.set_description(phase)

        yield move


def _row(kind: str, engine: Engine, seconds: float, check: str) -> CompiledRow:
    """An engine in the cache, as a line of the table."""
    return {
        "precision": kind,
        "runtime": f"{engine.key.runtime} {engine.key.version}",
        "device": engine.key.device,
        "MB": round(len(engine.payload) / 1e6, 1),
        "seconds": round(seconds, 1),
        "built": engine.built,
        "reason": engine.reason,
        "engine": "" if engine.problem else str(engine.key.path),
        "check": check,
        "problem": engine.problem,
    }


def _torch_tensorrt(
    model: Model, kinds: tuple[str, ...], options: CompileOptions
) -> list[CompiledRow]:
    from dense_perception.backends.nvidia.torch import load_modules

    load_modules()  # says what is missing before PyTorch does

    from dense_perception.export.torch_program import PRECISIONS, compile_program

    if options.precision == "all":
        for kind in (kind for kind in kinds if kind not in PRECISIONS):
            taken = " and ".join(PRECISIONS)
            print(f"passed over: {kind}: torch_tensorrt takes {taken}", file=sys.stderr)
        kinds = tuple(kind for kind in kinds if kind in PRECISIONS)
        if not kinds:
            raise _nothing_built(options)
    rows: list[CompiledRow] = []
    for kind in tqdm(kinds, unit="program", disable=None, file=sys.stderr):
        with _named(rows, kind, options, only=len(kinds) == 1):
            start = time.perf_counter()
            engine = compile_program(model, kind, options.device or "gpu")
            row = _row(kind, engine, time.perf_counter() - start, "not stored")
            rows.append(row if engine.problem else _checked(options, kind, row))
    return rows


def _device(options: CompileOptions) -> str:
    """Where it is built for and checked.

    :raises BackendError: if two places are named, or none there can be.
    """
    named = options.device or ("cpu" if options.backend == "openvino" else "gpu")
    if options.dla_core < -1:
        raise BackendError(f"dla_core is {options.dla_core}, expected 0 or more")
    if options.dla_core < 0:
        return named
    if options.device and parse_device(named, options.backend, dla=True)[1] != options.dla_core:
        raise BackendError(
            f"got --device {named} and --dla-core {options.dla_core}, expected one place: leave "
            "one of them out"
        )
    return f"dla:{options.dla_core}"


def _forget_failure(options: CompileOptions, file: OnnxFile) -> None:
    """Who compiles wants what failed before to be tried again."""
    device, _ = choose_device(_device(options), options.backend)
    key = backend_class(options.backend).engine_key(file, device, options.max_batch)
    if key is not None:
        forget_failure(key)


def _checked(options: CompileOptions, kind: str, built: CompiledRow | None = None) -> CompiledRow:
    """Load it as a node does, which compiles, stores and checks it; ``built`` is its row so far."""
    device = _device(options)
    start = time.perf_counter()
    backend, _, selection = select_backend(
        find_model(options.model),
        backend=options.backend,
        precision=kind,
        device=device,
        trust_engine=options.trust_engine,
        batch=options.max_batch,
    )
    try:
        taken = selection.backend == options.backend
        row: CompiledRow = built or {
            "precision": kind,
            "runtime": backend.description if taken else options.backend,
            "device": device,
            "seconds": round(time.perf_counter() - start, 1),
        }
        wrong = [text for text in selection.warnings if text != NOT_COMPARED]
        noted = [text for text in selection.warnings if text == NOT_COMPARED]
        if taken:
            wrong.append(backend.unstored)
            noted.append(backend.problem)
        row["check"] = "agrees with ONNX Runtime" if taken else "refused"
        row["problem"] = "; ".join(dict.fromkeys(filter(None, [row.get("problem", ""), *wrong])))
        row["note"] = "; ".join(filter(None, noted))
        if options.trust_engine:
            row["check"] = "skipped"
        return row
    finally:
        backend.close()
