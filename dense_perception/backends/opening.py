"""The backends there are: which are installed, and how one is opened."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dense_perception.backends.base import Backend
from dense_perception.backends.device import choose_device
from dense_perception.backends.nvidia.module import installed_runtimes
from dense_perception.core.errors import ArtefactError, BackendError
from dense_perception.core.onnx_file import OnnxFile

BACKENDS: dict[str, tuple[str, str, str]] = {
    "onnxruntime": ("dense_perception.backends.onnxruntime", "OnnxRuntimeBackend", "onnxruntime"),
    "onnxruntime_tensorrt": (
        "dense_perception.backends.onnxruntime_tensorrt",
        "OnnxRuntimeTensorRtBackend",
        "onnxruntime",
    ),
    "openvino": ("dense_perception.backends.openvino", "OpenVinoBackend", "openvino"),
    "tensorrt": ("dense_perception.backends.nvidia.backend", "TensorRtBackend", "tensorrt"),
    "torch_tensorrt": (
        "dense_perception.backends.nvidia.torch",
        "TorchTensorRtBackend",
        "torch_tensorrt",
    ),
}
"""Name: our module, its class, and the runtime package it needs."""

_NVIDIA = ("gpu", "cuda", "dla")


def installed_backends(device: str = "cpu") -> tuple[str, ...]:
    """Names of the backends that are importable here and know that kind of device.

    Of a DLA always the one that knows it, which says itself what is missing. Not
    ``torch_tensorrt``: it loads PyTorch and needs a compiled program, so it is only opened where it
    is asked for.
    """
    kind = device.lower().split(":")[0]
    if kind == "dla":  # a part of TensorRT, which its provider in ONNX Runtime leaves alone
        return ("tensorrt",)
    # OpenVINO's "gpu" is Intel's; it knows nothing that is called CUDA.
    known = ("onnxruntime",) if kind == "cuda" else ("onnxruntime", "openvino")
    names = [name for name in known if find_spec(BACKENDS[name][2])]
    if is_gpu(device):
        if installed_runtimes():
            names.insert(0, "tensorrt")
        elif "onnxruntime" in names and _has_tensorrt_provider():
            # The same engines by another way, for which nobody should wait twice.
            names.insert(0, "onnxruntime_tensorrt")
    return tuple(names)


def _has_tensorrt_provider() -> bool:
    from dense_perception.backends.onnxruntime_tensorrt import is_installed

    return is_installed()


def is_gpu(device: str) -> bool:
    """Whether that is one of NVIDIA's devices, by its name."""
    return device.lower().split(":")[0] in _NVIDIA


def open_backend(
    name: str,
    source: Path | OnnxFile,
    *,
    device: str = "cpu",
    threads: int = 0,
    batch: int = 1,
    build: bool = True,
) -> Backend:
    """Load an ONNX file, or what is at a path now, in the named backend.

    :param batch: how many images will come at once; more are right, too.
    :param build: whether an engine may be built now where no stored one loads.
    :raises EngineMissingError: if it may not, and none does.
    :raises BackendError: for an unknown or missing backend, a file that cannot be read, or a
        refused device or graph.
    """
    constructor: Callable[..., Any] = backend_class(name)
    engines = {"batch": batch, "build": build} if backend_class(name).has_engines else {}
    if threads < 0:
        raise BackendError(f"threads is {threads}, expected 0 (all cores) or more")
    device, _ = choose_device(device, name)
    try:
        file = OnnxFile.of(source)
        backend: Backend = constructor(file, device=device, threads=threads, **engines)
        try:
            file.verify()
        except BaseException:
            backend.close()
            raise
    except ArtefactError as error:
        raise BackendError(str(error)) from error
    return backend


def backend_class(name: str) -> type[Backend]:
    """The class of that backend; its runtime is not loaded.

    :raises BackendError: if there is no such backend.
    """
    if name not in BACKENDS:
        raise BackendError(f"backend is {name!r}, expected 'auto' or one of {list(BACKENDS)}")
    module, cls, _ = BACKENDS[name]
    found: type[Backend] = getattr(import_module(module), cls)
    return found
