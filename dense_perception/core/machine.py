"""The machine this process runs on: its processor, and what glibc does with freed memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import hashlib
import math
import os
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

_CPUINFO = Path("/proc/cpuinfo")
_STAT = Path("/proc/stat")
# Of the ten times of a line of /proc/stat; guest time is counted in user time already.
_IDLE, _IOWAIT, _COUNTED = 3, 4, 8
_NAMES = ("model name", "Model")  # x86 names each core, ARM the board at the end
_FLAGS = ("flags", "Features")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_IMAGE_MMAP_BYTES = 32 << 20  # the most that every glibc accepts
_IMAGE_TRIM_BYTES = 256 << 20
_BUILT_FOR_NUMPY_1 = ("numpy.core.multiarray failed to import", "_ARRAY_API not found")
_OWN_SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_")


@cache
def cpu_info() -> Mapping[str, str]:
    """The first entry of each name in ``/proc/cpuinfo``; empty on another system.

    Further processors are only read until something names the model.
    """
    entries: dict[str, str] = {}
    with (
        contextlib.suppress(OSError),
        open(_CPUINFO, encoding="utf-8", errors="replace") as stream,
    ):
        for line in stream:
            key, colon, value = line.partition(":")
            if colon:
                entries.setdefault(key.strip(), value.strip())
            elif any(name in entries for name in _NAMES):
                break
    return MappingProxyType(entries)


def cpu_model() -> str:
    """What the processor calls itself, else its architecture."""
    return _first(_NAMES) or platform.processor() or platform.machine()


def cpu_flags() -> tuple[str, ...]:
    """The instruction sets the processor names, sorted; empty where the system names none."""
    return tuple(sorted(_first(_FLAGS).split()))


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_gb() -> float | None:
    """Memory that programs can still take, in units of 10^9 bytes; ``None`` where nothing says."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        entry = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(entry.split()[1]) * 1024 / 1e9
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def busy_core_s() -> float:
    """Seconds of work that the cores this process may use have done since boot, for everybody.

    NaN where the system does not say (not Linux).
    """
    try:
        lines = _STAT.read_text().splitlines()
        own = {f"cpu{core}" for core in os.sched_getaffinity(0)}
        ticks = 0
        for name, *times in (line.split() for line in lines if line.startswith("cpu")):
            if name in own:
                counted = [int(each) for each in times[:_COUNTED]]
                ticks += sum(counted) - counted[_IDLE] - counted[_IOWAIT]
        return ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return math.nan


def cpu_name() -> str:
    """CPU model and the number of cores this process may use."""
    return f"{cpu_model()} x{usable_cores()}"


def cpu_with_features() -> str:
    """:func:`cpu_name` and a digest of the instruction sets: code for others may not run."""
    digest = hashlib.sha256(" ".join(cpu_flags()).encode()).hexdigest()[:8]
    return f"{cpu_name()}, features {digest}"


def end_with_parent() -> None:
    """Let this worker process end when the process that started it is gone, killed or not.

    It would wait for work for ever. Does nothing in a process without such a parent.
    """
    import multiprocessing
    import threading

    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def keep_freed_memory(*, activations: bool = False) -> bool:
    """Serve large buffers from the heap and keep them when they are freed.

    By default glibc maps every image of a few hundred kilobytes afresh, and the page faults cost
    more than the copy: 2.6 against 1.3 ms from process to process for 640x480. A node keeps buffers
    of up to 32 MB and up to 256 MB of freed heap. Training (``activations``) keeps everything: its
    buffers have tens of megabytes each, and zeroed pages cost more than the arithmetic.

    Variables of the environment (MALLOC_MMAP_THRESHOLD_, ...) win. Returns whether it was done; on
    another C library nothing happens.
    """
    if any(name in os.environ for name in _OWN_SETTINGS):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    if activations:
        settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1))
    else:
        settings = (
            (_M_MMAP_THRESHOLD, _IMAGE_MMAP_BYTES),
            (_M_TRIM_THRESHOLD, _IMAGE_TRIM_BYTES),
        )
    return all(bool(mallopt(name, value)) for name, value in settings)


def return_freed_memory(*, collect: bool = True) -> None:
    """Give freed heap back to the kernel, after a model was freed; glibc only.

    :param collect: look for unreachable objects first, which takes some milliseconds.
    """
    if collect:
        gc.collect()
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _first(names: tuple[str, ...]) -> str:
    entries = cpu_info()
    return next((entries[name] for name in names if name in entries), "")


def numpy_advice(error: ImportError) -> str | None:
    """The cure where OpenCV does not load since it was built for NumPy 1; ``None`` otherwise.

    Debian 12's and Ubuntu 24.04's OpenCV are such builds, and ``pip`` may bring NumPy 2.
    """
    if not any(text in str(error) for text in _BUILT_FOR_NUMPY_1):
        return None
    import numpy

    return (
        f"OpenCV was built for NumPy 1 and does not load with NumPy {numpy.__version__} of "
        f"{Path(numpy.__file__).parents[1]}: pip install 'numpy<2'"
    )
