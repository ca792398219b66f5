"""What a graph of others tells: its picture input, its outputs, how it begins and ends."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.inliner import inline_local_functions

from dense_perception.core.card import METADATA_KEY
from dense_perception.core.errors import ArtefactError, InputError
from dense_perception.core.printable import short
from dense_perception.core.storage import real_path, refuse_pointer

MOST_BYTES = (2 << 30) - (1 << 20)
"""A protobuf message cannot be larger than 2 GB; the wrapping needs a little of it."""
PLAIN_DOMAINS = ("", "ai.onnx")
_QUANTISED = {
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv"),
    *("QLinearMatMul", "ConvInteger", "MatMulInteger"),
}
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_PIXELS = (*_FLOATS, TensorProto.UINT8)
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
_FARTHEST = 64
_ZIP = b"PK\x03\x04"


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
        return "x".join("?" if side is None else str(side) for side in self.shape)


@dataclass(frozen=True)
class ForeignGraph:
    """A graph of others, whole: weights inside, functions inlined, as its exporter wrote it.

    ``picture`` is its only input, ``outputs`` are all it gives. ``endings`` says by output which
    operator its values come from: ``softmax``, ``sigmoid``, ``argmax`` or nothing.
    """

    path: Path
    model: onnx.ModelProto
    opset: int
    picture: TensorInfo
    outputs: tuple[TensorInfo, ...]
    endings: Mapping[str, str]

    @cached_property
    def metadata(self) -> dict[str, str]:
        return {entry.key: entry.value for entry in self.model.metadata_props}

    @cached_property
    def precision(self) -> str:
        """``int8`` for a quantised graph, ``fp16`` if most weights are, else ``fp32``."""
        if any(node.op_type in _QUANTISED for node in self.model.graph.node):
            return "int8"
        counts: dict[int, int] = {TensorProto.FLOAT: 0, TensorProto.FLOAT16: 0}
        for tensor in weights_of(self.model.graph):
            if tensor.data_type in counts:
                counts[tensor.data_type] += int(np.prod(tensor.dims))
        return "fp16" if counts[TensorProto.FLOAT16] > counts[TensorProto.FLOAT] else "fp32"

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

    :raises ArtefactError: if the file is missing, no ONNX model, not whole, over 2 GB, one of ours,
        or keeps weights outside of its folder.
    :raises InputError: if the graph cannot be one that looks at one picture, or has operators of
        its own.
    """
    refuse_pointer(path)
    if not path.is_file():
        raise ArtefactError(f"there is no file {path}: give an ONNX file or its folder")
    model = _parsed(path)
    if METADATA_KEY in {entry.key for entry in model.metadata_props}:
        raise ArtefactError(
            f"{path} has a model card inside already: run it as it is, "
            f"`dense-perception run {path} ...`"
        )
    _take_in_weights(model, path)
    if model.functions:
        model = _inlined(model, path)
    _refuse_own_operators(model, path)
    opsets = [each.version for each in model.opset_import if each.domain in PLAIN_DOMAINS]
    if not opsets:
        raise InputError(f"{path} names no operator set: export the network again")
    picture = _picture(model, path)
    graph = model.graph
    makers, endings = _makers(graph), {}
    for value in graph.output:
        node = _ending_node(makers, value.name)
        endings[value.name] = ENDINGS.get(node.op_type, "") if node is not None else ""
    outputs = tuple(
        _info(value) for value in graph.output if value.type.WhichOneof("value") == "tensor_type"
    )
    if not outputs:
        raise InputError(f"{path} gives no tensor: export the network again")
    return ForeignGraph(path, model, max(opsets), picture, outputs, endings)


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


def _parsed(path: Path) -> onnx.ModelProto:
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ArtefactError(
            f"{path} has {size / 1e9:.1f} GB, one ONNX file holds at most 2 GB: take the fp16 file"
        )
    with open(path, "rb") as stream:
        zipped = stream.read(len(_ZIP)) == _ZIP
    if zipped:
        raise ArtefactError(
            f"{path} is a PyTorch checkpoint or an archive, not an ONNX model: export the network "
            "with torch.onnx.export first, or take `dense-perception export NAME --weights FILE` "
            "for a published network"
        )
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's own classes differ between its versions
        raise ArtefactError(
            f"{path} is not an ONNX model ({short(str(error))}): export or download it again"
        ) from error
    if not model.graph.node or not model.opset_import:
        raise ArtefactError(
            f"{path} is not an ONNX model with a graph: export or download it again"
        )
    return model


