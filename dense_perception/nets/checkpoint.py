"""Files with weights as plain data: named tensors and what lies beside them, and nothing else.

PyTorch files are read with ``weights_only``, safetensors and ONNX files by their own readers, and
detectron2's by :mod:`~dense_perception.nets.numpy_pickle`: a pickle that wants to run code is
refused before anything of it runs.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dense_perception.core.card import ModelCard
from dense_perception.core.errors import ArtefactError, CardError
from dense_perception.core.onnx_file import OnnxFile
from dense_perception.core.storage import refuse_pointer
from dense_perception.nets.numpy_pickle import read_arrays

if TYPE_CHECKING:
    import onnx

# Where a training script's dictionary keeps the network's weights.
_WRAPPERS = ("model", "state_dict")
_PREFIXES, _COMPILED = ("module.", "model.", "network."), "_orig_mod."
_PREFIX = "network."


@dataclass(frozen=True)
class Checkpoint:
    """What a file with weights holds.

    ``weights`` are the named tensors, on the CPU. ``content`` is the whole mapping of a PyTorch
    file, as ``train`` writes it ``{"model": ..., "card": mapping, "training": mapping}``; of an
    exported ONNX file ``{"card": mapping}``. ``is_exported`` says that BatchNorms are folded:
    :func:`~dense_perception.nets.weights.load_weights` brings them back.
    """

    path: Path
    weights: Mapping[str, Tensor]
    content: Mapping[str, Any] = field(default_factory=dict)
    is_exported: bool = False

    def card(self) -> ModelCard:
        """The card inside.

        :raises CardError: if there is none or it is malformed.
        """
        if self.content.get("card") is None:
            raise CardError(
                f"{self.path} carries no card, expected a file of train or "
                "export: `dense-perception export` makes one of other weights (--weights or --card)"
            )
        return ModelCard.from_dict(self.content["card"], f"the card inside {self.path}")


def read_checkpoint(source: Path | OnnxFile) -> Checkpoint:
    """Read a file with weights, executing nothing of it.

    It is a PyTorch file (any suffix but the following: a state dictionary, one under ``model`` or
    ``state_dict``, or the ``model.pt`` and ``state.pt`` of ``train``), ``.safetensors``, a ``.pkl``
    of detectron2, or the fp32 ``.onnx`` file of ``export``, which may be in memory already.

    :raises ArtefactError: if the file is missing, truncated, holds no named tensors, or would need
        more than tensors and plain data to be read; or is an ONNX file of another precision.
    :raises CardError: if an ONNX file carries no card.
    """
    if isinstance(source, OnnxFile) or source.suffix == ".onnx":
        return _read_exported(OnnxFile.of(source))
    path = source
    plain = _read_plain(path)
    content = plain if isinstance(plain, Mapping) else {}
    data = content
    for key in _WRAPPERS:
        if isinstance(data.get(key), Mapping):
            data = data[key]
    tensors = {key: value for key, value in data.items() if isinstance(value, Tensor)}
    if not tensors or not all(isinstance(key, str) for key in data):
        raise ArtefactError(
            f"{path} holds no named tensors: expected a state dictionary, or one under "
            f"{' or '.join(map(repr, _WRAPPERS))}"
        )
    return Checkpoint(path, _unwrapped(tensors), content)


def _unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without what wrappers put before every name: DistributedDataParallel, Lightning, compile."""
    # torch.compile may wrap a part alone.
    names = {key: key.replace(_COMPILED, "") for key in tensors}
    while prefix := next(
        (p for p in _PREFIXES if all(name.startswith(p) for name in names.values())), ""
    ):
        names = {key: name.removeprefix(prefix) for key, name in names.items()}
    return {names[key]: value for key, value in tensors.items()}


def _read_exported(file: OnnxFile) -> Checkpoint:
    """Export renames nothing but the matrices of linear layers, and folds BatchNorms."""
    card = ModelCard.from_onnx(file)
    path = file.path
    if card.precision != "fp32":
        raise ArtefactError(f"{path} is in {card.precision}, expected fp32: give the fp32 file")
    try:
        import onnx
    except ImportError as error:
        raise ArtefactError(
            f"reading {path} needs the package onnx: pip install 'dense_perception[export]', or "
            "give a model.pt"
        ) from error
    try:
        with file.open() as stream:
            model = onnx.load_model(stream)
    except Exception as error:  # protobuf's failures have no common base
        raise ArtefactError(
            f"cannot read {path}: {type(error).__name__}; expected the fp32 ONNX file that "
            "`dense-perception export` wrote"
        ) from error
    return Checkpoint(path, _named(model), {"card": card.to_dict()}, is_exported=True)


def _named(model: onnx.ModelProto) -> dict[str, Tensor]:
    """Initializers by the names they have in the network; linear weights by their biases' names.

    Folded biases are found under their convolution's name with ``.weight_bias``.
    """
    from onnx import numpy_helper

    arrays = {item.name: item for item in model.graph.initializer}
    made_by = {output: node for node in model.graph.node for output in node.output}
    found: dict[str, Tensor] = {}

    def put(name: str, array: np.ndarray) -> None:
        found[name.removeprefix(_PREFIX)] = torch.from_numpy(np.array(array))

    for name, item in arrays.items():
        if name.startswith(_PREFIX):
            put(name, numpy_helper.to_array(item))
    for node in model.graph.node:
        # x @ weight.T + bias: the product's constant has lost its name, the bias has not.
        if node.op_type != "Add":
            continue
        bias = [name for name in node.input if name.startswith(_PREFIX) and name.endswith(".bias")]
        products = [made_by[name] for name in node.input if name in made_by]
        for product in products:
            if bias and product.op_type == "MatMul" and product.input[1] in arrays:
                # Earlier exports kept one of several equal biases, named by the layer that comes
                # first.
                weight_name = bias[0].removesuffix(".bias") + ".weight"
                if weight_name.removeprefix(_PREFIX) not in found:
                    put(weight_name, numpy_helper.to_array(arrays[product.input[1]]).T)
    return found


def _read_plain(path: Path) -> object:
    """What a ``.safetensors``, ``.pkl`` or PyTorch file holds: tensors and plain data, on the CPU.

    :raises ArtefactError: if it is missing, truncated or holds anything else.
    """
    if path.is_dir():
        inside = sorted(
            e.name for e in path.iterdir() if e.suffix in (".pt", ".pth", ".pkl", ".safetensors")
        )
        what = f"it holds {', '.join(inside[:3])}" if inside else "it holds no weights"
        raise ArtefactError(f"{path} is a folder, expected one file with weights: {what}; name one")
    if not path.is_file():
        raise ArtefactError(f"there is no checkpoint {path}: fetch it or check the path")
    refuse_pointer(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if path.suffix == ".pkl":
            return read_arrays(path)
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
