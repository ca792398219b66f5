"""What TensorRT 8.5 and 8.6 take of an ONNX graph, each rule with where it is written.

JetPack 6.0 has 8.6, JetPack 5.1 has 8.5. Nothing here needs TensorRT. A graph that breaks a rule is
refused by the parser or the builder or, what is worse, read as another one. Most of it
:func:`~dense_perception.backends.nvidia.tensorrt8_graph.for_tensorrt8` cures.

The sources are the parser of github.com/onnx/onnx-tensorrt, branches 8.5-GA and 8.6-GA, and the
headers of github.com/NVIDIA/TensorRT, branches release/8.5 and release/8.6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

Version = tuple[int, int]
VERSIONS: tuple[Version, ...] = ((8, 5), (8, 6))
NEWEST_OPSET = 17

# The importers of builtin_op_importers.cpp, ONNX's own operators among them.
_NAMES = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast
Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace
DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather
GatherElements GatherND Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual
GridSample HardSigmoid HardSwish Identity If InstanceNormalization IsNaN LRN LSTM LeakyRelu Less
LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul Max MaxPool Mean
MeanVarianceNormalization Min Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or PRelu Pad Pow
QuantizeLinear RNN RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range
Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign Round Scan
Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax
Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK
Transpose Trilu Unsqueeze Upsample Where Xor
"""
KNOWN_8_5 = frozenset(_NAMES.split())
NEW_IN_8_6 = frozenset({"GroupNormalization", "IsInf", "LayerNormalization"})

REDUCTIONS = frozenset(
    f"Reduce{what}"
    for what in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
)
"""Those whose axes the parser reads from the attribute only; ReduceSum's it reads from both."""


@dataclass(frozen=True)
class Rule:
    """One rule; ``broken_by`` says how a node breaks it, or nothing."""

    name: str
    source: str
    broken_by: Callable[[View, onnx.NodeProto], str]


@dataclass(frozen=True)
class Problem:
    """A node that breaks a rule."""

    node: str
    rule: str
    what: str

    def __str__(self) -> str:
        return f"{self.node}: {self.what}"


class View:
    """A graph as the rules look at it."""

    def __init__(self, model: onnx.ModelProto, version: Version) -> None:
        graph = model.graph
        self.version = max(version, VERSIONS[0])
        self.opset = next((e.version for e in model.opset_import if not e.domain), 0)
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.made_by = {name: node for node in graph.node for name in node.output}
        self.outputs = {output.name for output in graph.output}
        self.users: dict[str, int] = {}
        for node in graph.node:
            for name in node.input:
                self.users[name] = self.users.get(name, 0) + 1
        self.types = tensor_types(model)

    def constant(self, name: str) -> onnx.TensorProto | None:
        """The constant of that name, behind casts, too."""
        made_by = self.made_by.get(name)
        if made_by is not None and made_by.op_type in ("Cast", "Identity"):
            return self.constant(made_by.input[0])
        if made_by is not None and made_by.op_type == "Constant":
            return next((a.t for a in made_by.attribute if a.name == "value"), None)
        return self.constants.get(name)


def problems(model: onnx.ModelProto, version: Version) -> list[Problem]:
    """Where a graph breaks the rules of that version, in the graph's order.

    Graphs within nodes (If, Loop) are not looked at.
    """
    view = View(model, version)
    found = []
    if view.opset > NEWEST_OPSET:
        what = f"opset {view.opset}, {NEWEST_OPSET} is the newest that is known"
        found.append(Problem("the graph", "opset", what))
    for node in model.graph.node:
        for rule in RULES:
            if what := rule.broken_by(view, node):
                title = f"{node.op_type} {node.name or node.output[0]}"
                found.append(Problem(title, rule.name, what))
    return found


def said(found: list[Problem], most: int = 3) -> str:
    """The first of each rule in a line, and how many more there are."""
    firsts = list({problem.rule: problem for problem in found}.values())[:most]
    more = len(found) - len(firsts)
    return "; ".join(map(str, firsts)) + (f"; and {more} more of these" if more else "")


def tensor_types(model: onnx.ModelProto) -> dict[str, onnx.TypeProto.Tensor]:
    """Element type and shape of the graph's tensors, as far as they can be inferred.

    Without the weights' bytes: inference would copy them.
    """
    import onnx

    light = onnx.ModelProto()
    light.ir_version = model.ir_version
    light.opset_import.extend(model.opset_import)
    light.graph.name = "types"
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    given = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if tensor.name in given:
            continue
        if len(tensor.dims) <= 1 and sum(tensor.dims) <= 64:  # shapes and axes decide on others
            light.graph.initializer.append(tensor)
        else:
            light.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    graph = onnx.shape_inference.infer_shapes(light).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    types = {value.name: value.type.tensor_type for value in values}
    for tensor in light.graph.initializer:
        info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        types[tensor.name] = info.type.tensor_type
    return types


def attribute(node: onnx.NodeProto, name: str, default: object = None) -> object:
    """The value of an attribute."""
    import onnx

    for each in node.attribute:
        if each.name == name:
            return onnx.helper.get_attribute_value(each)
    return default


def _unknown(view: View, node: onnx.NodeProto) -> str:
    known = KNOWN_8_5 | (NEW_IN_8_6 if view.version >= (8, 6) else frozenset())
    if node.domain in ("", "ai.onnx") and node.op_type in known:
        return ""
    return "the parser does not know this operator"


