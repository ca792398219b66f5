"""What an exported graph computes in which precision, read from its nodes."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from dense_perception.export.quantize import QUANTISED


def fp16_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes with an fp16 output, casts aside."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.output, *inferred.input)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return [
        node.name
        for node in model.graph.node
        if node.op_type != "Cast" and types.get(node.output[0]) == TensorProto.FLOAT16
    ]


def quantized_layers(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes whose data and weight inputs are both dequantised."""
    dequantised = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in QUANTISED and set(node.input[:2]) <= dequantised
    ]
