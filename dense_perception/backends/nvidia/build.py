"""An ONNX file becomes a TensorRT engine: 8.6, 10, 11 and TensorRT for RTX through one function.

The graph decides the precision: 10 and later build it strongly typed. 8.6 knows no such networks:
there the builder is allowed the types that the graph's own precision names, and told to keep them,
and the graph is rewritten before (:mod:`~dense_perception.backends.nvidia.tensorrt8_graph`).
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dense_perception.backends.engine_cache import EngineKey
from dense_perception.backends.nvidia.dla import MAX_BATCH as DLA_BATCH
from dense_perception.backends.nvidia.dla import dla_refusal, require_core
from dense_perception.backends.nvidia.module import (
    RTX,
    STANDARD,
    garbage_waits,
    load_runtime,
    major,
)
from dense_perception.backends.nvidia.tensorrt8_graph import (
    can_rewrite,
    dotted,
    file_for_tensorrt8,
    version_of,
)
from dense_perception.backends.nvidia.tensorrt8_rules import NEWEST_OPSET
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import ArtefactError, BackendError, UnavailableError
from dense_perception.core.onnx_file import OnnxFile
from dense_perception.core.storage import atomic_write

log = logging.getLogger(__name__)

_SEVERE = 2  # INTERNAL_ERROR and ERROR; warnings are not a reason
_ASPECTS = (("4:3", 4, 3), ("3:2", 3, 2), ("16:9", 16, 9))
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class TensorRtOptions:
    """How to build.

    :param max_batch: largest batch of one run; the engine is tuned for a batch of 1.
    :param workspace_mb: scratch memory the builder may plan with; 0 is TensorRT's default.
    :param compute_capability: such as "8.6"; only TensorRT for RTX builds for a GPU that is not
        there. Empty: the GPU in this machine.
    :param dla_core: run on this core of a Jetson's DLA, the rest on the GPU; -1 is the GPU alone.
    :param version_compatible: the engine also loads in later versions of the same major version.
    :param hardware_compatible: "" for this GPU, "ampere_plus" for any from compute capability 8.0
        on, "same_compute_capability" for any of the same.
    """

    max_batch: int = 1
    workspace_mb: int = 0
    compute_capability: str = ""
    dla_core: int = -1
    version_compatible: bool = False
    hardware_compatible: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.max_batch <= 4096:
            raise BackendError(f"max_batch is {self.max_batch}, expected 1 to 4096")
        if self.dla_core >= 0 and self.max_batch > DLA_BATCH:
            raise BackendError(
                f"max_batch is {self.max_batch}, expected {DLA_BATCH} for a DLA, which takes no "
                "free sizes: leave it out, larger batches are run in parts"
            )
        if self.workspace_mb < 0:
            raise BackendError(f"workspace_mb is {self.workspace_mb}, expected 0 or more")
        if self.hardware_compatible not in HARDWARE_LEVELS:
            raise BackendError(
                f"hardware_compatible is {self.hardware_compatible!r}, expected one of "
                f"{[level for level in HARDWARE_LEVELS if level]} or nothing"
            )

    @property
    def profile(self) -> str:
        """The shapes, for the engine's key."""
        return f"batch 1..{self.max_batch}"

    @property
    def text(self) -> str:
        """The rest, for the engine's key."""
        parts = [
            f"workspace {self.workspace_mb} MB" if self.workspace_mb else "",
            f"dla {self.dla_core}" if self.dla_core >= 0 else "",
            "version compatible" if self.version_compatible else "",
            self.hardware_compatible,
        ]
        return ", ".join(part for part in parts if part)


def largest_batch(key: EngineKey) -> int:
    """How many images an engine of that key takes at once; of another form, 1."""
    found = re.fullmatch(r"batch 1\.\.(\d+)", key.profile)
    return int(found[1]) if found else 1


HARDWARE_LEVELS = ("", "ampere_plus", "same_compute_capability")


def build_engine(
    source: Path | OnnxFile,
    options: TensorRtOptions | None = None,
    *,
    precision: str = "fp32",
    runtime: str | None = None,
    timing_cache: Path | None = None,
    on_progress: OnProgress | None = None,
) -> bytes:
    """Build and serialise; ``runtime`` is ``tensorrt``, ``tensorrt_rtx`` or the one there is.

    ``timing_cache`` is read if it fits and written back: a second build is faster with it.

    :raises ArtefactError: if the file changes meanwhile.
    :raises UnavailableError: if TensorRT is missing or has no device to build for.
    :raises BackendError: if the file cannot be read, or TensorRT refuses the graph (with its
        reasons) or does not know an option.
    """
    options = options or TensorRtOptions()
    if runtime is None and options.compute_capability:
        runtime = RTX
    name, trt = load_runtime(runtime)
    try:
        file = OnnxFile.of(source)
    except ArtefactError as error:
        raise BackendError(str(error)) from error
    with garbage_waits():
        return _Build(name, trt, options, precision, on_progress).run(file, timing_cache)