def _axes_as_input(view: View, node: onnx.NodeProto) -> str:
    if node.op_type not in REDUCTIONS or len(node.input) < 2 or not node.input[1]:
        return ""
    return "its axes are an input, which is not read: it would reduce over all"


def _split_in_parts(view: View, node: onnx.NodeProto) -> str:
    if node.op_type != "Split" or attribute(node, "num_outputs") is None:
        return ""
    return "num_outputs is not read: parts of unlike size would be wrong"


def _pad_axes(view: View, node: onnx.NodeProto) -> str:
    if node.op_type == "Pad" and len(node.input) > 3 and node.input[3]:
        return "its axes are an input, which is refused"
    return ""


def _resize(view: View, node: onnx.NodeProto) -> str:
    if node.op_type != "Resize":
        return ""
    usual = {"antialias": 0, "keep_aspect_ratio_policy": b"stretch", "axes": None}
    other = [name for name, value in usual.items() if attribute(node, name, value) != value]
    if other:
        return f"{' and '.join(other)} is not read: it would resize differently"
    return ""


def _bytes(view: View, node: onnx.NodeProto) -> str:
    import onnx

    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    kinds = [view.types[name].elem_type for name in node.input if name in view.types]
    if onnx.TensorProto.UINT8 in kinds:
        if node.op_type != "Cast":
            return "bytes are an input: they can be cast, nothing else"
        if attribute(node, "to") not in floats:
            return "bytes are cast to another type than float"
    made = [name for name in node.output if _is_bytes(view, name)]
    if made and (node.op_type != "Cast" or any(name not in view.outputs for name in made)):
        return "it makes bytes within the graph: only a cast to an output may"
    if made and kinds and kinds[0] not in floats:
        return "bytes are cast from another type than float"
    return ""


def _is_bytes(view: View, name: str) -> bool:
    import onnx

    return name in view.types and view.types[name].elem_type == onnx.TensorProto.UINT8


def _quantised(view: View, node: onnx.NodeProto) -> str:
    import numpy as np
    from onnx import TensorProto, numpy_helper

    if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
        return ""
    if len(node.input) < 3:
        return "it has no zero point, which is wanted"
    scale, zero = view.constant(node.input[1]), view.constant(node.input[2])
    if scale is None or zero is None:
        return "scale and zero point have to be constants"
    if zero.data_type != TensorProto.INT8:
        return f"{TensorProto.DataType.Name(zero.data_type)}: only INT8 is quantised to"
    if scale.data_type != TensorProto.FLOAT:
        return "its scale is not float32, as which it is read"
    scales = numpy_helper.to_array(scale)
    if not np.all(scales > 0):
        return "a scale is not above zero"
    if np.any(numpy_helper.to_array(zero)) or zero.dims != scale.dims:
        return "its zero point has to be zero, of the scale's shape"
    weights = node.input[0]
    if node.op_type == "DequantizeLinear":
        before = view.made_by.get(weights)
        if before is None or before.op_type != "QuantizeLinear":
            return "its input is no QuantizeLinear: weights have to be float32 with a pair of both"
        weights = before.input[0]
    if scales.size > 1 and view.constant(weights) is None:
        return "a scale for each channel, which only weights may have"
    return ""


def _pair_of_its_own(view: View, node: onnx.NodeProto) -> str:
    if node.op_type == "DequantizeLinear" and view.users.get(node.output[0], 0) > 1:
        return "several layers share its output, each has to have a pair of its own"
    return ""


def _float_bias(view: View, node: onnx.NodeProto) -> str:
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm") or len(node.input) < 3:
        return ""
    before = view.made_by.get(node.input[2])
    if before is not None and before.op_type == "DequantizeLinear":
        return "its bias is quantised, which is refused"
    return ""


def _normalisation(view: View, node: onnx.NodeProto) -> str:
    if node.op_type != "InstanceNormalization" or view.version >= (8, 6):
        return ""
    if any(view.constant(name) is None for name in node.input[1:3]):
        return "scale and bias have to be constants"
    return ""


_IMPORTERS = "onnx-tensorrt builtin_op_importers.cpp"
_HELPER = f"{_IMPORTERS}, QuantDequantLinearHelper"
RULES = (
    Rule("known operators", f"{_IMPORTERS}, docs/operators.md", _unknown),
    Rule("axes as attribute", f"{_IMPORTERS}, ReduceMax; onnx2trt_utils.cpp, reduceTensor",
         _axes_as_input),
    Rule("parts by size", f"{_IMPORTERS}, Split", _split_in_parts),
    Rule("pad without axes", f"{_IMPORTERS}, Pad", _pad_axes),
    Rule("plain resize", f"{_IMPORTERS}, Resize", _resize),
    Rule("bytes at the border", "NvInferRuntimeBase.h, DataType::kUINT8; onnx-tensorrt "
         "ModelImporter.cpp, parseGraph", _bytes),
    Rule("int8, symmetric, float weights", f"{_HELPER}; NvInfer.h, IQuantizeLayer; onnxruntime "
         "issue 11535, optimum pull request 812", _quantised),
    Rule("pairs of their own", "optimum pull request 812: a single node after each pair",
         _pair_of_its_own),
    Rule("float biases", "onnxruntime issue 14229", _float_bias),
    Rule("constant normalisation", f"{_IMPORTERS}, InstanceNormalization", _normalisation),
)  # fmt: skip


def rules() -> Iterator[tuple[str, str]]:
    """Name and source of each rule."""
    for rule in RULES:
        yield rule.name, rule.source
