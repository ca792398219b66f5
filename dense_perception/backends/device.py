"""NVIDIA GPUs, asked of their driver, and the names that devices have in parameters."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass

from dense_perception.core.errors import BackendError, UnavailableError

_DEVICE = re.compile(r"(gpu|cuda|dla)(?::(\d+))?")
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_INTEGRATED, _MAPS_HOST = 18, 19  # CU_DEVICE_ATTRIBUTE_INTEGRATED and _CAN_MAP_HOST_MEMORY
# Before it, the CPU of a Jetson reads and writes without its cache what the GPU can see.
_COHERENT = 7.2


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU; ``capability`` such as "8.9", ``driver`` the CUDA version it supports.

    ``shares_memory``: with the CPU, as on a Jetson, and so that copies between both are a waste.
    """

    name: str
    capability: str
    driver: str
    shares_memory: bool = False

    def __str__(self) -> str:
        return f"{self.name}, {self.capability}, driver {self.driver}"


def parse_device(device: str, backend: str, *, dla: bool = False) -> tuple[int, int]:
    """GPU number and DLA core (-1: none) of ``gpu``, ``cuda:1`` or, where allowed, ``dla:0``.

    :param backend: what to call it in messages.
    :raises BackendError: for anything else.
    """
    match = _DEVICE.fullmatch(device.lower())
    if match is None or (match[1] == "dla" and not dla):
        places = "gpu, cuda:N or dla:N" if dla else "gpu or cuda:N"
        others = "a cpu" if dla else "a dla or cpu"
        raise BackendError(
            f"device is {device!r}, the backend {backend!r} runs on {places}, not on {others}: set "
            "the device, or choose another backend"
        )
    number = int(match[2] or 0)
    return (0, number) if match[1] == "dla" else (number, -1)


def choose_device(device: str, backend: str = "auto") -> tuple[str, str]:
    """What ``auto`` is on this machine, and why; any other device as it is, without a reason.

    :param backend: ``auto``, or the one that runs; TensorRT needs the GPU, OpenVINO knows none of
        NVIDIA's.
    """
    if device.lower() != "auto":
        return device, ""
    if backend == "openvino":
        return "cpu", "openvino knows no NVIDIA GPU"
    try:
        return "gpu", f"found {find_gpu().name}"
    except BackendError as error:
        # A backend that runs nowhere else says itself what is missing.
        place = "gpu" if backend.endswith("tensorrt") else "cpu"
        return place, str(error).partition(": ")[0].partition(" (")[0]


def find_gpu(index: int = 0) -> Gpu:
    """The NVIDIA GPU of that number, asked of its driver without any framework.

    :raises UnavailableError: if there is no driver or no such GPU.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise UnavailableError(
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
            raise UnavailableError(
                f"NVIDIA GPU {index} cannot be used ({call.__name__} gives error {code}): check "
                "nvidia-smi, or choose another device"
            )

    def attribute(number: int) -> int:
        return (
            value.value
            if cuda.cuDeviceGetAttribute(ctypes.byref(value), number, device) == 0
            else 0
        )

    capability = f"{attribute(_MAJOR)}.{attribute(_MINOR)}"
    driver = f"{version.value // 1000}.{version.value % 1000 // 10}"
    shares = (
        bool(attribute(_INTEGRATED) and attribute(_MAPS_HOST)) and float(capability) >= _COHERENT
    )
    return Gpu(name.value.decode(errors="replace"), capability, driver, shares)
