"""ONNX Runtime: the reference every other backend is compared with."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dense_perception.backends.base import Backend, TensorSpec, one_line, refused, stated_precision
from dense_perception.backends.bound_session import (
    NO_GRAPH,
    BindingError,
    BoundSession,
    run_options,
)
from dense_perception.backends.device import find_gpu, parse_device
from dense_perception.backends.nvidia.memory import Cuda
from dense_perception.core.errors import BackendError, UnavailableError
from dense_perception.core.onnx_file import OnnxFile

PACKAGE = "onnxruntime"
PAIRS_AS_THEY_ARE = ("session.disable_quant_qdq", "1")
"""For fp8: a session's setting that keeps its optimiser from the fusions of int8.

1.23, at least, fuses pairs of any type with the operator between them. The operators that it puts
there do not take fp8, so it refuses its own graph.
"""
_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "gpu": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
_OF_NVIDIA = (_PROVIDERS["cuda"], _PROVIDERS["tensorrt"])
# fp32 means fp32: the graph alone decides. The other provider knows no such option.
_CUDA_OPTIONS = {"use_tf32": "0"}
_AFTER = {
    # What the one does not know the next one takes.
    _PROVIDERS["tensorrt"]: (_PROVIDERS["cuda"], _PROVIDERS["cpu"]),
    _PROVIDERS["cuda"]: (_PROVIDERS["cpu"],),
    _PROVIDERS["openvino"]: (_PROVIDERS["cpu"],),
}
_log = logging.getLogger(__name__)
_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(uint16)": np.uint16,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}


class OnnxRuntimeBackend(Backend):
    """Runs an ONNX file with ONNX Runtime.

    ``device`` is ``cpu``, ``cuda``/``gpu``, ``cuda:1``, ``tensorrt`` or an execution provider's
    full name; ``threads`` 0 means all cores. ``optimised=False`` runs the graph node by node as it
    stands. On NVIDIA's GPUs it runs in CUDA graphs on bound memory where that works, and
    ``problem`` says why where it does not.

    :raises BackendError: if onnxruntime is not installed, the device is not available or the graph
        is refused.
    """

    name = "onnxruntime"

    def __init__(
        self, file: OnnxFile, *, device: str = "cpu", threads: int = 0, optimised: bool = True
    ) -> None:
        ort = import_onnxruntime()
        provider, number = _provider(ort, device)
        self._ort = ort
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if not optimised:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if stated_precision(file) == "fp8":
            options.add_session_config_entry(*PAIRS_AS_THEY_ARE)
        # A spinning pool answers a little sooner but burns the cores the transport needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        place = provider.removesuffix("ExecutionProvider").lower()
        count = f"{threads} threads" if threads else "all cores"
        self.description = f"{self.name} {ort.__version__}, {place}, {count}"
        captures = False
        if provider in _OF_NVIDIA:
            self._session, captures = self._open_on_gpu(file, options, provider, number)
        else:
            self._session = self._open(file, options, provider, {})
        self.is_reference = provider == _PROVIDERS["cpu"]
        self.inputs = tuple(_spec(node) for node in self._session.get_inputs())
        self.outputs = tuple(_spec(node) for node in self._session.get_outputs())
        self._plain = run_options(ort, NO_GRAPH if captures else None)
        # Without it a run computes every output and drops those that were not asked for.
        self._only_wanted = run_options(ort, NO_GRAPH if captures else None)
        self._only_wanted.only_execute_path_to_fetches = True
        self._bound: BoundSession | None = None
        if provider in _OF_NVIDIA:
            self._bind(number, captures)

    def input_buffer(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """See :meth:`Backend.input_buffer`."""
        found = self._bound.input_buffer(name, shape) if self._bound is not None else None
        return super().input_buffer(name, shape) if found is None else found

    def _run(self, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
        if self._session is None:
            raise self.closed()
        try:
            if self._bound is not None:
                return self._bound.run(feeds, names)
            options = self._only_wanted if len(names) < len(self.outputs) else self._plain
            values = self._session.run(names, dict(feeds), options)
        except BindingError as error:
            self._without_binding(error)
            return self._run(feeds, names)
        except Exception as error:
            raise BackendError(f"onnxruntime failed on this input: {one_line(error)}") from error
        return dict(zip(names, values, strict=True))

    def close(self) -> None:
        if self._bound is not None:
            self._bound.close()
        self._bound = self._session = None

    def _source(self, file: OnnxFile) -> Any:
        """What a session is made of: bytes, or a path."""
        return file.source

    def _open(self, file: OnnxFile, options: Any, provider: str, settings: dict[str, str]) -> Any:
        ort = import_onnxruntime()
        if provider in _OF_NVIDIA and hasattr(ort, "preload_dlls"):
            # CUDA's libraries from NVIDIA's wheels, which the loader of the system does not find.
            ort.preload_dlls()
        providers: list[Any] = [(provider, settings)]
        for each in _AFTER.get(provider, ()):
            is_cuda = each == _PROVIDERS["cuda"]  # on the same GPU, and as exact as it is alone
            behind = {"device_id": settings["device_id"], **_CUDA_OPTIONS} if is_cuda else {}
            providers.append((each, behind))
        try:
            session = ort.InferenceSession(self._source(file), options, providers=providers)
        except Exception as error:  # the runtime's exceptions share no base class
            raise refused(self.name, ort.__version__, file, error) from error
        active = session.get_providers()[0]
        if active != provider:  # it logs why and goes on without: neither fast nor what was asked
            raise UnavailableError(
                f"onnxruntime {ort.__version__} could not start {provider} and would run on "
                f"{active}: check nvidia-smi and that CUDA and cuDNN are those of "
                "https://onnxruntime.ai/docs/execution-providers, or choose another device"
            )
        # Python's session keeps the bytes to fall back to other providers: never wanted here, and
        # as much memory again as the model.
        session.disable_fallback()
        session._model_bytes = None
        return session

    def _open_on_gpu(
        self, file: OnnxFile, options: Any, provider: str, number: int
    ) -> tuple[Any, bool]:
        """A session, and whether it makes CUDA graphs, for which the GPU must know every operator.

        :raises BackendError: if the file or the device is refused.
        """
        settings = {"device_id": str(number)}
        if provider == _PROVIDERS["cuda"]:
            settings |= _CUDA_OPTIONS
        if provider != _PROVIDERS["cuda"]:  # TensorRT's knows but one graph, whatever the shape
            return self._open(file, options, provider, settings), False
        try:
            capturing = {**settings, "enable_cuda_graph": "1"}
            return self._open(file, options, provider, capturing), True
        except BackendError as error:
            session = self._open(file, options, provider, settings)
            self._say(f"runs without a CUDA graph: {one_line(error)}")
            return session, False

    def _bind(self, number: int, captures: bool) -> None:
        """Have runs use memory that stays; without it they copy from and to memory that moves."""
        try:
            gpu = find_gpu(number)
            memory = Cuda(number, zero_copy=gpu.shares_memory)
        except BackendError as error:
            self._say(f"copies from and to pageable memory: {error}")
            return
        fixed = all(None not in spec.shape[1:] for spec in self.inputs)
        if fixed and any(None in spec.shape[1:] for spec in self.outputs):
            memory.close()
            self._say("copies from and to pageable memory: the sizes of its answers are not fixed")
            return
        self._bound = BoundSession(
            self._ort,
            self._session,
            memory,
            device=("cuda", number),
            inputs=[spec.name for spec in self.inputs],
            outputs=[spec.name for spec in self.outputs],
            captures=captures,
            fixed=fixed,
        )
        self.description += ", CUDA graph" if captures and fixed else ", bound memory"

    def _without_binding(self, error: BindingError) -> None:
        if self._bound is not None:
            self._bound.close()
        self._bound = None
        self._say(f"copies from and to pageable memory, without a CUDA graph: {error}")

    def _say(self, problem: str) -> None:
        """Slower than it could be, and right: said once, and kept."""
        self.problem = "; ".join(filter(None, (self.problem, problem)))
        _log.warning("%s %s", self.description, problem)


_CURE = "choose 'cpu' or install the build for that device"
_OF_CUDA = (
    "choose 'cpu', or `pip install onnxruntime-gpu` instead of it (on a Jetson NVIDIA's own wheel)"
)
_CURES = {
    **dict.fromkeys(("gpu", "cuda"), _OF_CUDA),
    "dla": "a DLA runs in the backend tensorrt alone: choose that, or the device gpu or cpu",
}


def import_onnxruntime() -> Any:
    """The module, imported now.

    :raises UnavailableError: if it is not installed or does not load.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UnavailableError(
            f"the backend 'onnxruntime' is not usable here ({error}): pip install onnxruntime"
        ) from error
    return onnxruntime


def _provider(ort: Any, device: str) -> tuple[str, int]:
    """The execution provider, and the number of its GPU."""
    kind, _, number = device.lower().partition(":")
    index = 0
    if number and kind in ("cuda", "gpu", "tensorrt"):
        index, _ = parse_device(f"cuda:{number}", PACKAGE)
    else:
        kind = device.lower()
    provider = _PROVIDERS.get(kind, device)
    available = ort.get_available_providers()
    if provider not in available:
        raise UnavailableError(
            f"device {device!r} is not available in this onnxruntime, which offers {available}: "
            f"{_CURES.get(kind.partition(':')[0], _CURE)}"
        )
    return provider, index


def _spec(node: Any) -> TensorSpec:
    dtype = _DTYPES.get(node.type)
    if dtype is None:
        raise BackendError(f"tensor {node.name} has the type {node.type}, which is not supported")
    shape = tuple(side if isinstance(side, int) else None for side in node.shape)
    return TensorSpec(node.name, np.dtype(dtype), shape)
