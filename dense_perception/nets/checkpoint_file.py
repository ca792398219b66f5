"""A checkpoint file as named tensors, and never as anything else.

A file is only read as tensors (``weights_only``, or safetensors): a pickle that wants to run code
is refused before anything of it runs.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dense_perception.core.errors import ArtefactError

# Where a training script's dictionary keeps the network's weights.
_WRAPPERS = ("model", "state_dict")


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The named tensors of a ``.safetensors`` file or of a PyTorch checkpoint, on the CPU.

    :raises ArtefactError: if the file is missing, truncated, holds no named tensors, or would need
        more than tensors and plain data to be read.
    """
    data = read_plain(path)
    for key in _WRAPPERS:
        if isinstance(data, Mapping) and isinstance(data.get(key), Mapping):
            data = data[key]
    tensors = (
        {key: value for key, value in data.items() if isinstance(value, Tensor)}
        if isinstance(data, Mapping)
        else {}
    )
    if not tensors or not all(isinstance(key, str) for key in data):
        raise ArtefactError(
            f"{path} holds no named tensors: expected a state dictionary, or one under "
            f"{' or '.join(map(repr, _WRAPPERS))}"
        )
    # DistributedDataParallel prefixes everything with the wrapper's name.
    if all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def read_plain(path: Path) -> Any:
    """What a ``.safetensors`` or PyTorch file holds: tensors and plain data, on the CPU.

    :raises ArtefactError: if it is missing, truncated or holds anything else.
    """
    if not path.is_file():
        raise ArtefactError(f"there is no checkpoint {path}: fetch it or check the path")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ArtefactError(
            f"cannot read the checkpoint {path}: it holds more than tensors and plain data, or is "
            f"damaged ({_refused(error)}); nothing of it was executed. Get it again from where it "
            "comes from, or save its state dictionary alone"
        ) from error
    except Exception as error:  # the readers' failures have no common base
        raise ArtefactError(
            f"cannot read the checkpoint {path}: it is cut off, damaged or no checkpoint; get it "
            f"again ({_first_line(error)})"
        ) from error


def _refused(error: Exception) -> str:
    """What the reader objects to; the rest of its text explains how to run the code after all."""
    match = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f"it asks for {match[1]}" if match else "it is not readable as tensors"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
