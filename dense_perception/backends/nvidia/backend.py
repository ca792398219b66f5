"""TensorRT and TensorRT for RTX: engines on an NVIDIA GPU, without PyTorch."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dense_perception.backends.base import Backend, TensorSpec, batch_size, run_in_parts
from dense_perception.backends.device import Gpu, find_gpu, parse_device
from dense_perception.backends.engine_cache import (
    Engine,
    EngineKey,
    compile_command,
    not_loaded,
)
from dense_perception.backends.nvidia.build import TensorRtOptions, collecting_logger
from dense_perception.backends.nvidia.dla import MAX_BATCH as DLA_BATCH
from dense_perception.backends.nvidia.dla import dla_refusal, require_core
from dense_perception.backends.nvidia.engine import (
    compile_engine,
    engine_key,
    missing_engine,
    stored_engines,
)
from dense_perception.backends.nvidia.memory import Cuda
from dense_perception.backends.nvidia.module import RTX, garbage_waits, load_runtime
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import BackendError
from dense_perception.core.onnx_file import OnnxFile

_log = logging.getLogger(__name__)


class TensorRtBackend(Backend):
    """Runs the engine of an ONNX file, from the cache or, where ``build`` allows it, built now.

    ``threads`` is ignored. An engine is built for 1 to ``batch`` images; a larger batch than the
    engine's is run in parts.

    :raises UnavailableError: if TensorRT, the driver or the GPU is missing.
    :raises EngineMissingError: if no stored engine loads and ``build`` is not set.
    :raises BackendError: if the graph is refused.
    """

    name = "tensorrt"
    has_engines = True

    @garbage_waits()
    def __init__(
        self,
        file: OnnxFile,
        *,
        device: str = "gpu",
        threads: int = 0,
        batch: int = 1,
        build: bool = True,
    ) -> None:
        index, dla_core = parse_device(device, self.name, dla=True)
        runtime, trt = load_runtime()
        gpu = find_gpu(index)
        self._trt = trt
        # Each batch size in use, at most the engine's, has its own buffers and graph.
        self._plans: dict[int, _Plan] = {}
        self._cuda: Cuda | None = None
        self._runtime: Any = None
        self._engine: Any = None
        if dla_core >= 0:
            _require_dla(runtime, trt, dla_core, ModelCard.from_onnx(file).precision)
        options = _options(dla_core, batch)
        try:
            engine = self._open(file, runtime, device, gpu, options, build=build)
            names = self._tensor_names()
            self.inputs = tuple(self._spec(name) for name in names if self._is_input(name))
            self.outputs = tuple(self._spec(name) for name in names if not self._is_input(name))
            self._largest = self._largest_batch()
        except BaseException:
            self.close()
            raise
        self.identity, self.unstored = engine.identity, engine.problem
        if dla_core >= 0 and self._largest < batch:
            self.problem = "runs one image at a time, as a DLA takes no free sizes"
        elif self.inputs[0].shape[0] is None and self._largest < batch:
            self.better_engine = engine_key(file, runtime, trt, options, gpu)
            self.problem = (
                f"runs {self._largest} of {batch} images at once, for which its engine was built"
            )
        where = f"dla {dla_core}" if dla_core >= 0 else gpu.name
        self.description = f"tensorrt ({runtime} {trt.__version__}), {where}, {engine.reason}"

    def _open(
        self,
        file: OnnxFile,
        runtime: str,
        device: str,
        gpu: Gpu,
        options: TensorRtOptions,
        *,
        build: bool,
    ) -> Engine:
        """Load the engine that is to run, and say which ones were refused."""
        index, dla_core = parse_device(device, self.name, dla=True)
        reasons: list[str] = []
        deleted: list[str] = []
        for found in stored_engines(file, runtime, self._trt, gpu, options):
            refusal = found if isinstance(found, str) else self._load(found, index, gpu, dla_core)
            if isinstance(found, Engine) and not refusal:
                for reason in reasons:
                    if reason not in deleted:
                        _log.warning("%s: another stored engine is used", reason)
                return found
            reasons.append(refusal)
            if isinstance(found, Engine) and build:
                deleted.append(refusal)
                _log.warning("%s: it is deleted", refusal)
                with contextlib.suppress(OSError):
                    found.key.path.unlink(missing_ok=True)  # whole, yet refused: build it again
        if not build:
            reason = "; ".join(dict.fromkeys(reasons))
            raise missing_engine(file, runtime, self._trt, gpu, options, reason)
        engine = compile_engine(file, runtime, self._trt, options, gpu, device=device)
        if refusal := self._load(engine, index, gpu, dla_core):
            kind, batch = engine.key.precision, options.max_batch
            retry = compile_command(str(file.path), self.name, kind, batch, device)
            raise not_loaded(engine.key, refusal, retry)
        if deleted and engine.built:  # the cache does not know what was there before
            return replace(engine, reason="the stored one did not load")
        return engine

    def _load(self, engine: Engine, index: int, gpu: Gpu, dla_core: int) -> str:
        """Make it the one that runs; returns why it does not load."""
        if self._cuda is None:
            self._cuda = Cuda(index, zero_copy=gpu.shares_memory)
        logger, complaints = collecting_logger(self._trt)
        self._runtime = self._trt.Runtime(logger)
        if hasattr(self._runtime, "engine_host_code_allowed"):
            self._runtime.engine_host_code_allowed = True  # version-compatible engines need it
        if dla_core >= 0:
            self._runtime.DLA_core = dla_core
        self._engine = self._runtime.deserialize_cuda_engine(engine.payload)
        if self._engine is not None:
            return ""
        said = "; ".join(dict.fromkeys(complaints))[:400] or "it gives no reason"
        key = engine.key
        return f"{key.runtime} {self._trt.__version__} does not load {key.path.name}: {said}"

    @classmethod
    def engine_key(cls, file: OnnxFile, device: str, batch: int = 1) -> EngineKey | None:
        """See :meth:`Backend.engine_key`."""
        index, dla_core = parse_device(device, cls.name, dla=True)
        runtime, trt = load_runtime()
        options = _options(dla_core, batch)
        return engine_key(file, runtime, trt, options, find_gpu(index))

    def input_buffer(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """See :meth:`Backend.input_buffer`; of a batch that is run in parts it is copied."""
        if self._cuda is None:
            raise self.closed()
        if 0 < shape[0] <= self._largest:
            self._cuda.use()
            array = self._plan(shape[0]).inputs.get(name)
            if array is not None and array.shape == shape:
                return array
        return super().input_buffer(name, shape)

    def _run(self, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
        if self._cuda is None:
            raise self.closed()
        self._cuda.use()
        return run_in_parts(self._run_at_once, feeds, names, self._largest)

    def _run_at_once(
        self, feeds: Mapping[str, np.ndarray], names: Sequence[str]
    ) -> dict[str, np.ndarray]:
        return self._plan(batch_size(feeds)).run(feeds, names)

    def close(self) -> None:
        self._plans.clear()
        self._engine = self._runtime = None
        if self._cuda is not None:
            self._cuda.close()
            self._cuda = None

    @garbage_waits()
    def _plan(self, batch: int) -> _Plan:
        plan = self._plans.get(batch)
        if plan is None:
            assert self._cuda is not None
            context = self._engine.create_execution_context()
            if context is None:
                raise BackendError("the GPU has no memory left for this engine: free some")
            plan = _Plan(self._cuda, context, self.inputs, self.outputs, batch)
            self._plans[batch] = plan
            if plan.uncaptured and not self.problem:
                self.problem = f"runs without a CUDA graph: {plan.uncaptured}"
                _log.warning("%s %s", self.description, self.problem)
        return plan

    def _tensor_names(self) -> list[str]:
        return [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]

    def _is_input(self, name: str) -> bool:
        return bool(self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT)

    def _spec(self, name: str) -> TensorSpec:
        shape = tuple(int(side) for side in self._engine.get_tensor_shape(name))
        dtype = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))
        return TensorSpec(name, dtype, tuple(None if side < 0 else side for side in shape))

    def _largest_batch(self) -> int:
        free = [spec.name for spec in self.inputs if spec.shape[0] is None]
        if not free:
            return int(self.inputs[0].shape[0] or 1)
        return min(int(self._engine.get_tensor_profile_shape(name, 0)[2][0]) for name in free)


def _options(dla_core: int, batch: int) -> TensorRtOptions:
    most = DLA_BATCH if dla_core >= 0 else batch
    return TensorRtOptions(dla_core=dla_core, max_batch=most)


def _require_dla(runtime: str, trt: Any, core: int, precision: str) -> None:
    """Before anything is built for minutes, or an engine is loaded that would run on the GPU alone.

    :raises BackendError: if there is no such core, the runtime knows none, or it computes nothing
        of that precision.
    """
    if runtime == RTX:
        raise BackendError(dla_refusal(runtime, ""))
    logger, _ = collecting_logger(trt)
    require_core(trt.Runtime(logger), core)
    if refusal := dla_refusal(runtime, precision):
        raise BackendError(refusal)


class _Plan:
    """Buffers, context and CUDA graph for one batch size: all addresses stay where they are.

    ``inputs`` are what it reads, ``uncaptured`` why there is no graph.
    """

    def __init__(
        self,
        cuda: Cuda,
        context: Any,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        batch: int,
    ) -> None:
        self._cuda = cuda
        self._context = context
        buffers = {
            spec.name: cuda.buffer(
                tuple(batch if side is None else side for side in spec.shape), spec.dtype
            )
            for spec in (*inputs, *outputs)
        }
        self._uploads = [buffers[spec.name] for spec in inputs]
        self.inputs = {spec.name: buffers[spec.name].array for spec in inputs}
        self._outputs = {spec.name: buffers[spec.name] for spec in outputs}
        for name, buffer in buffers.items():
            buffer.array[...] = 1
            context.set_tensor_address(name, buffer.address)
        for name, array in self.inputs.items():
            if not context.set_input_shape(name, array.shape):
                raise BackendError(f"the engine does not take a batch of {batch}: compile it anew")
        # The first run sets things up and may not be captured.
        self._enqueue()
        cuda.synchronize()
        self._graph: Any = None
        self.uncaptured = ""
        try:
            self._graph = cuda.capture(self._enqueue)
        except BackendError as error:  # some layers cannot be: then they are enqueued one by one
            self.uncaptured = str(error)

    def run(self, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
        """Only the outputs ``names`` are copied; the engine computes all."""
        for name, array in self.inputs.items():
            if feeds[name] is not array:
                array[...] = feeds[name]
        if self._graph is not None:
            self._cuda.launch(self._graph)
        else:
            self._enqueue()
        for name in names:
            self._cuda.download(self._outputs[name])
        self._cuda.synchronize()
        return {name: self._outputs[name].array for name in names}

    def _enqueue(self) -> None:
        for buffer in self._uploads:
            self._cuda.upload(buffer)
        if not self._context.execute_async_v3(self._cuda.stream):
            raise BackendError("tensorrt failed on this input: see the engine's log")
