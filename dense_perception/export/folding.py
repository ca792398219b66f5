"""What a graph computes from constants alone is computed once, when it is exported.

A weight that is cut or turned inside the graph would not be recognised as a weight: runtimes would
multiply it in floating point, and the quantiser would have nothing to round.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

FOLDED = ("Split", "Slice", "Transpose", "Unsqueeze", "Squeeze")


def fold_constants(model: onnx.ModelProto) -> None:
    """Replace nodes of the kinds ``FOLDED`` whose inputs are all constant; in place."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {output.name for output in graph.output}
    folded = []
    for node in graph.node:
        given = [name for name in node.input if name]
        foldable = (
            node.op_type in FOLDED
            and all(name in constants for name in given)
            and not outputs & set(node.output)
        )
        if not foldable:
            continue
        values = {name: numpy_helper.to_array(constants[name]) for name in given}
        made = _run(node, values, model)
        for name, value in zip(node.output, made, strict=True):
            constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        folded.append(node)
    if not folded:
        return
    for node in folded:
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input} | outputs
    del graph.initializer[:]
    graph.initializer.extend(tensor for name, tensor in constants.items() if name in used)


def _run(
    node: onnx.NodeProto, values: dict[str, np.ndarray], model: onnx.ModelProto
) -> list[np.ndarray]:
    inputs = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in values.items()
    ]
    results = [onnx.ValueInfoProto(name=name) for name in node.output]
    alone = onnx.helper.make_model(
        onnx.helper.make_graph([node], "constants", inputs, results),
        opset_imports=model.opset_import,
    )
    return [np.asarray(value) for value in ReferenceEvaluator(alone).run(None, values)]
