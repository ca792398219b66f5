"""The few calls of the CUDA runtime that running an engine takes, without a framework."""

from __future__ import annotations

import ctypes
import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dense_perception.core.errors import BackendError, UnavailableError

_TO_DEVICE, _TO_HOST = 1, 2
_NON_BLOCKING = 1
_CAPTURE_RELAXED = 2
_MAPPED = 2  # cudaHostAllocMapped
_NAMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so")


@dataclass(frozen=True, slots=True, eq=False)
class Buffer:
    """Memory for one input or output, which stays where it is.

    ``array`` is what Python reads and writes, ``address`` where the device has its own. They are
    one memory on a GPU that shares it with the CPU.
    """

    array: np.ndarray
    address: int


class Memory(Protocol):
    """Where a graph's inputs and outputs lie; copies are enqueued and done in their order."""

    def use(self) -> None:
        """Make its device that of the calling thread."""

    def buffer(self, shape: tuple[int, ...], dtype: np.dtype) -> Buffer: ...

    def free(self, buffer: Buffer) -> None:
        """Give back the device's part. The array lives for as long as somebody holds it."""

    def upload(self, buffer: Buffer) -> None: ...

    def download(self, buffer: Buffer) -> None: ...

    def synchronize(self) -> None: ...

    def close(self) -> None: ...


def _candidates() -> Iterator[str]:
    yield from _NAMES
    for folder in map(Path, filter(None, sys.path)):  # NVIDIA's wheels
        for pattern in ("nvidia/cu1*/lib/libcudart.so.*", "nvidia/cuda_runtime/lib/libcudart.so.*"):
            yield from map(str, sorted(folder.glob(pattern), reverse=True))


class Cuda:
    """One GPU and one stream; the device's memory is freed by :meth:`close`.

    :param zero_copy: the GPU reads and writes the CPU's memory, which makes sense where both share
        it; nothing is copied then.
    :raises BackendError: if the CUDA runtime is missing or a call fails.
    """

    def __init__(self, index: int, *, zero_copy: bool = False) -> None:
        self._library = _load()
        self._index = index
        self._zero_copy = zero_copy
        self._device: dict[int, ctypes.c_void_p] = {}
        self._graphs: list[ctypes.c_void_p] = []
        self._stream = ctypes.c_void_p()
        self.use()
        flags = ctypes.c_uint(_NON_BLOCKING)
        self._call("cudaStreamCreateWithFlags", ctypes.byref(self._stream), flags)

    def use(self) -> None:
        """Make this the GPU of the calling thread: each thread has its own, at first number 0."""
        self._call("cudaSetDevice", ctypes.c_int(self._index))

    @property
    def stream(self) -> int:
        return self._stream.value or 0

    def buffer(self, shape: tuple[int, ...], dtype: np.dtype) -> Buffer:
        """Page-locked memory, which copies need to be asynchronous, and the GPU's own."""
        count = int(np.prod(shape))
        size = max(count * dtype.itemsize, 1)
        host = ctypes.c_void_p()
        flags = ctypes.c_uint(_MAPPED if self._zero_copy else 0)
        self._call("cudaHostAlloc", ctypes.byref(host), ctypes.c_size_t(size), flags)
        memory = (ctypes.c_uint8 * size).from_address(host.value or 0)
        # Not before the last array is gone: whoever holds one may still read it.
        weakref.finalize(memory, self._library.cudaFreeHost, host).atexit = False
        array = np.ctypeslib.as_array(memory)[: count * dtype.itemsize].view(dtype).reshape(shape)
        device = ctypes.c_void_p()
        if self._zero_copy:
            self._call("cudaHostGetDevicePointer", ctypes.byref(device), host, ctypes.c_uint(0))
        else:
            self._call("cudaMalloc", ctypes.byref(device), ctypes.c_size_t(size))
            self._device[device.value or 0] = device
        return Buffer(array, device.value or 0)

    def free(self, buffer: Buffer) -> None:
        """See :meth:`Memory.free`."""
        pointer = self._device.pop(buffer.address, None)
        if pointer is not None:
            self._call("cudaFree", pointer)

    def upload(self, buffer: Buffer) -> None:
        """Enqueue a copy to the GPU, where it has a memory of its own."""
        if not self._zero_copy:
            host = buffer.array.ctypes.data
            self._copy(buffer.address, host, buffer.array.nbytes, _TO_DEVICE)

    def download(self, buffer: Buffer) -> None:
        """Enqueue a copy from the GPU, where it has a memory of its own."""
        if not self._zero_copy:
            host = buffer.array.ctypes.data
            self._copy(host, buffer.address, buffer.array.nbytes, _TO_HOST)

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
        while self._graphs:
            library.cudaGraphExecDestroy(self._graphs.pop())
        while self._device:
            library.cudaFree(self._device.popitem()[1])
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
    raise UnavailableError(
        "the CUDA runtime (libcudart) is not found: install the CUDA toolkit, JetPack, or "
        "pip install nvidia-cuda-runtime"
    )
