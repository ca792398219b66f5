"""ONNX Runtime: the reference every other backend is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dense_perception.backends.base import Backend, TensorSpec, one_line, refused, stated_precision
from dense_perception.core.errors import BackendError
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

    ``device`` is ``cpu``, ``cuda``/``gpu``, ``tensorrt`` or an execution provider's full name;
    ``threads`` 0 means all cores. ``optimised=False`` runs the graph node by node as it stands.

    :raises BackendError: if onnxruntime is not installed, the device is not available or the graph
        is refused.
    """

    name = "onnxruntime"

    def __init__(
        self, file: OnnxFile, *, device: str = "cpu", threads: int = 0, optimised: bool = True
    ) -> None:
        ort = _import_onnxruntime()
        provider = _provider(ort, device)
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
        if provider in _OF_NVIDIA and hasattr(ort, "preload_dlls"):
            # CUDA's libraries from NVIDIA's wheels, which the loader of the system does not find.
            ort.preload_dlls()
        providers = [provider] if provider == _PROVIDERS["cpu"] else [provider, _PROVIDERS["cpu"]]
        try:
            session = ort.InferenceSession(file.source, options, providers=providers)
        except Exception as error:  # the runtime's exceptions share no base class
            raise refused(self.name, ort.__version__, file, error) from error
        active = session.get_providers()[0]
        if active != provider:  # it logs why and goes on without: neither fast nor what was asked
            raise BackendError(
                f"onnxruntime {ort.__version__} could not start {provider} and would run on "
                f"{active}: check nvidia-smi and that CUDA and cuDNN are those of "
                "https://onnxruntime.ai/docs/execution-providers, or choose another device"
            )
        # Python's session keeps the bytes to fall back to other providers: never wanted here, and
        # as much memory again as the model.
        session.disable_fallback()
        session._model_bytes = None
        self._session: Any = session
        self.is_reference = provider == _PROVIDERS["cpu"]
        self.inputs = tuple(_spec(node) for node in session.get_inputs())
        self.outputs = tuple(_spec(node) for node in session.get_outputs())
        # Without it a run computes every output and drops those that were not asked for.
        self._only_wanted = ort.RunOptions()
        self._only_wanted.only_execute_path_to_fetches = True
        count = f"{threads} threads" if threads else "all cores"
        place = active.removesuffix("ExecutionProvider").lower()
        self.description = f"onnxruntime {ort.__version__}, {place}, {count}"

    def _run(self, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
        if self._session is None:
            raise self.closed()
        try:
            options = self._only_wanted if len(names) < len(self.outputs) else None
            values = self._session.run(names, dict(feeds), options)
        except Exception as error:
            raise BackendError(f"onnxruntime failed on this input: {one_line(error)}") from error
        return dict(zip(names, values, strict=True))

    def close(self) -> None:
        self._session = None


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(
            f"the backend 'onnxruntime' is not usable here ({error}): pip install onnxruntime"
        ) from error
    return onnxruntime


def _provider(ort: Any, device: str) -> str:
    available = ort.get_available_providers()
    provider = _PROVIDERS.get(device.lower(), device)
    if provider not in available:
        raise BackendError(
            f"device {device!r} is not available in this onnxruntime, which offers {available}: "
            "choose 'cpu' or install the build for that device"
        )
    return provider


def _spec(node: Any) -> TensorSpec:
    dtype = _DTYPES.get(node.type)
    if dtype is None:
        raise BackendError(f"tensor {node.name} has the type {node.type}, which is not supported")
    shape = tuple(side if isinstance(side, int) else None for side in node.shape)
    return TensorSpec(node.name, np.dtype(dtype), shape)
