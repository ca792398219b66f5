"""SmoothQuant (Xiao 2023, arXiv:2211.10438): outlier channels move from activations to weights.

A LayerNormalization is followed by matrix products. Dividing its channel j by s_j and multiplying
row j of their weights by s_j changes nothing in exact arithmetic, but with
s_j = max|x_j|^alpha / max|w_j|^(1 - alpha) the activations lose their few large channels, which
would otherwise take the whole int8 range.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from dense_perception.export.calibration import Statistics

_SMALLEST = 1e-5


def smooth(
    model: onnx.ModelProto,
    layers: Collection[str],
    statistics: Mapping[str, Statistics],
    alpha: float,
) -> list[str]:
    """Smooth every normalisation whose readers are all in ``layers``, in place.

    ``statistics`` of the activations are changed along. Returns the normalisations' node names.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {output.name for output in model.graph.output}
    done = []
    for node in model.graph.node:
        if node.op_type != "LayerNormalization" or node.output[0] not in statistics:
            continue
        followers = readers.get(node.output[0], [])
        parameters = [name for name in node.input[1:3] if name]
        movable = (
            node.output[0] not in outputs
            and all(name in constants for name in parameters)
            and all(_takes(follower, node.output[0], layers, constants) for follower in followers)
        )
        if not movable:
            continue
        seen = statistics[node.output[0]]
        weights = [_value(constants[follower.input[1]]) for follower in followers]
        rows = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
        factors = np.maximum(seen.channel_largest, _SMALLEST) ** alpha
        factors /= np.maximum(rows, _SMALLEST) ** (1 - alpha)
        factors = np.maximum(factors, _SMALLEST).astype(np.float32)
        for index in range(1, 1 + len(parameters)):
            _renew(model, node, index, _value(constants[node.input[index]]) / factors)
        for follower, weight in zip(followers, weights, strict=True):
            _renew(model, follower, 1, weight * factors[:, None])
        seen.divide_channels(factors)
        done.append(node.name)
    return done


def _takes(
    node: onnx.NodeProto,
    activation: str,
    layers: Collection[str],
    constants: Mapping[str, onnx.TensorProto],
) -> bool:
    """Whether ``node`` is a layer that multiplies the activation with rows of a constant."""
    turned = any(a.name in ("transA", "transB") and a.i for a in node.attribute)
    return (
        node.name in layers
        and node.op_type in ("MatMul", "Gemm")
        and node.input[0] == activation
        and node.input[1] in constants
        and len(constants[node.input[1]].dims) == 2
        and not turned
    )


def _value(tensor: onnx.TensorProto) -> np.ndarray:
    return np.asarray(numpy_helper.to_array(tensor))


def _renew(model: onnx.ModelProto, node: onnx.NodeProto, index: int, value: np.ndarray) -> None:
    """A constant of the node's own: the one it had may be shared with other nodes."""
    name = f"{node.name}_smooth_{index}"
    model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    node.input[index] = name
