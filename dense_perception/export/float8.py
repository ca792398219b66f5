"""An int8 Q/DQ graph becomes the same graph in FLOAT8E4M3FN: same pairs, other numbers.

What TensorRT 10 and later, and TensorRT for RTX, read as fp8: E4M3FN, no zero point, per-tensor
activations, per-channel weights, and a scale that sends the largest magnitude to 448, the largest
number there is. (ONNX Runtime's own float8 mode takes its scales from standard deviations.)
Float8 pairs exist from opset 19 on, so this file alone is raised to it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

from dense_perception.core.errors import ArtefactError

OPSET = 19
LARGEST = 448.0
_INT8_LARGEST = 127.0
_SMALLEST_SCALE = float(np.finfo(np.float32).tiny)


def is_float8(model: onnx.ModelProto) -> bool:
    """Whether a constant of the graph is a float8, as those of :func:`to_float8` are."""
    return any(tensor.data_type == TensorProto.FLOAT8E4M3FN for tensor in model.graph.initializer)


def to_float8(int8: onnx.ModelProto, weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The float8 version of a symmetric int8 graph.

    ``weights`` are the float32 weights by the name of their int8 tensor; they are rounded anew.

    :raises ArtefactError: if the graph cannot be raised to opset 19.
    """
    try:
        model: onnx.ModelProto = version_converter.convert_version(int8, OPSET)
    except RuntimeError as error:
        raise ArtefactError(
            f"the graph cannot be raised to opset {OPSET}, which fp8 needs: {error}; take int8"
        ) from error
    del model.graph.value_info[:]  # the converter's notes say int8
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    changed: dict[str, TensorProto] = {}
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        source, scale, zero = node.input[:3]
        changed[zero] = _float8(zero, np.zeros(tuple(constants[zero].dims), np.float32))
        scales = numpy_helper.to_array(constants[scale])
        if source in weights:
            axis = (
                next((a.i for a in node.attribute if a.name == "axis"), 1) if scales.ndim else None
            )
            scales, scaled = _scaled(weights[source], axis)
            changed[source] = _float8(source, scaled)
        else:
            scales = (scales * (_INT8_LARGEST / LARGEST)).astype(np.float32)
        changed[scale] = numpy_helper.from_array(scales, scale)
    for name, tensor in changed.items():
        constants[name].CopyFrom(tensor)
    _replace_clamps(model)
    return model


def _scaled(weight: np.ndarray, axis: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The scales, one for each index of ``axis``, and the weight divided by them."""
    others = (
        None if axis is None else tuple(i for i in range(weight.ndim) if i != axis % weight.ndim)
    )
    largest = np.abs(weight).max(axis=others, keepdims=True)
    scales = np.maximum(largest / LARGEST, _SMALLEST_SCALE).astype(np.float32)
    return scales.reshape(() if axis is None else -1), weight / scales


def _float8(name: str, values: np.ndarray) -> TensorProto:
    """A tensor of raw bytes: as int32, the helper's form, it is larger and OpenVINO misreads it."""
    clipped = values.clip(-LARGEST, LARGEST).ravel()
    tensor = helper.make_tensor(name, TensorProto.FLOAT8E4M3FN, values.shape, clipped)
    if tensor.int32_data:
        tensor.raw_data = np.array(tensor.int32_data, np.uint8).tobytes()
        del tensor.int32_data[:]
    return tensor


def _replace_clamps(model: onnx.ModelProto) -> None:
    """Relu and Clip in front of a pair become Max and Min, which compute the same.

    ONNX Runtime's optimiser (1.32) takes the clamp of any quantiser for granted: it drops such a
    Relu, so that negative values pass, and stops at such a Clip.
    """
    quantised = {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    zero = "float8_clamp_zero"
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type not in ("Relu", "Clip") or node.output[0] not in quantised:
            nodes.append(copy.deepcopy(node))
            continue
        low, high = [zero, ""] if node.op_type == "Relu" else [*node.input[1:], "", ""][:2]
        bounds = [(kind, bound) for kind, bound in (("Max", low), ("Min", high)) if bound]
        value = node.input[0]
        for index, (kind, bound) in enumerate(bounds):
            last = index == len(bounds) - 1
            target = node.output[0] if last else f"{node.output[0]}_{kind}"
            nodes.append(helper.make_node(kind, [value, bound], [target], f"{node.name}_{kind}"))
            value = target
    if any(zero in node.input for node in nodes):
        model.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), zero))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
