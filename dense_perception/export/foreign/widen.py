"""An fp16 graph as an fp32 graph: the same weights, computed without rounding to 16 bits."""

from __future__ import annotations

import copy

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dense_perception.export.foreign.open_file import graphs_of

_TYPE_ATTRIBUTES = {"Cast": "to", "EyeLike": "dtype", "SequenceEmpty": "dtype"}
_HALF, _FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``model``, whose inputs and outputs are no fp16, with every fp16 tensor in fp32.

    What is quantised or searched for precise parts starts from such a graph.
    """
    model = copy.deepcopy(model)
    for graph in graphs_of(model.graph):
        for tensor in graph.initializer:
            _widen(tensor)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name == _TYPE_ATTRIBUTES.get(node.op_type) and attribute.i == _HALF:
                    attribute.i = _FLOAT
                if attribute.HasField("t"):
                    _widen(attribute.t)
                for tensor in attribute.tensors:
                    _widen(tensor)
        for value in (*graph.input, *graph.output):
            if value.type.tensor_type.elem_type == _HALF:
                value.type.tensor_type.elem_type = _FLOAT
        del graph.value_info[:]
    _without_idle_casts(model)
    return model


def _widen(tensor: TensorProto) -> None:
    if tensor.data_type == _HALF:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _without_idle_casts(model: onnx.ModelProto) -> None:
    """Take out casts of fp32 to itself, of which fp16 graphs are full."""
    graph = model.graph
    typed = onnx.shape_inference.infer_shapes(model).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*typed.value_info, *typed.input)}
    kinds |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    kept_names = {value.name for value in graph.output}
    kept_names |= {name for below in list(graphs_of(graph))[1:] for name in _read_in(below)}
    source: dict[str, str] = {}
    nodes = []
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = source.get(name, name)
        to = helper.get_node_attr_value(node, "to") if node.op_type == "Cast" else 0
        idle = to == _FLOAT and kinds.get(node.input[0]) == _FLOAT
        if idle and node.output[0] not in kept_names:
            source[node.output[0]] = node.input[0]
        else:
            nodes.append(node)
    nodes = [copy.deepcopy(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(nodes)


def _read_in(graph: onnx.GraphProto) -> set[str]:
    return {name for node in graph.node for name in node.input} | {v.name for v in graph.output}
