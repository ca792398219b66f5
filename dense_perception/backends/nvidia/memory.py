"""The few calls of the CUDA runtime that running an engine takes, without a framework."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dense_perception.core.errors import BackendError

_TO_DEVICE, _TO_HOST = 1, 2
_NON_BLOCKING = 1
_CAPTURE_RELAXED = 2
_NAMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so")


def _candidates() -> Iterator[str]:
    yield from _NAMES
    for folder in map(Path, filter(None, sys.path)):  # NVIDIA's wheels
        for pattern in ("nvidia/cu1*/lib/libcudart.so.*", "nvidia/cuda_runtime/lib/libcudart.so.*"):
            yield from map(str, sorted(folder.glob(pattern), reverse=True))


class Cuda:
    """One GPU and one stream; everything allocated is freed by :meth:`close`.

    :raises BackendError: if the CUDA runtime is missing or a call fails.
    """

    def __init__(self, index: int) -> None:
        self._library = _load()
        self._device: list[ctypes.c_void_p] = []
        self._pinned: list[ctypes.c_void_p] = []
        self._graphs: list[ctypes.c_void_p] = []
        self._stream = ctypes.c_void_p()
        self._call("cudaSetDevice", ctypes.c_int(index))
        flags = ctypes.c_uint(_NON_BLOCKING)
        self._call("cudaStreamCreateWithFlags", ctypes.byref(self._stream), flags)

    @property
    def stream(self) -> int:
        return self._stream.value or 0

    def device_buffer(self, size: int) -> int:
        """The address of ``size`` bytes on the GPU."""
        pointer = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(pointer), ctypes.c_size_t(max(size, 1)))
        self._device.append(pointer)
        return pointer.value or 0

    def pinned_array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array in page-locked memory, which copies need to be asynchronous."""
        size = max(int(np.prod(shape)) * dtype.itemsize, 1)
        pointer = ctypes.c_void_p()
        self._call("cudaHostAlloc", ctypes.byref(pointer), ctypes.c_size_t(size), ctypes.c_uint(0))
        self._pinned.append(pointer)
        memory = (ctypes.c_uint8 * size).from_address(pointer.value or 0)
        count = int(np.prod(shape))
        array = np.ctypeslib.as_array(memory)[: count * dtype.itemsize]
        return array.view(dtype).reshape(shape)

    def upload(self, address: int, array: np.ndarray) -> None:
        """Enqueue a copy to the GPU."""
        self._copy(address, array.ctypes.data, array.nbytes, _TO_DEVICE)

    def download(self, array: np.ndarray, address: int) -> None:
        """Enqueue a copy from the GPU."""
        self._copy(array.ctypes.data, address, array.nbytes, _TO_HOST)

    def synchronize(self) -> None:
        self._call("cudaStreamSynchronize", self._stream)

    def capture(self, work: Callable[[], None]) -> ctypes.c_void_p:
        """What ``work`` enqueues, as a graph for :meth:`launch`."""
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cudaStreamBeginCapture", self._stream, ctypes.c_int(_CAPTURE_RELAXED))
        try:
            work()
        finally:
            self._call("cudaStreamEndCapture", self._stream, ctypes.byref(graph))
        none = ctypes.c_ulonglong(0)
        self._call("cudaGraphInstantiateWithFlags", ctypes.byref(executable), graph, none)
        self._call("cudaGraphDestroy", graph)
        self._graphs.append(executable)
        return executable

    def launch(self, executable: ctypes.c_void_p) -> None:
        self._call("cudaGraphLaunch", executable, self._stream)

    def close(self) -> None:
        """Safe to call twice."""
        library = self._library
        for name, pointers in (
            ("cudaGraphExecDestroy", self._graphs),
            ("cudaFree", self._device),
            ("cudaFreeHost", self._pinned),
        ):
            while pointers:
                getattr(library, name)(pointers.pop())
        if self._stream.value:
            library.cudaStreamDestroy(self._stream)
            self._stream = ctypes.c_void_p()

    def _copy(self, target: int, source: int, size: int, kind: int) -> None:
        self._call(
            "cudaMemcpyAsync",
            ctypes.c_void_p(target),
            ctypes.c_void_p(source),
            ctypes.c_size_t(size),
            ctypes.c_int(kind),
            self._stream,
        )

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            describe = self._library.cudaGetErrorString
            describe.restype = ctypes.c_char_p
            raise BackendError(
                f"{name} failed: {describe(code).decode()} (CUDA error {code}): check nvidia-smi "
                "and the GPU's memory"
            )


def _load() -> Any:
    for name in _candidates():
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise BackendError(
        "the CUDA runtime (libcudart) is not found: install the CUDA toolkit, JetPack, or "
        "pip install nvidia-cuda-runtime"
    )
