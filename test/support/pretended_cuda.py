"""The CUDA runtime, TensorRT and ONNX Runtime's CUDA provider, pretended on the CPU.

The device's memory is memory of this process that only copies and kernels reach, a captured graph
is the list of what was enqueued, and a kernel is ONNX Runtime on the CPU. So the product's own code
runs up to the last call, and :attr:`Fault` says what goes wrong below it.
"""

from __future__ import annotations

import ctypes
import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from dense_perception.backends import device as device_module
from dense_perception.backends import onnxruntime as ort_module
from dense_perception.backends import onnxruntime_tensorrt as ort_trt_module
from dense_perception.backends.device import Gpu
from dense_perception.backends.nvidia import backend as trt_module
from dense_perception.backends.nvidia import build as build_module
from dense_perception.backends.nvidia import engine as engine_module
from dense_perception.backends.nvidia import memory as memory_module
from dense_perception.core.onnx_file import OnnxFile

GPU = Gpu("Pretended", "8.9", "12.6")
JETSON = Gpu("Pretended Orin", "8.7", "12.6", shares_memory=True)
FAILED = 719  # cudaErrorLaunchFailure
LOST = 700  # cudaErrorIllegalAddress: every later call of the process gives it, too


@dataclass
class Fault:
    """``how``: nothing, ``wrong``, ``nan``, ``shape``, ``load``, ``infer``, ``lost`` or ``slow``;
    those of running from the run numbered ``after`` on.
    """

    how: str = ""
    after: int = 0
    runs: int = 0

    def spoil(self, answers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the engine answers in place of the truth."""
        self.runs += 1
        if self.runs <= self.after or not self.how:
            return answers
        if self.how == "infer":
            raise RuntimeError("no kernel image is available for node 7")
        if self.how == "slow":
            time.sleep(0.03)
        spoiled = {
            "wrong": lambda array: array * 2,
            "nan": lambda array: np.full_like(array, np.nan),
            "shape": lambda array: array[:, : array.shape[1] // 2],
        }.get(self.how, lambda array: array)
        return {name: np.ascontiguousarray(spoiled(array)) for name, array in answers.items()}

    @property
    def is_lost(self) -> bool:
        return self.how == "lost" and self.runs > self.after


class Cudart:
    """libcudart; ``calls`` counts them by name."""

    def __init__(self, fault: Fault | None = None) -> None:
        self.fault = fault or Fault()
        self.calls: Counter[str] = Counter()
        self.memory: dict[int, Any] = {}
        self.device = -1
        self._failure = 0
        self._recording: list[Callable[[], None]] | None = None
        self._graphs: dict[int, list[Callable[[], None]]] = {}
        self._handles = itertools.count(1000)

        def describe(code: int) -> bytes:
            return b"an illegal memory access was encountered" if code == LOST else b"unknown"

        self.cudaGetErrorString = describe

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cuda"):
            raise AttributeError(name)
        call = getattr(self, f"_{name}")

        def counted(*arguments: Any) -> int:
            self.calls[name] += 1
            if self.fault.is_lost:
                return LOST
            return call(*arguments) or 0

        return counted

    def enqueue(self, work: Callable[[], None]) -> None:
        if self._recording is None:
            self._do(work)
        else:
            self._recording.append(work)

    def _do(self, work: Callable[[], None]) -> None:
        """A kernel's failure shows at the next call that waits for it."""
        try:
            work()
        except RuntimeError:
            self._failure = FAILED

    def array(self, address: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """What lies there; only for kernels."""
        size = int(np.prod(shape)) * dtype.itemsize
        raw = (ctypes.c_uint8 * size).from_address(address)
        return np.ctypeslib.as_array(raw).view(dtype).reshape(shape)

    def _allocate(self, pointer: Any, size: Any) -> None:
        block = (ctypes.c_uint8 * size.value)()
        pointer._obj.value = ctypes.addressof(block)
        self.memory[ctypes.addressof(block)] = block

    def _cudaSetDevice(self, index: Any) -> None:
        self.device = index.value

    def _cudaStreamCreateWithFlags(self, stream: Any, _flags: Any) -> None:
        stream._obj.value = next(self._handles)

    def _cudaStreamDestroy(self, _stream: Any) -> None: ...

    def _cudaStreamSynchronize(self, _stream: Any) -> int:
        failure, self._failure = self._failure, 0
        return failure

    def _cudaHostAlloc(self, pointer: Any, size: Any, _flags: Any) -> None:
        self._allocate(pointer, size)

    def _cudaHostGetDevicePointer(self, pointer: Any, host: Any, _flags: Any) -> None:
        pointer._obj.value = host.value

    def _cudaMalloc(self, pointer: Any, size: Any) -> None:
        self._allocate(pointer, size)

    def _cudaFree(self, pointer: Any) -> None:
        del self.memory[pointer.value]

    def _cudaFreeHost(self, pointer: Any) -> None:
        del self.memory[pointer.value]

    def _cudaMemcpyAsync(self, to: Any, of: Any, size: Any, _kind: Any, _stream: Any) -> None:
        self.enqueue(lambda: ctypes.memmove(to.value, of.value, size.value) and None)

    def _cudaStreamBeginCapture(self, _stream: Any, _mode: Any) -> None:
        self._recording = []

    def _cudaStreamEndCapture(self, _stream: Any, graph: Any) -> None:
        graph._obj.value = next(self._handles)
        self._graphs[graph._obj.value], self._recording = self._recording or [], None

    def _cudaGraphInstantiateWithFlags(self, made: Any, graph: Any, _flags: Any) -> None:
        made._obj.value = next(self._handles)
        self._graphs[made._obj.value] = self._graphs[graph.value]

    def _cudaGraphDestroy(self, graph: Any) -> None:
        del self._graphs[graph.value]

    def _cudaGraphExecDestroy(self, made: Any) -> None:
        del self._graphs[made.value]

    def _cudaGraphLaunch(self, made: Any, _stream: Any) -> None:
        for work in self._graphs[made.value]:
            self._do(work)


class _Engine:
    """What TensorRT makes of an ONNX file: ``largest batch\\n`` and the file."""

    def __init__(self, payload: bytes, cudart: Cudart) -> None:
        head, _, graph = payload.partition(b"\n")
        self.largest = int(head)
        self.cudart = cudart
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self.nodes = {n.name: n for n in (*self.session.get_inputs(), *self.session.get_outputs())}
        self.taken = {node.name for node in self.session.get_inputs()}
        self.num_io_tensors = len(self.nodes)

    def get_tensor_name(self, index: int) -> str:
        return list(self.nodes)[index]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name in self.taken else "out"

    def get_tensor_shape(self, name: str) -> list[int]:
        return [side if isinstance(side, int) else -1 for side in self.nodes[name].shape]

    def get_tensor_dtype(self, name: str) -> str:
        return str(self.nodes[name].type)

    def get_tensor_profile_shape(self, name: str, _profile: int) -> list[tuple[int, ...]]:
        sides = self.get_tensor_shape(name)[1:]
        return [(batch, *sides) for batch in (1, 1, self.largest)]

    def create_execution_context(self) -> _Context:
        return _Context(self)


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self.engine = engine
        self.addresses: dict[str, int] = {}
        self.batch = 1

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def set_input_shape(self, _name: str, shape: tuple[int, ...]) -> bool:
        self.batch = shape[0]
        return 1 <= self.batch <= self.engine.largest

    def execute_async_v3(self, _stream: int) -> bool:
        fault = self.engine.cudart.fault
        if fault.how == "infer" and fault.runs >= fault.after:
            return False
        self.engine.cudart.enqueue(self._kernel)
        return True

    def _kernel(self) -> None:
        engine = self.engine
        views = {}
        for name, node in engine.nodes.items():
            shape = tuple(side if isinstance(side, int) else self.batch for side in node.shape)
            dtype = np.dtype(ort_module._DTYPES[node.type])
            views[name] = engine.cudart.array(self.addresses[name], shape, dtype)
        outputs = [name for name in engine.nodes if name not in engine.taken]
        values = engine.session.run(outputs, {name: views[name] for name in engine.taken})
        spoiled = engine.cudart.fault.spoil(dict(zip(outputs, values, strict=True)))
        for name, value in spoiled.items():
            views[name].reshape(-1)[: value.size] = value.reshape(-1)


def pretend_tensorrt(
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault | None = None,
    gpu: Gpu = GPU,
    runtime: str = "tensorrt",
) -> Cudart:
    """A GPU with TensorRT, until the test is over."""
    cudart = pretend_gpu(monkeypatch, fault, gpu)
    state = cudart.fault

    class Logger:
        pass

    class Runtime:
        def __init__(self, _logger: Any) -> None: ...

        def deserialize_cuda_engine(self, payload: bytes) -> _Engine | None:
            """``None`` for what it did not write itself, as a truncated or foreign engine."""
            whole = payload[:1].isdigit()
            return _Engine(payload, cudart) if whole and state.how != "load" else None

    trt = SimpleNamespace(
        __version__="10.3.0",
        ILogger=Logger,
        Runtime=Runtime,
        TensorIOMode=SimpleNamespace(INPUT="in"),
        nptype=lambda kind: ort_module._DTYPES[kind],
    )

    def build(file: OnnxFile, options: build_module.TensorRtOptions, **_: Any) -> bytes:
        source = file.source
        graph = source if isinstance(source, bytes) else file.path.read_bytes()
        return f"{options.max_batch}\n".encode() + graph

    for module in (trt_module, build_module):
        monkeypatch.setattr(module, "load_runtime", lambda name=None: (runtime, trt))
    monkeypatch.setattr(engine_module, "build_engine", build)
    monkeypatch.setattr("dense_perception.backends.opening.installed_runtimes", lambda: (runtime,))
    return cudart


def pretend_gpu(
    monkeypatch: pytest.MonkeyPatch, fault: Fault | None = None, gpu: Gpu = GPU
) -> Cudart:
    """A GPU with its driver and CUDA's runtime, until the test is over."""
    cudart = Cudart(fault)
    monkeypatch.setattr(memory_module, "_load", lambda: cudart)
    for module in (device_module, trt_module, ort_module, ort_trt_module):
        monkeypatch.setattr(module, "find_gpu", lambda index=0: gpu)
    return cudart


class _Session:
    """A session that says it is CUDA's and finds its bound memory on the device."""

    def __init__(self, session: Any, provider: str, settings: Mapping[str, str], cudart: Cudart):
        self._session = session
        self._provider = provider
        self._cudart = cudart
        self.captures = "1" in (
            settings.get("enable_cuda_graph"),
            settings.get("trt_cuda_graph_enable"),
        )
        self.captured: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def get_providers(self) -> list[str]:
        return [self._provider, "CPUExecutionProvider"]

    def run(self, names: Sequence[str] | None, feeds: Mapping[str, Any], options: Any) -> list[Any]:
        assert not self.captures or options.get_run_config_entry("gpu_graph_id") == "-1"
        names = list(names or [node.name for node in self._session.get_outputs()])
        values = self._session.run(names, feeds, options)
        return list(self._spoiled(dict(zip(names, values, strict=True))).values())

    def io_binding(self) -> _Binding:
        return _Binding(self._session)

    def run_with_iobinding(self, binding: _Binding, options: Any) -> None:
        if self.captures:
            number = options.get_run_config_entry("gpu_graph_id")
            # A graph is replayed as it was captured, whatever is bound by now.
            binding = self.captured.setdefault(number, binding) if number != "-1" else binding
        self._session.run_with_iobinding(binding.real, options)
        found = {name: self._cudart.array(*place) for name, place in binding.outputs.items()}
        for name, value in self._spoiled(dict(found)).items():
            found[name].reshape(-1)[: value.size] = value.reshape(-1)

    def _spoiled(self, answers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        spoiled = self._cudart.fault.spoil(answers)
        if self._cudart.fault.is_lost:
            raise RuntimeError("CUDA failure 700: an illegal memory access was encountered")
        return spoiled


class _Binding:
    def __init__(self, session: Any) -> None:
        self.real = session.io_binding()
        self.outputs: dict[str, tuple[int, tuple[int, ...], np.dtype]] = {}

    def bind_input(self, name: str, kind: str, number: int, *rest: Any) -> None:
        assert (kind, number) == ("cuda", 0)
        self.real.bind_input(name, "cpu", 0, *rest)

    def bind_output(self, name: str, kind: str, number: int, *rest: Any) -> None:
        assert (kind, number) == ("cuda", 0)
        self.real.bind_output(name, "cpu", 0, *rest)
        dtype, shape, address = rest
        self.outputs[name] = (address, tuple(shape), np.dtype(dtype))


def pretend_cuda_provider(
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault | None = None,
    gpu: Gpu = GPU,
    *,
    refuses_graphs: bool = False,
    tensorrt: int = 0,
) -> SimpleNamespace:
    """ONNX Runtime with CUDA until the test is over.

    Its ``sessions``, ``settings`` and ``cudart``, and ``providers``, as each session got them.

    ``tensorrt``: the version of TensorRT's libraries that its other provider finds.
    """
    cudart = pretend_gpu(monkeypatch, fault, gpu)
    seen = SimpleNamespace(sessions=[], settings=[], providers=[], cudart=cudart)

    def session(source: Any, options: Any, providers: Sequence[Any]) -> Any:
        provider, settings = providers[0]
        if provider == "CPUExecutionProvider":
            return onnxruntime.InferenceSession(source, options, providers=[provider])
        seen.settings.append(settings)
        seen.providers.append(list(providers))
        if "trt_ep_context_file_path" in settings:
            context = source if isinstance(source, bytes) else Path(source).read_bytes()
            Path(settings["trt_ep_context_file_path"]).write_bytes(context)
        if cudart.fault.how == "load":
            raise RuntimeError("CUDNN_STATUS_NOT_INITIALIZED")
        if refuses_graphs and "1" in (settings.get("enable_cuda_graph"), None):
            raise RuntimeError("the model has nodes that are not on the CUDA execution provider")
        real = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        seen.sessions.append(_Session(real, provider, settings, cudart))
        return seen.sessions[-1]

    shim = SimpleNamespace(
        __version__=onnxruntime.__version__,
        SessionOptions=onnxruntime.SessionOptions,
        RunOptions=onnxruntime.RunOptions,
        GraphOptimizationLevel=onnxruntime.GraphOptimizationLevel,
        InferenceSession=session,
        get_available_providers=lambda: [
            "TensorrtExecutionProvider",
            "CUDAExecutionProvider",
            "CPUExecutionProvider",
        ],
    )
    for module in (ort_module, ort_trt_module):
        monkeypatch.setattr(module, "import_onnxruntime", lambda: shim)
    monkeypatch.setattr(ort_trt_module, "library_version", lambda: tensorrt)
    monkeypatch.setattr("dense_perception.backends.opening.installed_runtimes", tuple)
    return seen
