"""OpenVINO: usually the faster runtime on x86 CPUs and Intel GPUs."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from types import ModuleType
from typing import Any, cast

import numpy as np

from dense_perception.backends.base import Backend, TensorSpec, batch_size, one_line, refused
from dense_perception.backends.engine_cache import EngineKey, obtain_engine
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import (
    ArtefactError,
    BackendError,
    EngineRefusedError,
    UnavailableError,
)
from dense_perception.core.machine import cpu_with_features
from dense_perception.core.onnx_file import OnnxFile

PACKAGE = "openvino"
# Where it is installed, each import of OpenVINO forks a process that tells Google Analytics.
_TELEMETRY = "openvino_telemetry"
# A static size is faster than a free one; the last four sizes stay compiled.
_COMPILED_SIZES = 4
_ONE_CORE = threading.Lock()
Shapes = tuple[tuple[int, ...], ...]
"""Of every input, in the graph's order."""


class OpenVinoBackend(Backend):
    """Runs an ONNX file with OpenVINO.

    ``device`` is passed through (``cpu``, ``gpu``, ``npu``, ``auto``); ``threads`` 0 means all
    cores. A graph with a free batch or free sides is compiled once per size in use; sides other
    than the card's go through ``size_check`` before their first answer.

    :raises BackendError: if openvino is not installed, the device is not available or the graph is
        refused.
    """

    name = "openvino"

    def __init__(self, file: OnnxFile, *, device: str = "cpu", threads: int = 0) -> None:
        ov = _import_openvino()
        self._path, self._sha256 = file.path, file.sha256
        self._device = device.upper()
        self._threads = threads
        version = ov.__version__.split("-")[0]
        self._version = version
        self._full_version = str(ov.__version__)
        self._core: Any = openvino_core()
        self._requests: OrderedDict[Shapes, Any] = OrderedDict()
        self._refusals: dict[Shapes, EngineRefusedError] = {}
        self._check_device()
        model = self._parse(file)
        self.inputs = tuple(_spec(port) for port in model.inputs)
        self.outputs = tuple(_spec(port) for port in model.outputs)
        self._free = any(None in spec.shape for spec in self.inputs)
        self._first = self._usual_shapes(file)
        self._requests[self._first] = self._compile(file, model, self._first)
        count = f"{threads} threads" if threads else "all cores"
        self.description = f"openvino {version}, {device.lower()}, {count}"

    def _run(self, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
        if self._core is None:
            raise self.closed()
        if self._free:
            batch_size({s.name: feeds[s.name] for s in self.inputs if s.shape and not s.shape[0]})
        shapes = tuple(feeds[spec.name].shape for spec in self.inputs)
        request = self._requests.get(shapes)
        if request is None:
            request = self._compile_again(shapes)
            self._requests[shapes] = request
            if len(self._requests) > _COMPILED_SIZES:
                self._requests.popitem(last=False)
        self._requests.move_to_end(shapes)
        answer = self._infer(request, feeds)
        return {name: answer[name] for name in names}

    def _infer(self, request: Any, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            results = request.infer(dict(feeds), share_inputs=True, share_outputs=True)
            # A compiled model computes every output; with shared memory none is copied here.
            return {spec.name: results[index] for index, spec in enumerate(self.outputs)}
        except Exception as error:  # openvino raises bare RuntimeError and its own kinds
            raise BackendError(f"openvino failed on this input: {one_line(error)}") from error

    def close(self) -> None:
        self._requests.clear()
        self._core = None

    def _check_device(self) -> None:
        available = list(self._core.available_devices)
        family = self._device.split(":")[0].split(".")[0]
        if family in ("AUTO", "MULTI", "HETERO", "BATCH"):
            return
        if not any(name.split(".")[0] == family for name in available):
            nvidia = family in ("CUDA", "DLA")
            cure = "another backend for NVIDIA devices" if nvidia else "install its driver"
            raise UnavailableError(
                f"device {self._device.lower()!r} is not available in this openvino, which offers "
                f"{[name.lower() for name in available]}: choose one of these, or {cure}"
            )

    def _parse(self, file: OnnxFile) -> Any:
        try:
            return self._core.read_model(file.source)
        except Exception as error:
            raise refused(self.name, self._version, file, error) from error

    def _usual_shapes(self, file: OnnxFile) -> Shapes:
        """One frame, of the card's size where the sides are free."""
        usual = [1, 1, 1, 1]
        if any(None in spec.shape[1:3] for spec in self.inputs):
            spec = ModelCard.from_onnx(file).input
            usual = [1, spec.height, spec.width, 3]
        return tuple(
            tuple(one if side is None else side for side, one in zip(s.shape, usual, strict=False))
            for s in self.inputs
        )

    def _compile_again(self, shapes: Shapes) -> Any:
        """For another size, from the file: kept, it would be a second model in memory.

        Sides that were not checked at load are checked here, before the first answer.

        :raises BackendError: if the file is gone or another by now, or the check fails.
        """
        if shapes in self._refusals:
            raise self._refusals[shapes]
        try:
            file = OnnxFile.read(self._path)
            if file.sha256 != self._sha256:
                raise BackendError(
                    f"{self._path} has changed since it was loaded: load the model again"
                )
            request = self._compile(file, self._parse(file), shapes)
            file.verify()
            batch, height, width = shapes[0][:3]
            if self.size_check is not None and (height, width) != self._first[0][1:3]:
                identity = f"{self.name}_{self._key(shapes).digest}"
                infer = partial(self._infer, request)
                self.size_check(file, identity, (batch, height, width), infer)
        except EngineRefusedError as error:
            self._refusals[shapes] = error
            raise
        except ArtefactError as error:
            raise BackendError(str(error)) from error
        return request

    def _compile(self, file: OnnxFile, model: Any, shapes: Shapes) -> Any:
        config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "CACHE_DIR": "",  # ours is checked byte by byte
            # The artefact alone decides the precision: no silent bf16.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        if self._device == "CPU":
            config |= {"NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
            if self._threads:
                config["INFERENCE_NUM_THREADS"] = self._threads
        try:
            if self._free:
                names = [spec.name for spec in self.inputs]
                model.reshape({n: list(shape) for n, shape in zip(names, shapes, strict=True)})
            return self._compile_cached(file, model, config, shapes).create_infer_request()
        except Exception as error:
            raise refused(self.name, self._version, file, error) from error

    def _compile_cached(
        self, file: OnnxFile, model: Any, config: dict[str, Any], shapes: Shapes
    ) -> Any:
        """Compile, or load what was compiled before; a disk that takes no cache does no harm."""
        compiled: Any = None

        def build() -> bytes:
            nonlocal compiled
            compiled = self._core.compile_model(model, self._device, config)
            exported = compiled.export_model()
            file.verify()  # nothing else is stored under this hash
            return exported if isinstance(exported, bytes) else exported.getvalue()

        try:
            engine = obtain_engine(self._key(shapes), build)
            if compiled is None:
                # 2024.4 to 2025.1, at least, refuse a cache's folder where they need none.
                imports = {name: value for name, value in config.items() if name != "CACHE_DIR"}
                compiled = self._core.import_model(engine.payload, self._device, imports)
        except Exception:  # this device cannot export, or not import what it exported
            return compiled or self._core.compile_model(model, self._device, config)
        if shapes == self._first:
            self.identity = engine.identity
            self.unstored = engine.problem
        return compiled

    def _key(self, shapes: Shapes) -> EngineKey:
        return EngineKey(
            graph=self._sha256,
            runtime=PACKAGE,
            version=self._full_version,
            device=f"{self._device}, {cpu_with_features()}",
            precision="of the graph",
            profile=self._profile(shapes),
            options=f"{self._threads} threads",
        )

    def _profile(self, shapes: Shapes) -> str:
        """What is fixed, for the engine's key."""
        batch = shapes[0][0] if self._free else 1
        sided = any(None in spec.shape[1:] for spec in self.inputs)
        return f"batch {batch}" + (f", shapes {shapes}" if sided else "")


def openvino_core() -> Any:
    """The ``openvino.Core`` of this process, which lives as long: one that ends takes its signals.

    Each core's CPU plugin maps a stack for signals, has the thread that compiles first use it,
    unmaps it at its end and puts back what it found there, be it unmapped by now. After a model
    that was loaded before another one was closed, the next signal that Python handles, as Ctrl-C,
    then ended the process with SIGSEGV and without a word (OpenVINO 2026.4 on Linux).

    :raises UnavailableError: if openvino is not installed.
    """
    with _ONE_CORE:  # nodes of one process load their models in threads of their own
        return _core()


@cache
def _core() -> Any:
    return _import_openvino().Core()


def _import_openvino() -> Any:
    try:
        with _without(_TELEMETRY):
            import openvino
    except ImportError as error:
        raise UnavailableError(
            f"the backend 'openvino' is not usable here ({error}): pip install openvino, or "
            "dense_perception[openvino]"
        ) from error
    return openvino


@contextlib.contextmanager
def _without(module: str) -> Iterator[None]:
    """Have an import of ``module`` fail meanwhile, as if it were not installed."""
    modules = cast("dict[str, ModuleType | None]", sys.modules)
    if module in modules:
        yield
        return
    modules[module] = None
    try:
        yield
    finally:
        del modules[module]


def _spec(port: Any) -> TensorSpec:
    shape = tuple(
        int(side.get_length()) if side.is_static else None for side in port.get_partial_shape()
    )
    return TensorSpec(port.get_any_name(), np.dtype(port.get_element_type().to_dtype()), shape)
