"""How fast can a device be, at best? The roofline model (Williams 2009), operation by operation.

An operation takes as long as its arithmetic at the device's peak rate or its memory traffic at the
peak bandwidth, whichever is longer; a frame takes the sum. Element-wise operations are taken as
folded into their neighbours. Weights and activations of convolutions and linear layers have the
precision's width; in int8 and fp8 all else, attention too, is taken as fp16 on a GPU and fp32 on a
CPU.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dense_perception.core.card import ModelCard
from dense_perception.core.errors import CardError
from dense_perception.core.machine import cpu_flags, cpu_info, usable_cores
from dense_perception.nets import zoo
from dense_perception.nets.sliding_window import SlidingWindow
from dense_perception.nets.trace import Operation, trace


@dataclass(frozen=True)
class Device:
    """Peak rates: TFLOP/s (dense) by precision, memory in GB/s and GB; where they come from.

    A precision that is not among the rates is one that the device has no arithmetic for.

    ``cache_mb``: an operation that moves less than half of it is taken as served by the cache. Only
    known for the CPU; for a GPU 0, which makes small models look slower than they may be.
    """

    name: str
    tera: dict[str, float]
    gb_per_s: float
    memory_gb: float
    source: str
    cache_mb: float = 0.0


DEVICES = {
    device.name: device
    for device in (
        Device(
            "orin-nano",
            {"fp32": 2.1, "fp16": 16.7, "int8": 33.4},
            102.0,
            8,
            "Jetson Orin Nano Super: 67 sparse, 33 dense INT8 TOPS, 102 GB/s (NVIDIA Jetson Orin "
            "page); fp16 half of int8; fp32 1024 cores x 2 x 1.02 GHz",
        ),
        Device(
            "orin-nx",
            {"fp32": 1.9, "fp16": 15.0, "int8": 30.0},
            102.4,
            16,
            "Jetson Orin NX 16GB data sheet: 102.4 GB/s, GPU 918 MHz; int8 32 tensor cores x 1024 "
            "x clock (the 100 TOPS count DLA and sparsity); fp32 1024 cores x 2 x clock",
        ),
        Device(
            "agx-orin",
            {"fp32": 5.3, "fp16": 42.5, "int8": 85.0},
            204.8,
            64,
            "Jetson AGX Orin technical brief: GPU 170 sparse INT8 TOPS, 5.3 FP32 TFLOPS, "
            "204.8 GB/s; dense is half of sparse",
        ),
        Device(
            "thor",
            {"fp32": 8.1, "fp16": 258.0, "int8": 517.0, "fp8": 517.0},
            273.0,
            128,
            "Jetson T5000 data sheet: 2070 sparse FP4 TFLOPS, 273 GB/s; dense is half, each "
            "doubling of width halves again; fp32 2560 cores x 2 x 1.57 GHz",
        ),
        Device(
            "rtx4090",
            {"fp32": 82.6, "fp16": 165.2, "int8": 660.6, "fp8": 330.3},
            1008.0,
            24,
            "NVIDIA Ada GPU architecture white paper, appendix A: dense, fp16 and fp8 "
            "with fp32 sums",
        ),
        Device(
            "h100",
            {"fp32": 67.0, "fp16": 989.4, "int8": 1978.9, "fp8": 1978.9},
            3350.0,
            80,
            "NVIDIA H100 SXM data sheet: half of the figures with sparsity",
        ),
    )
}
ASSUMED_EFFICIENCY = 0.4
"""Share of the roofline that is planned with. An assumption for GPUs, see docs/planning.md."""
_LAUNCH_S = 3e-6
_WIDTH = {"fp32": 4, "fp16": 2, "int8": 1, "fp8": 1}


@dataclass(frozen=True)
class PlannedCost:
    """The roofline, what is planned with, and memory for weights and the largest operation."""

    bound_ms: float
    planned_ms: float
    memory_mb: float


def predict(
    operations: Sequence[Operation],
    parameters: int,
    device: Device,
    precision: str,
    efficiency: float = ASSUMED_EFFICIENCY,
) -> PlannedCost:
    """One frame on ``device``. Memory is without the runtime's own (hundreds of MB with CUDA)."""
    gpu = device.name != "cpu"
    rest = precision if _WIDTH[precision] > 1 else ("fp16" if gpu else "fp32")
    total, largest = 0.0, 0.0
    for operation in operations:
        kind = precision if operation.weights else rest
        moved = operation.read * _WIDTH[kind] + operation.written * _WIDTH[rest]
        largest = max(largest, moved)
        arithmetic = operation.flops / (device.tera[kind] * 1e12)
        cached = moved < device.cache_mb * 0.5e6
        traffic = 0.0 if cached else moved / (device.gb_per_s * 1e9)
        total += max(arithmetic, traffic) + (_LAUNCH_S if gpu else 0.0)
    memory = parameters * _WIDTH[precision] + 2 * largest
    return PlannedCost(total * 1e3, total * 1e3 / efficiency, memory / 1e6)