class _Build:
    def __init__(
        self,
        name: str,
        trt: Any,
        options: TensorRtOptions,
        precision: str,
        on_progress: OnProgress | None,
    ) -> None:
        self.name = name
        self.trt = trt
        self.title = f"{name} {trt.__version__}"
        self.options = options
        self.precision = precision
        self.on_progress = on_progress
        self.logger, self.complaints = collecting_logger(trt)

    def run(self, file: OnnxFile, timing_cache: Path | None) -> bytes:
        try:
            builder = self.trt.Builder(self.logger)
        except (TypeError, RuntimeError) as error:
            raise UnavailableError(
                f"{self.title} cannot build here: {self._reasons() or error}. It needs an NVIDIA "
                "GPU and its driver; TensorRT for RTX builds without one for --compute-capability"
            ) from error
        network = builder.create_network(self._network_flags())
        parser = self.trt.OnnxParser(network, self.logger)
        source = self._source(file)
        parse = parser.parse if isinstance(source, bytes) else parser.parse_from_file
        if not parse(source):
            errors = "; ".join(str(parser.get_error(i).desc()) for i in range(parser.num_errors))
            raise BackendError(
                f"{self.title} cannot parse {file.path}: {errors or self._reasons()}; "
                "get the file again, or export it with this version of the package"
            )
        config = builder.create_builder_config()
        self._set_flags(config)
        self._set_device(builder, config)
        self._set_profile(builder, network, config, file)
        cache = self._load_timings(config, timing_cache)
        self._watch(config)
        engine = builder.build_serialized_network(network, config)
        if engine is None:
            raise BackendError(
                f"{self.title} cannot build {file.path.name}: "
                f"{self._reasons() or 'no reason given'}"
            )
        file.verify()
        if timing_cache is not None and cache:
            _save_timings(config, timing_cache)
        return bytes(engine)

    def _source(self, file: OnnxFile) -> bytes | str:
        """The graph as this version reads it."""
        version = version_of(str(self.trt.__version__)) if self.name == STANDARD else None
        if version is None:
            return file.source
        if not can_rewrite():
            log.warning(
                "%s gets %s as it is: it reads graphs up to opset %d, so it may refuse it, or "
                "answer wrongly and be refused after the check; install onnx (pip install onnx), "
                "or take a file of `dense-perception export --tensorrt %s`",
                self.title, file.path.name, NEWEST_OPSET, dotted(version),
            )  # fmt: skip
            return file.source
        try:
            return file_for_tensorrt8(file.source, version)
        except ImportError as error:  # the engine's key says that the graph is rewritten
            raise UnavailableError(
                f"{self.title} needs {file.path.name} rewritten, and the package onnx is installed "
                f"but does not load ({error}): `pip uninstall onnx`, then `pip install onnx`; "
                "without it the engine is built from the file as it is"
            ) from error

    def _network_flags(self) -> int:
        flags = self.trt.NetworkDefinitionCreationFlag
        chosen = 0
        if self.name == STANDARD and major(self.trt) < 10:
            return 1 << int(flags.EXPLICIT_BATCH)
        if hasattr(flags, "STRONGLY_TYPED"):
            chosen |= 1 << int(flags.STRONGLY_TYPED)
        return chosen

    def _set_flags(self, config: Any) -> None:
        flags = self.trt.BuilderFlag
        if hasattr(flags, "TF32"):
            config.clear_flag(flags.TF32)  # fp32 means fp32: the graph alone decides
        if self.name == STANDARD and major(self.trt) < 10:
            if self.precision in ("fp16", "int8"):
                config.set_flag(flags.FP16)
            if self.precision == "int8":
                config.set_flag(flags.INT8)
            config.set_flag(flags.OBEY_PRECISION_CONSTRAINTS)
        if self.options.version_compatible:
            config.set_flag(self._known(flags, "VERSION_COMPATIBLE", "version_compatible"))
        if self.options.hardware_compatible:
            levels = getattr(self.trt, "HardwareCompatibilityLevel", None)
            level = self.options.hardware_compatible.upper()
            config.hardware_compatibility_level = self._known(levels, level, "hardware_compatible")
        if self.options.workspace_mb:
            pool = self.trt.MemoryPoolType.WORKSPACE
            config.set_memory_pool_limit(pool, self.options.workspace_mb << 20)

    def _set_device(self, builder: Any, config: Any) -> None:
        capability = self.options.compute_capability
        if capability:
            kinds = getattr(self.trt, "ComputeCapability", None)
            name = f"SM{capability.replace('.', '')}"
            config.num_compute_capabilities = 1
            config.set_compute_capability(self._known(kinds, name, "compute_capability"), 0)
        if self.options.dla_core >= 0:
            if refusal := dla_refusal(self.name, self.precision):
                raise BackendError(refusal)
            require_core(builder, self.options.dla_core)
            config.default_device_type = self.trt.DeviceType.DLA
            config.DLA_core = self.options.dla_core
            config.set_flag(self.trt.BuilderFlag.GPU_FALLBACK)

    def _set_profile(self, builder: Any, network: Any, config: Any, file: OnnxFile) -> None:
        profile = builder.create_optimization_profile()
        free = False
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            first, *sides = tuple(tensor.shape)
            if any(side < 0 for side in sides):
                raise BackendError(one_size_only(self.title, ModelCard.from_onnx(file)))
            if first < 0:
                free = True
                shapes = [(batch, *sides) for batch in (1, 1, self.options.max_batch)]
                profile.set_shape(tensor.name, *shapes)
        if free:
            config.add_optimization_profile(profile)

    def _load_timings(self, config: Any, path: Path | None) -> bool:
        """Whether this version keeps timings at all."""
        if path is None or self.name == RTX or not hasattr(config, "create_timing_cache"):
            return False
        known = b""
        with contextlib.suppress(OSError):
            known = path.read_bytes()
        for content in (known, b""):  # timings of another version are refused: start anew
            cache = config.create_timing_cache(content)
            if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
                return True
        return False

    def _watch(self, config: Any) -> None:
        base = getattr(self.trt, "IProgressMonitor", None)
        if self.on_progress is None or base is None or not hasattr(config, "progress_monitor"):
            return
        config.progress_monitor = self._monitor = _monitor(base, self.on_progress)

    def _known(self, kinds: Any, name: str, option: str) -> Any:
        if not hasattr(kinds, name):
            offered = list(getattr(kinds, "__members__", {}))
            raise BackendError(
                f"{self.title} does not know {option} {name}, it offers {offered or 'none'}"
                ": leave the option out, or use another version"
                + (
                    "; only TensorRT for RTX builds for a GPU that is not there"
                    if option == "compute_capability" and self.name == STANDARD
                    else ""
                )
            )
        return getattr(kinds, name)

    def _reasons(self) -> str:
        return "; ".join(dict.fromkeys(self.complaints))[:600]


