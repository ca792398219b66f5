"""What a graph of others tells: its picture input, its outputs, how it begins and ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from dense_perception.core.errors import InputError
from dense_perception.export.foreign.fill_mask import MASK, fill_mask
from dense_perception.export.foreign.open_file import PLAIN_DOMAINS, open_model

_QUANTISED = {
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv"),
    *("QLinearMatMul", "ConvInteger", "MatMulInteger"),
}
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_WEIGHTS: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.DOUBLE: "float64",
    TensorProto.BFLOAT16: "bfloat16",
}
_WHOLE = (TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64)
# What leaves values as they are, or nearly: an ending is looked for through these.
_PASSING = {
    *("Identity", "Cast", "Resize", "Upsample", "Transpose", "Squeeze", "Unsqueeze", "Reshape"),
    *("QuantizeLinear", "DequantizeLinear", "Slice", "Gather", "Flatten"),
}
ENDINGS = {
    "Softmax": "softmax",
    "Sigmoid": "sigmoid",
    "HardSigmoid": "sigmoid",
    "ArgMax": "argmax",
}
_RANDOM = {
    *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
    *("Bernoulli", "Multinomial"),
}
_FARTHEST = 64


@dataclass(frozen=True)
class TensorInfo:
    """A graph input or output; None is a free side. ``kind`` is NumPy's name of the type."""

    name: str
    kind: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.kind} {self.sides}"

    @property
    def sides(self) -> str:
        if not self.shape:
            return "without sides"
        return "x".join("?" if side is None else str(side) for side in self.shape)


@dataclass(frozen=True)
class ForeignGraph:
    """A graph of others, whole: weights inside, functions inlined, as its exporter wrote it.

    ``picture`` is its only input that is read, ``unread`` names the others; ``filled`` is one that
    the graph makes itself now, of ones; ``outputs`` are all it gives. ``endings`` says by output
    which operator its values come from: ``softmax``, ``sigmoid``, ``argmax`` or nothing.
    """

    path: Path
    model: onnx.ModelProto
    opset: int
    picture: TensorInfo
    outputs: tuple[TensorInfo, ...]
    endings: Mapping[str, str]
    unread: tuple[str, ...] = ()
    filled: str = ""

    @cached_property
    def metadata(self) -> dict[str, str]:
        return {entry.key: entry.value for entry in self.model.metadata_props}

    @cached_property
    def precision(self) -> str:
        """``int8`` for a quantised graph, ``fp16`` if most weights are, else ``fp32``."""
        if any(node.op_type in _QUANTISED for node in self.model.graph.node):
            return "int8"
        return "fp16" if self.stored == "float16" else "fp32"

    @cached_property
    def stored(self) -> str:
        """The type that most of the weights have, of those with fractions; ``float32`` of none."""
        counts = dict.fromkeys(_WEIGHTS, 0)
        for tensor in weights_of(self.model.graph):
            if tensor.data_type in counts:
                counts[tensor.data_type] += int(np.prod(tensor.dims))
        return _WEIGHTS[max(counts, key=counts.__getitem__)]

    @cached_property
    def parameters(self) -> int:
        """Numbers in its weights."""
        return sum(int(np.prod(tensor.dims)) for tensor in weights_of(self.model.graph))

    @cached_property
    def beginning(self) -> tuple[str, float]:
        """Whether the graph normalises its pixels: the operator, and the largest of its numbers.

        Empty where the first arithmetic on the input has weights.
        """
        constants = {t.name: t for t in weights_of(self.model.graph)}
        name = self.picture.name
        for node in self.model.graph.node:
            if name not in node.input:
                continue
            if node.op_type in ("Cast", "Transpose", "Identity"):
                name = node.output[0]
                continue
            others = [constants[each] for each in node.input if each in constants]
            if node.op_type in ("Sub", "Mul", "Div", "Add") and others:
                numbers = np.abs(numpy_helper.to_array(others[0]))
                return node.op_type, float(numbers.max(initial=0))
            return "", 0.0
        return "", 0.0

    def only_in_training(self, outputs: Sequence[str]) -> list[str]:
        """Operators that these outputs depend on and that a network in use does not have: random
        numbers, and averages over the pictures at hand.
        """
        constants = {t.name: t for t in weights_of(self.model.graph)}
        return sorted(
            {n.op_type for n in needed(self.model.graph.node, outputs) if _trains(n, constants)}
        )

    def classes_of_argmax(self, output: str) -> int:
        """How many classes an argmax chose from, 0 if the graph does not say."""
        node = _ending_node(_makers(self.model.graph), output)
        if node is None or node.op_type != "ArgMax":
            return 0
        if not node.input:
            return 0
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        shape = self._shapes.get(node.input[0], ())
        side = shape[axis] if -len(shape) <= axis < len(shape) else None
        return side or 0

    @cached_property
    def _shapes(self) -> dict[str, tuple[int | None, ...]]:
        try:
            graph = onnx.shape_inference.infer_shapes(self.model, data_prop=True).graph
        except Exception:  # only a hint; what the graph gives is seen when it runs
            graph = self.model.graph
        values = (*graph.value_info, *graph.input, *graph.output)
        return {value.name: _sides(value) for value in values}


