"""Weights out of an exported ONNX file, so that a published model is also the one to go on from.

Export renames nothing, but it folds each BatchNorm into the convolution before it and transposes
the matrices of linear layers. Here that is undone: a folded BatchNorm comes back as one that only
adds the folded bias (mean 0, variance 1 - eps, weight 1), which computes the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dense_perception.core.card import ModelCard
from dense_perception.core.errors import ArtefactError, CardError, TrainingError
from dense_perception.core.onnx_file import OnnxFile

_PREFIX = "network."
_FOLDED_BIAS = ".weight_bias"


def load_artefact(network: nn.Module, source: Path | OnnxFile) -> ModelCard:
    """Put the weights of an fp32 file of ``dense-perception export`` into ``network``.

    Returns the card inside the file. Nothing in the file is executed.

    :raises TrainingError: if the file cannot be read, is not in fp32 or holds another network.
    """
    card, weights = artefact_weights(network, source)
    path = source.path if isinstance(source, OnnxFile) else source
    state = network.state_dict()
    missing = sorted(set(state) - set(weights))
    wrong = [name for name, value in weights.items() if value.shape != state[name].shape]
    if missing or wrong:
        name = (missing or wrong)[0]
        got = tuple(weights[name].shape) if wrong and not missing else "nothing"
        raise TrainingError(
            f"the weights of {path} do not fit the configured network: {name} is {got} there, "
            f"expected {tuple(state[name].shape)} ({len(missing) + len(wrong)} such); give the "
            "fp32 file of a model with the same `network`"
        )
    network.load_state_dict(weights)
    return card


def artefact_weights(
    network: nn.Module, source: Path | OnnxFile
) -> tuple[ModelCard, dict[str, Tensor]]:
    """The card inside an exported fp32 file and those of its weights that ``network`` has, too.

    By their names in ``network``; of any shape, since the file may hold another network.

    :raises TrainingError: if the file cannot be read or is not in fp32.
    """
    try:
        file = OnnxFile.of(source)
        card = ModelCard.from_onnx(file)
    except (ArtefactError, CardError) as error:
        raise TrainingError(f"cannot start from {source}: {error}") from error
    path = file.path
    if card.precision != "fp32":
        raise TrainingError(
            f"{path} is in {card.precision}, training goes on from fp32: give the fp32 file"
        )
    model = _parse(file)
    found = _named(model)
    state = network.state_dict()
    weights = {name: found[name] for name in state if name in found}
    for prefix, norm, conv in _batch_norms(network):
        weights |= _identity(prefix, norm, found.get(conv + _FOLDED_BIAS))
    return card, weights


def _parse(file: OnnxFile) -> Any:
    try:
        import onnx
    except ImportError as error:
        raise TrainingError(
            f"reading {file.path} needs the package onnx: pip install 'dense_perception[export]', "
            "or give a model.pt"
        ) from error
    try:
        return onnx.load_from_string(file.content)
    except Exception as error:  # protobuf's failures have no common base
        raise TrainingError(
            f"cannot read {file.path}: {type(error).__name__}; expected the fp32 ONNX file that "
            "`dense-perception export` wrote"
        ) from error


def _named(model: Any) -> dict[str, Tensor]:
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
                weight = numpy_helper.to_array(arrays[product.input[1]]).T
                put(bias[0].removesuffix(".bias") + ".weight", weight)
    return found


def _batch_norms(network: nn.Module) -> list[tuple[str, nn.BatchNorm2d, str]]:
    """(name, module, name of the convolution before it) of each BatchNorm that export folds."""
    pairs = []
    for name, part in network.named_modules():
        if not isinstance(part, nn.Sequential):
            continue
        for index in range(1, len(part)):
            norm = part[index]
            if isinstance(norm, nn.BatchNorm2d) and isinstance(part[index - 1], nn.Conv2d):
                pairs.append((f"{name}.{index}", norm, f"{name}.{index - 1}"))
    return pairs


def _identity(prefix: str, norm: nn.BatchNorm2d, bias: Tensor | None) -> dict[str, Tensor]:
    if bias is None:
        return {}
    return {
        f"{prefix}.weight": torch.ones_like(bias),
        f"{prefix}.bias": bias,
        f"{prefix}.running_mean": torch.zeros_like(bias),
        f"{prefix}.running_var": torch.full_like(bias, 1 - norm.eps),
        f"{prefix}.num_batches_tracked": torch.tensor(0),
    }