def one_size_only(title: str, card: ModelCard) -> str:
    """What to do about a graph of free sizes, with sizes by the card's rule."""
    spec = card.input
    known = ""
    if spec.height == spec.width:
        steps = spec.height / spec.multiple
        wide = {a: round(steps * w / h) * spec.multiple for a, w, h in _ASPECTS}
        sizes = ", ".join(f"{side}x{spec.height} for {a}" for a, side in wide.items())
        known = f" ({sizes})"
    return (
        f"{title} builds an engine for one size, {card.name} takes every size: run "
        f"`dense-perception export {card.name} --size WxH` with the size for your camera's "
        f"aspect{known} and load {card.name}_WxH"
    )


def collecting_logger(trt: Any) -> tuple[Any, list[str]]:
    """A logger that keeps errors in a list, so that they end up in ours, and drops the rest."""
    complaints: list[str] = []

    class Collector(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if int(severity) < _SEVERE:
                complaints.append(" ".join(message.split()))

    return Collector(), complaints


def _monitor(base: Any, on_progress: OnProgress) -> Any:
    class Monitor(base):
        def __init__(self) -> None:
            base.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            on_progress(phase_name, step + 1, self.steps.get(phase_name, 0))
            return True

        def phase_finish(self, phase_name: str) -> None:
            steps = self.steps.pop(phase_name, 0)
            on_progress(phase_name, steps, steps)

    return Monitor()


def _save_timings(config: Any, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with atomic_write(path) as stream:
            stream.write(bytes(config.get_timing_cache().serialize()))
    except OSError as error:
        log.warning(
            "TensorRT's timings were not kept in %s (%s): later builds take as long as this one; "
            "free space there or make it writable",
            path, error.strerror or error,
        )  # fmt: skip
