"""An fp32 graph becomes a strongly typed fp16 graph with fp32 islands.

Every tensor between nodes is fp16, except at the nodes that are told to stay in fp32; casts are put
at the borders, each before its first reader, so the order stays topological. Inputs and outputs of
the graph keep their types. Works on the graph and not on the module, so that one export serves all
attempts of the search for islands.
"""

from __future__ import annotations

import copy
from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dense_perception.core.errors import ArtefactError

_LARGEST = 65504.0
_SMALLEST = 6e-8
# Operators whose other float inputs are fp32 in every type of the first.
_FP32_INPUTS = {"Resize": (1, 2)}
_MATRIX = ("Conv", "MatMul", "Gemm", "ConvTranspose")


def half_candidates(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that compute in floating point and may do so in fp16, in order.

    What comes before the first weights (bytes to normalised pixels) is not among them: it costs
    nothing, and rounding its few constants would shift every pixel.
    """
    return _candidates(model, _types(model))


def _candidates(model: onnx.ModelProto, types: dict[str, int]) -> list[str]:
    downstream: set[str] = set()
    found = []
    for node in model.graph.node:
        if node.op_type in _MATRIX or downstream.intersection(node.input):
            downstream.update(node.output)
            if any(types.get(name) == TensorProto.FLOAT for name in (*node.input, *node.output)):
                found.append(node.name)
    return found


def to_half(model: onnx.ModelProto, keep: Collection[str] = ()) -> onnx.ModelProto:
    """The fp16 version of ``model`` with the nodes ``keep`` in fp32.

    Constants too large for fp16 keep their node in fp32.

    :raises ArtefactError: if a node has a subgraph, or the result is not valid ONNX.
    """
    half = set(half_candidates(model)) - set(keep)
    converted = _Converter(model, half).model
    try:
        onnx.checker.check_model(converted, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ArtefactError(f"the fp16 graph is not valid ONNX: {error}") from error
    return converted


class Rounder:
    """What :func:`to_half` would store, computed in fp32: for ONNX Runtime on a CPU.

    That runtime computes the fp16 graph in fp32 and drops the casts between its nodes, and with
    them the rounding and the overflow that a GPU would show. Here each tensor that would be fp16
    goes through fp16 and back in casts of its own, which stay. How a GPU sums is not in it.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._types = _types(model)  # seconds for a large graph
        self.candidates = _candidates(model, self._types)
        """As :func:`half_candidates`."""

    def __call__(self, keep: Collection[str] = ()) -> onnx.ModelProto:
        """The graph with the nodes ``keep`` in fp32."""
        return _rounded(self._model, self._types, set(self.candidates) - set(keep))


def _rounded(model: onnx.ModelProto, types: dict[str, int], half: set[str]) -> onnx.ModelProto:
    model = copy.deepcopy(model)
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    made: dict[str, TensorProto] = {}

    def through_fp16(source: str, target: str) -> list[onnx.NodeProto]:
        middle = f"{target}_stored"
        return [
            helper.make_node("Cast", [source], [middle], f"{middle}_to", to=TensorProto.FLOAT16),
            helper.make_node("Cast", [middle], [target], f"{middle}_from", to=TensorProto.FLOAT),
        ]

    stored: set[str] = set()
    for node in list(graph.node):
        if node.name not in half:
            nodes.append(node)
            continue
        for index, name in enumerate(node.input):
            skipped = index in _FP32_INPUTS.get(node.op_type, ())
            if types.get(name) != TensorProto.FLOAT or skipped:
                continue
            if name in constants:
                value = numpy_helper.to_array(constants[name])
                if not _fits(value):
                    continue
                twin = f"{name}_rounded"
                rounded_value = value.astype(np.float16).astype(np.float32)
                made.setdefault(twin, numpy_helper.from_array(rounded_value, twin))
                node.input[index] = twin
            elif name not in stored:
                # From an island, or from before the first weights: cast on the way in.
                nodes.extend(through_fp16(name, f"{name}_in{len(nodes)}"))
                node.input[index] = nodes[-1].output[0]
        nodes.append(node)
        for index, name in enumerate(node.output):
            if types.get(name) == TensorProto.FLOAT:
                stored.add(name)
                node.output[index] = f"{name}_exact"
                nodes.extend(through_fp16(f"{name}_exact", name))
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(made.values())
    del graph.value_info[:]
    return model


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor."""
    shaped = onnx.shape_inference.infer_shapes(model)
    graph = shaped.graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        types[value.name] = value.type.tensor_type.elem_type
    return types


class _Converter:
    """Walks the nodes once, in order."""

    def __init__(self, model: onnx.ModelProto, half: set[str]) -> None:
        self.types = _types(model)
        self.model = copy.deepcopy(model)
        graph = self.model.graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.outputs = {output.name for output in graph.output}
        self.in_half: set[str] = set()
        self.twins: dict[tuple[str, int], str] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.new_constants: list[TensorProto] = []
        for node in list(graph.node):
            self._convert(node, node.name in half)
        del graph.node[:]
        graph.node.extend(self.nodes)
        used = {name for node in graph.node for name in node.input} | self.outputs
        tensors = [t for t in (*graph.initializer, *self.new_constants) if t.name in used]
        kept = [copy.deepcopy(tensor) for tensor in tensors]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        del graph.value_info[:]

    def _convert(self, node: onnx.NodeProto, half: bool) -> None:
        if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
               for a in node.attribute):  # fmt: skip
            raise ArtefactError(f"node {node.name} ({node.op_type}) has a subgraph: export as fp32")
        float_inputs = [
            index
            for index, name in enumerate(node.input)
            if self.types.get(name) == TensorProto.FLOAT
            and index not in _FP32_INPUTS.get(node.op_type, ())
        ]
        half = half and all(
            _fits(numpy_helper.to_array(self.constants[node.input[index]]))
            for index in float_inputs
            if node.input[index] in self.constants
        )
        for index in float_inputs:
            node.input[index] = self._as(node.input[index], half)
        self.nodes.append(node)
        if not half:
            return
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
            elif attribute.type == onnx.AttributeProto.TENSOR:
                attribute.t.CopyFrom(_halved(attribute.t, attribute.t.name))
        for index, name in enumerate(node.output):
            if self.types.get(name) != TensorProto.FLOAT:
                continue
            if name in self.outputs:
                node.output[index] = f"{name}_fp16"
                cast = helper.make_node("Cast", [f"{name}_fp16"], [name], f"{name}_cast", to=1)
                self.nodes.append(cast)
                self.twins[name, TensorProto.FLOAT16] = f"{name}_fp16"
            else:
                self.in_half.add(name)

    def _as(self, name: str, half: bool) -> str:
        """The name of the tensor in the wanted type, with a cast or a constant made once."""
        if half == (name in self.in_half):
            return name
        wanted = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        twin = self.twins.get((name, wanted))
        if twin is None:
            twin = f"{name}_{'fp16' if half else 'fp32'}"
            self.twins[name, wanted] = twin
            if name in self.constants:
                self.new_constants.append(_halved(self.constants[name], twin))
            else:
                self.nodes.append(
                    helper.make_node("Cast", [name], [twin], f"{twin}_cast", to=wanted)
                )
        return twin


def _halved(tensor: TensorProto, name: str) -> TensorProto:
    if tensor.data_type != TensorProto.FLOAT:
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), name)


def _fits(value: np.ndarray) -> bool:
    """Whether a constant survives in fp16. A lone 1e-8 guards a division: as zero it would not."""
    size = np.abs(value)
    largest = float(size.max(initial=0.0))
    return largest <= _LARGEST and (size.size > 1 or largest == 0 or largest >= _SMALLEST)
