"""detectron2's published files: pickles of NumPy arrays, read without running anything of them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

# What a pickled array is made of; NumPy 2 moved the first two.
_ALLOWED = {
    *(
        (module, name)
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
        for name in ("_reconstruct", "scalar")
    ),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
    ("collections", "OrderedDict"),
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name} is not allowed")
        return super().find_class(module, name)


def read_arrays(path: Path) -> object:
    """What the file holds, its arrays of numbers as tensors.

    :raises pickle.UnpicklingError: naming what it asks for beside arrays and plain data.
    """
    with path.open("rb") as stream:
        # As detectron2 does: the first files were written by Python 2.
        return _with_tensors(_ArraysOnly(stream, encoding="latin1").load())


def _with_tensors(found: object) -> object:
    if isinstance(found, Mapping):
        return {key: _with_tensors(value) for key, value in found.items()}
    if isinstance(found, np.ndarray) and found.dtype.kind in "fiub":
        return _tensor(found)
    return found


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, array.dtype.newbyteorder("=")))
