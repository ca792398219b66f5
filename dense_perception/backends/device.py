"""What an engine was made for: the CPU with its features, or the GPU with its driver."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
from dataclasses import dataclass

from dense_perception.core.errors import BackendError

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU; ``capability`` such as "8.9", ``driver`` the CUDA version it supports."""

    name: str
    capability: str
    driver: str

    def __str__(self) -> str:
        return f"{self.name}, {self.capability}, driver {self.driver}"


def cpu_name() -> str:
    """CPU model and the number of cores this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    model = _cpuinfo(("model name", "Model")) or platform.machine()
    return f"{model} x{cores}"


def cpu_with_features() -> str:
    """:func:`cpu_name` and a digest of the instruction sets: code for others may not run."""
    flags = " ".join(sorted(_cpuinfo(("flags", "Features")).split()))
    return f"{cpu_name()}, features {hashlib.sha256(flags.encode()).hexdigest()[:8]}"


def gpu(index: int = 0) -> Gpu:
    """The NVIDIA GPU of that number, asked of its driver without any framework.

    :raises BackendError: if there is no driver or no such GPU.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise BackendError(
            "there is no NVIDIA driver here (libcuda.so.1 is missing): install it, or use another "
            "backend or device"
        ) from error
    device, value, version = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    for call, arguments in (
        (cuda.cuInit, (0,)),
        (cuda.cuDriverGetVersion, (ctypes.byref(version),)),
        (cuda.cuDeviceGet, (ctypes.byref(device), index)),
        (cuda.cuDeviceGetName, (name, 256, device)),
    ):
        code = call(*arguments)
        if code:
            raise BackendError(
                f"NVIDIA GPU {index} cannot be used ({call.__name__} gives error {code}): check "
                "nvidia-smi, or choose another device"
            )
    capability = []
    for attribute in (_MAJOR, _MINOR):
        cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        capability.append(str(value.value))
    driver = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return Gpu(name.value.decode(errors="replace"), ".".join(capability), driver)


def _cpuinfo(names: tuple[str, ...]) -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as stream:
            for line in stream:
                if line.startswith(names):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return ""