def _take_in_weights(model: onnx.ModelProto, path: Path) -> None:
    """Weights that the exporter left in other files come inside, if those lie beside the model."""
    outside = [t for t in _tensors(model.graph) if t.data_location == TensorProto.EXTERNAL]
    if not outside:
        return
    folder = real_path(path.parent)
    total = path.stat().st_size
    for tensor in outside:
        location = next((e.value for e in tensor.external_data if e.key == "location"), "")
        usable = location and "\0" not in location
        file = real_path(folder / location) if usable else folder
        if not usable or Path(location).is_absolute() or not file.is_relative_to(folder):
            raise ArtefactError(
                f"{path} keeps weights in {short(location)}, outside of its folder, which is not "
                "followed: put that file beside the model and save it again with relative names"
            )
        if not file.is_file():
            raise ArtefactError(
                f"{path} keeps weights in {short(location)}, which is not beside it: download that "
                "file, too"
            )
        refuse_pointer(file)
        # Tensors may share a file, but each takes its part of it in.
        total += _length(tensor, file)
    if total > MOST_BYTES:
        raise ArtefactError(
            f"{path} and its weights have {total / 1e9:.1f} GB, one ONNX file holds at most 2 GB: "
            "take the fp16 file"
        )
    try:
        onnx.load_external_data_for_model(model, str(folder))
    except Exception as error:  # the checker's, protobuf's or the system's
        raise ArtefactError(
            f"the weights of {path} cannot be read ({short(str(error))}): download them again"
        ) from error


def _length(tensor: TensorProto, file: Path) -> int:
    """Bytes that a tensor takes of a file: what it says, else all of it."""
    said = next((e.value for e in tensor.external_data if e.key == "length"), "")
    size = file.stat().st_size
    return min(int(said), size) if re.fullmatch("[0-9]{1,18}", said) else size


def _inlined(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    try:
        return inline_local_functions(model)
    except Exception as error:  # the checker's, or one of C++
        raise ArtefactError(
            f"the functions of {path} cannot be put in place ({short(str(error))}): export the "
            "network without functions of its own"
        ) from error


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and those within its nodes: the branches of If, the bodies of Loop and Scan."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for below in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(below)


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Every constant of a graph and of the graphs within its nodes."""
    for each in _graphs(graph):
        yield from each.initializer
        for node in each.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def _refuse_own_operators(model: onnx.ModelProto, path: Path) -> None:
    own = sorted(
        {
            f"{node.domain}.{node.op_type}"
            for graph in _graphs(model.graph)
            for node in graph.node
            if node.domain not in PLAIN_DOMAINS
        }
    )
    if own:
        raise InputError(
            f"{path} has operators that are not ONNX's own, {short(own)}, which other runtimes do "
            "not know: export it without fusions and plug-ins (of several files take model.onnx, "
            "not one that ONNX Runtime has optimised or quantised)"
        )


def _picture(model: onnx.ModelProto, path: Path) -> TensorInfo:
    """The one input that is no weight."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(str(_info(value)) for value in inputs) or "none"
        raise InputError(
            f"{path} takes {len(inputs)} inputs ({names}), expected one picture: export it with "
            "the others fixed to constants (in torch.onnx.export, a wrapper that passes them)"
        )
    info = _info(inputs[0])
    if inputs[0].type.tensor_type.elem_type not in _PIXELS or len(info.shape) != 4:
        raise InputError(
            f"{path} takes {info}, expected one picture: float or uint8 of 4 dimensions, "
            "(1, 3, height, width) or (1, height, width, 3): export it for single pictures"
        )
    if info.shape[0] not in (None, 1):
        raise InputError(
            f"{path} takes {info}, {info.shape[0]} pictures at once: export it for a batch of 1"
        )
    if 3 not in info.shape[1:] and not {info.shape[1], info.shape[3]} & {1, None}:
        raise InputError(
            f"{path} takes {info}, which has neither a side of 3 for red, green and blue nor one "
            "of 1 for gray: only networks for colour or gray pictures are imported"
        )
    return info


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