def traced(card: ModelCard, width: int, height: int) -> tuple[list[Operation], int]:
    """Operations of one frame (of every window where the card says so) and parameters.

    :raises CardError: if the network cannot be built or take the size.
    """
    network = dict(card.network)
    entry = card.segmentation
    windowed = entry is not None and entry.window and (width, height) != (entry.window,) * 2
    if not windowed and {"height", "width"} <= set(network):
        network |= {"height": height, "width": width}
    module: nn.Module = zoo.build(network).eval().to("meta")
    parameters = sum(parameter.numel() for parameter in module.parameters())
    if windowed and entry is not None:
        module = SlidingWindow(module, height, width, entry.window, entry.stride).to("meta")
    try:
        with torch.device("meta"):
            return trace(module, height, width), parameters
    except (RuntimeError, ValueError, AssertionError) as error:
        raise CardError(f"{card.name} cannot take {width}x{height}: {error}") from error


def this_cpu() -> Device:
    """Peak rates of this machine's usable cores: instruction set x clock, bandwidth measured.

    A core with AVX-512 does 64 fp32 operations a cycle, with AVX2 32, on AMD before Zen 5 always
    32; VNNI does four times as many on bytes. fp16 is computed as fp32.
    """
    entries, flags, cores = cpu_info(), cpu_flags(), usable_cores()
    clock = float(entries.get("cpu MHz", 2000.0)) * 1e6
    amd = entries.get("vendor_id") == "AuthenticAMD" and int(entries.get("cpu family", 0)) < 26
    per_cycle = 64 if "avx512f" in flags and not amd else 32 if "avx2" in flags else 16
    vnni = any(flag in flags for flag in ("avx512_vnni", "avx_vnni", "asimddp"))
    fp32 = cores * clock * per_cycle / 1e12
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if entries else 8e9
    return Device(
        "cpu",
        {"fp32": fp32, "fp16": fp32, "int8": fp32 * (4 if vnni else 1)},
        _bandwidth_gb_s(),
        pages / 1e9,
        f"{cores} cores x {clock / 1e9:.2f} GHz x {per_cycle} fp32 operations a cycle"
        f"{', four times that on bytes (VNNI)' if vnni else ''}; bandwidth measured by copying",
        _last_cache_mb(),
    )


def _last_cache_mb() -> float:
    """The third-level cache, 0 where the system does not say."""
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index3/size").read_text().strip()
    except OSError:
        return 0.0
    return float(text[:-1]) / 1024 if text.endswith("K") and text[:-1].isdigit() else 0.0


def _bandwidth_gb_s() -> float:
    """Read and write together, best of five copies of 64 MB."""
    source = np.ones(8 << 20, np.float64)
    target = np.empty_like(source)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - start)
    return 2 * source.nbytes / best / 1e9