def read_graph(path: Path) -> ForeignGraph:
    """Read a graph of others, with weights that lie beside it.

    :raises ArtefactError: see :func:`~..open_file.open_model`.
    :raises InputError: if the graph cannot be one that looks at one picture, or has operators of
        its own.
    """
    model = open_model(path)
    opsets = [each.version for each in model.opset_import if each.domain in PLAIN_DOMAINS]
    if not opsets:
        raise InputError(f"{path} names no operator set: export the network again")
    picture, unread, filled = _picture(model, path, max(opsets))
    graph = model.graph
    makers, endings = _makers(graph), {}
    for value in graph.output:
        node = _ending_node(makers, value.name)
        endings[value.name] = ENDINGS.get(node.op_type, "") if node is not None else ""
    # The input itself, or a weight, is no answer.
    computed = [value for value in graph.output if value.name in makers]
    del graph.output[:]
    graph.output.extend(computed)
    outputs = tuple(
        _info(value) for value in computed if value.type.WhichOneof("value") == "tensor_type"
    )
    if not outputs:
        raise InputError(f"{path} computes no tensor: export the network again")
    return ForeignGraph(path, model, max(opsets), picture, outputs, endings, unread, filled)


def weights_of(graph: onnx.GraphProto) -> list[TensorProto]:
    """Initialisers, and the tensors of Constant nodes under their outputs' names."""
    found = list(graph.initializer)
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    tensor = TensorProto()
                    tensor.CopyFrom(attribute.t)
                    tensor.name = node.output[0]
                    found.append(tensor)
    return found


def _picture(
    model: onnx.ModelProto, path: Path, opset: int
) -> tuple[TensorInfo, tuple[str, ...], str]:
    """The one input that is no weight, and the names of those that nothing reads, taken out.

    Exporters leave inputs in that a network was called with and never looked at. One more that is
    read may be a mask, which is filled: the last entry is its name.
    """
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    unread: tuple[str, ...] = ()
    if len(inputs) > 1:
        read = names_in(graph.node)
        unread = tuple(value.name for value in inputs if value.name not in read)
        inputs = [value for value in inputs if value.name in read]
    filled = ""
    if picture := fill_mask(graph, inputs, opset):
        inputs, filled = [picture], MASK
    if len(inputs) != 1:
        names = ", ".join(str(_info(value)) for value in inputs) or "none"
        raise InputError(
            f"{path} takes {len(inputs)} inputs ({names}), expected one picture: export it with "
            "the others fixed to constants (in torch.onnx.export, a wrapper that passes them)"
        )
    info, kind = _info(inputs[0]), inputs[0].type.tensor_type.elem_type
    if kind not in (*_FLOATS, *_WHOLE):
        raise InputError(
            f"{path} takes {info}, expected a picture of float32, float16, uint8, int32 or int64 "
            "numbers: export it with one of these, in fp32 if nothing speaks against it"
        )
    if len(info.shape) != 4:
        raise InputError(
            f"{path} takes {info}, expected 4 dimensions, (1, 3, height, width) or (1, height, "
            "width, 3): export it for a batch of one picture"
        )
    if info.shape[0] not in (None, 1):
        raise InputError(
            f"{path} takes {info}, {info.shape[0]} pictures at once: export it for a batch of 1, "
            "or of any size"
        )
    if 3 not in info.shape[1:] and not {info.shape[1], info.shape[3]} & {1, None}:
        raise InputError(
            f"{path} takes {info}, which has neither a side of 3 for red, green and blue nor one "
            "of 1 for gray: only networks for colour or gray pictures are imported"
        )
    kept = [value for value in graph.input if value.name not in unread]
    del graph.input[:]
    graph.input.extend(kept)
    return info, unread, filled


def _makers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in graph.node for name in node.output}


def _ending_node(makers: Mapping[str, onnx.NodeProto], output: str) -> onnx.NodeProto | None:
    """What an output's values come from, ``makers`` being nodes by what they give.

    An ending is near. Nobody has tested yet that the graph has no circles.
    """
    node = makers.get(output)
    for _ in range(_FARTHEST):
        if node is None or node.op_type not in _PASSING:
            return node
        node = makers.get(node.input[0]) if node.input else None
    return None


def needed(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> list[onnx.NodeProto]:
    """The nodes that the outputs depend on, in their order."""
    makers = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    kept: set[int] = set()
    waiting = list(outputs)
    while waiting:
        index = makers.get(waiting.pop())
        if index is not None and index not in kept:
            kept.add(index)
            waiting += names_in([nodes[index]])
    return [nodes[index] for index in sorted(kept)]


def names_in(nodes: Sequence[onnx.NodeProto]) -> set[str]:
    """What nodes read, those of the graphs within them included."""
    found: set[str] = set()
    for node in nodes:
        found.update(name for name in node.input if name)
        for attribute in node.attribute:
            for below in (attribute.g, *attribute.graphs):
                found |= names_in(below.node)
                found.update(value.name for value in below.output)
    return found


def _trains(node: onnx.NodeProto, constants: Mapping[str, TensorProto]) -> bool:
    if node.op_type == "BatchNormalization":
        return any(a.name == "training_mode" and a.i for a in node.attribute)
    if node.op_type == "Dropout":
        flag = constants.get(node.input[2]) if len(node.input) > 2 else None
        return flag is not None and bool(numpy_helper.to_array(flag).any())
    return node.op_type in _RANDOM


def _info(value: onnx.ValueInfoProto) -> TensorInfo:
    code = value.type.tensor_type.elem_type
    try:
        kind = str(onnx.helper.tensor_dtype_to_np_dtype(code))
    except KeyError:  # 0 where nothing is said, or a kind of a later ONNX
        kind = "unknown"
    return TensorInfo(value.name, kind, _sides(value))


def _sides(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    dims: Sequence[onnx.TensorShapeProto.Dimension] = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.dim_value > 0 else None for dim in dims)
