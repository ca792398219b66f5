"""Which engines fit this graph, this TensorRT and this GPU, and how one is built."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from dense_perception.backends.device import Gpu
from dense_perception.backends.engine_cache import (
    Engine,
    EngineKey,
    EngineMissingError,
    compile_command,
    engines_dir,
    find_engine,
    obtain_engine_once,
    stored_keys,
)
from dense_perception.backends.nvidia.build import (
    OnProgress,
    TensorRtOptions,
    build_engine,
    largest_batch,
    one_size_only,
)
from dense_perception.backends.nvidia.dla import dla_refusal
from dense_perception.backends.nvidia.module import STANDARD, TensorRt, major
from dense_perception.backends.nvidia.tensorrt8_graph import FORM, can_rewrite, version_of
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import BackendError
from dense_perception.core.onnx_file import OnnxFile


def engine_key(
    file: OnnxFile, runtime: str, trt: TensorRt, options: TensorRtOptions, gpu: Gpu | None
) -> EngineKey:
    """The key of what :func:`build_engine` makes; ``gpu`` is the one in this machine.

    An engine built for a compute capability, or compatible with other hardware, names no GPU.

    :raises BackendError: if there is neither a GPU nor a compute capability.
    """
    capability = options.compute_capability or (gpu.capability if gpu else "")
    if options.compute_capability:
        where = _any_of(capability)
    elif gpu is None:
        raise BackendError("there is no GPU to build for: give a compute capability")
    elif options.hardware_compatible == "ampere_plus":
        where = _AMPERE_PLUS
    elif options.hardware_compatible:
        where = _any_of(capability)
    else:
        where = str(gpu)
    version = f"{major(trt)}.x" if options.version_compatible else str(trt.__version__)
    return EngineKey(
        graph=file.sha256,
        runtime=runtime,
        version=version,
        device=where,
        precision=ModelCard.from_onnx(file).precision,
        profile=options.profile,
        options=_options_text(options, runtime, trt),
    )


def _options_text(options: TensorRtOptions, runtime: str, trt: TensorRt) -> str:
    return ", ".join(filter(None, (options.text, FORM if _rewrites(runtime, trt) else "")))


def _rewrites(runtime: str, trt: TensorRt) -> bool:
    """Whether graphs are rewritten before that TensorRT gets them."""
    return runtime == STANDARD and version_of(str(trt.__version__)) is not None and can_rewrite()


def fits(key: EngineKey, trt: TensorRt, gpu: Gpu, dla_core: int = -1) -> bool:
    """Whether an engine with that key may run in this TensorRT on ``gpu``.

    One of the graph as it was does not where graphs are rewritten; where they cannot be, for want
    of the package ``onnx``, one of either form does.
    """
    places = [str(gpu), _any_of(gpu.capability)]
    if float(gpu.capability) >= 8.0:
        places.append(_AMPERE_PLUS)
    parts = key.options.split(", ")
    dla = next((part for part in parts if part.startswith("dla ")), "")
    return (
        key.device in places
        and key.version in (str(trt.__version__), f"{major(trt)}.x")
        and dla == (f"dla {dla_core}" if dla_core >= 0 else "")
        and (FORM in parts or not _rewrites(key.runtime, trt))
    )


def stored_engines(
    file: OnnxFile, runtime: str, trt: TensorRt, gpu: Gpu, options: TensorRtOptions
) -> Iterator[Engine | str]:
    """The whole engines of the cache that fit, and why others are none.

    First those that take ``options.max_batch`` images, then those that take fewer, newest first.
    """
    keys = _fitting(file, runtime, trt, gpu, options)
    # Where nothing fits, how the most similar one differs.
    for key in keys or [engine_key(file, runtime, trt, options, gpu)]:
        yield find_engine(key)


def missing_engine(
    file: OnnxFile,
    runtime: str,
    trt: TensorRt,
    gpu: Gpu,
    options: TensorRtOptions,
    reason: str,
) -> EngineMissingError:
    """What to raise where no stored engine can be used and none may be built.

    :raises BackendError: if none can be built at all.
    """
    key = engine_key(file, runtime, trt, options, gpu)
    _require_buildable(file, key, trt, options, gpu)
    return EngineMissingError(key, reason, options.max_batch)


def _require_buildable(
    file: OnnxFile, key: EngineKey, trt: TensorRt, options: TensorRtOptions, gpu: Gpu | None
) -> None:
    card = ModelCard.from_onnx(file)
    if card.input.free:
        raise BackendError(one_size_only(f"{key.runtime} {trt.__version__}", card))
    if refusal := refusal_of(key, options, trt, gpu):
        raise BackendError(refusal)


def _fitting(
    file: OnnxFile, runtime: str, trt: TensorRt, gpu: Gpu, options: TensorRtOptions
) -> list[EngineKey]:
    """What the cache has according to its headers, in the order of :func:`stored_engines`."""
    found: list[tuple[bool, float, EngineKey]] = []
    for key in stored_keys(file.sha256, runtime):
        with contextlib.suppress(OSError):
            if fits(key, trt, gpu, options.dla_core):
                enough = largest_batch(key) >= options.max_batch
                found.append((enough, key.path.stat().st_mtime, key))
    return [key for *_, key in sorted(found, key=lambda each: each[:2], reverse=True)]


def compile_engine(
    file: OnnxFile,
    runtime: str,
    trt: TensorRt,
    options: TensorRtOptions,
    gpu: Gpu | None,
    on_progress: OnProgress | None = None,
    *,
    device: str = "gpu",
    again: bool = False,
) -> Engine:
    """The engine with exactly these options, from the cache or built now.

    What could not be built once is not tried another time, unless ``again`` asks for it. ``device``
    is what a user calls the GPU.

    :raises BackendError: if it cannot be built.
    """
    key = engine_key(file, runtime, trt, options, gpu)
    _require_buildable(file, key, trt, options, gpu)
    where = f"dla:{options.dla_core}" if options.dla_core >= 0 else device
    retry = compile_command(str(file.path), STANDARD, key.precision, options.max_batch, where)
    # Not one for all: 8.6, at least, refuses for int8 what a build in fp16 wrote.
    timings = engines_dir() / f"timings_{runtime}_{trt.__version__}_{key.precision}.cache"
    return obtain_engine_once(
        key,
        lambda: build_engine(
            file,
            options,
            precision=key.precision,
            runtime=runtime,
            timing_cache=timings,
            on_progress=on_progress,
        ),
        retry=retry,
        again=again,
    )


def refusal_of(key: EngineKey, options: TensorRtOptions, trt: TensorRt, gpu: Gpu | None) -> str:
    """Why a file of that precision cannot run there at all; nothing where it can."""
    on_dla = dla_refusal(key.runtime, key.precision) if options.dla_core >= 0 else ""
    return on_dla or fp8_refusal(key, options, trt, gpu)


def fp8_refusal(key: EngineKey, options: TensorRtOptions, trt: TensorRt, gpu: Gpu | None) -> str:
    """Why a file in fp8 cannot become the engine of that key; nothing where it can."""
    if key.precision != "fp8":
        return ""
    if key.runtime == STANDARD and major(trt) < 10:
        return f"fp8 needs TensorRT 10 or above, this is {trt.__version__}: {_NO_FP8}"
    capability = options.compute_capability or (gpu.capability if gpu else "")
    if key.device == _AMPERE_PLUS or float(capability) < FP8_CAPABILITY:
        return (
            f"fp8 needs compute capability {FP8_CAPABILITY} or above (Ada, Hopper, Blackwell), the "
            f"engine would be for {key.device}: {_NO_FP8}"
        )
    return ""


FP8_CAPABILITY = 8.9
_NO_FP8 = "take the int8 or fp16 file (--precision)"
_AMPERE_PLUS = "any GPU from compute capability 8.0 on"


def _any_of(capability: str) -> str:
    return f"any GPU of compute capability {capability}"
