"""A Jetson's deep learning accelerator (DLA): what it takes, and whether it is there.

What it does not know runs on the GPU without a word from TensorRT. So what could only run there is
refused here: see NVIDIA's "DLA Supported Layers and Restrictions" and "GPU Fallback Mode".
"""

from __future__ import annotations

from typing import Any

from dense_perception.backends.nvidia.module import RTX
from dense_perception.core.errors import BackendError, UnavailableError

PRECISIONS = ("fp16", "int8")
MAX_BATCH = 1
"""It knows no free sizes: larger batches are run in parts."""


def dla_refusal(runtime: str, precision: str) -> str:
    """Why nothing of that precision would run on a DLA; nothing where something may."""
    if runtime == RTX:
        return f"TensorRT for RTX has no DLA: {_INSTEAD}"
    if precision not in PRECISIONS:
        return (
            f"a DLA computes fp16 and int8, this file is {precision} and would run on the GPU "
            f"alone: take the int8 or fp16 file (--precision), or {_INSTEAD}"
        )
    return ""


def require_core(counting: Any, core: int) -> None:
    """Look whether there is such a core; ``counting`` is a builder or a runtime of TensorRT.

    :raises UnavailableError: if this machine has no DLA.
    :raises BackendError: if it has fewer.
    """
    cores = int(counting.num_DLA_cores)
    if cores == 0:
        raise UnavailableError(
            "TensorRT finds no DLA in this machine (Orin Nano, Thor and desktop GPUs have none, "
            f"TensorRT 10.8 to 11.3 know none): {_INSTEAD}"
        )
    if core >= cores:
        raise BackendError(
            f"got DLA core {core}, expected 0 to {cores - 1}: this machine has no more"
        )


_INSTEAD = "use --device gpu and leave --dla-core out (in a node: device gpu)"
