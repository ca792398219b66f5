"""A graph of opset 18 in the words that TensorRT 8.5 and 8.6 read; the answers stay the same.

* Axes of reductions become attributes again, as in opset 17.
* Integers become bytes by way of float32, and bytes are cast before their shape is asked for.
* Weights in int8 become float32 with a QuantizeLinear, and each layer has pairs of its own: what
  those versions fuse to int8 layers.
* 8.5 has no LayerNormalization: it becomes plain arithmetic.

What cannot be told so stays, and :func:`~.tensorrt8_rules.problems` finds it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from dense_perception.backends.nvidia.tensorrt8_rules import (
    NEWEST_OPSET,
    REDUCTIONS,
    Problem,
    Version,
    View,
    attribute,
    problems,
    said,
)
from dense_perception.core.errors import BackendError

if TYPE_CHECKING:
    import onnx

FORM = "opset 17"
"""For the key of what is built of a rewritten graph: an engine of another form is another one."""
_MOST_BYTES = (1 << 31) - (1 << 24)  # of one protobuf message, less what nodes take
NEWEST_READ = 20
"""From opset 21 on, operators of quantisation mean more than 17 can say."""


class GraphRefused(BackendError):
    """A rule stays broken: another precision of the model may keep all."""


def for_tensorrt8(model: onnx.ModelProto, version: Version) -> onnx.ModelProto:
    """A copy that keeps the rules, metadata included.

    :raises GraphRefused: if a rule stays broken; the message names the nodes.
    """
    import onnx

    rewritten = _Rewriter(model, version).run()
    found = problems(rewritten, version)
    if found:
        raise GraphRefused(
            f"TensorRT {dotted(version)} does not take this graph: {said(found)}; take another "
            "precision, or a later TensorRT"
        )
    try:
        onnx.checker.check_model(rewritten)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise GraphRefused(
            f"this graph cannot be rewritten for TensorRT {dotted(version)}: {error}"
        ) from error
    return rewritten


def file_for_tensorrt8(source: bytes | str, version: Version) -> bytes:
    """The same for the bytes of an ONNX file that was read as a whole, or for its path.

    :raises GraphRefused: see :func:`for_tensorrt8`; or if it grows above 2 GB.
    :raises ImportError: if the package ``onnx`` is missing.
    """
    import onnx

    model = onnx.load(source) if isinstance(source, str) else onnx.load_model_from_string(source)
    rewritten = for_tensorrt8(model, version)
    if sum(len(tensor.raw_data) for tensor in rewritten.graph.initializer) >= _MOST_BYTES:
        raise GraphRefused(
            f"rewritten for TensorRT {dotted(version)} it takes more than 2 GB: take fp16"
        )
    return rewritten.SerializeToString()


def can_rewrite() -> bool:
    """Whether the package ``onnx`` is installed: without it graphs stay as they are."""
    return find_spec("onnx") is not None


def problems_after(model: onnx.ModelProto, version: Version) -> list[Problem]:
    """What remains broken of a graph after rewriting."""
    return problems(_Rewriter(model, version).run(), version)


def version_of(text: str) -> Version | None:
    """(8, 6) of "8.6.1"; None where these rules do not apply."""
    found = re.match(r"8\.(\d+)", text)
    return (8, int(found[1])) if found else None


def dotted(version: Version) -> str:
    """8.6"""
    return ".".join(map(str, version))


class _Rewriter:
    def __init__(self, model: onnx.ModelProto, version: Version) -> None:
        import onnx

        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.view = View(model, version)
        self.made_by: dict[str, onnx.NodeProto] = {}
        self.extra: list[onnx.TensorProto] = []
        self.taken = {*self.view.types, *self.view.constants, *self.view.made_by}
        self.pairs: set[str] = set()

    def run(self) -> onnx.ModelProto:
        graph = self.model.graph
        if self.view.opset <= NEWEST_READ:
            nodes = [made for node in graph.node for made in self._rewritten(node)]
            del graph.node[:]
            graph.node.extend(nodes)
            for entry in self.model.opset_import:
                if not entry.domain:
                    entry.version = min(entry.version, NEWEST_OPSET)
            used = {name for node in nodes for name in node.input}
            used |= {output.name for output in graph.output}
            kept = [t for t in (*graph.initializer, *self.extra) if t.name in used]
            del graph.initializer[:]
            graph.initializer.extend(kept)
            del graph.value_info[:]
        return self.model

    def _rewritten(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        kinds: dict[str, Callable[[onnx.NodeProto], list[onnx.NodeProto]]] = {
            "Split": self._split,
            "Resize": self._resize,
            "GridSample": self._grid_sample,
            "Cast": self._cast,
            "Shape": self._shape,
            "LayerNormalization": self._layer_normalisation,
            "DequantizeLinear": self._weights,
        }
        if node.op_type in REDUCTIONS:
            made = self._reduction(node)
        else:
            made = kinds[node.op_type](node) if node.op_type in kinds else [node]
        made = [each for last in made for each in (*self._own_pairs(last), last)]
        self.made_by |= {name: each for each in made for name in each.output}
        return made

    def _reduction(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        from onnx import helper, numpy_helper

        if len(node.input) < 2 or not node.input[1]:
            if attribute(node, "noop_with_empty_axes", 0):
                return [helper.make_node("Identity", [node.input[0]], node.output, node.name)]
            _drop(node, "noop_with_empty_axes")
            return [node]
        axes = self.view.constant(node.input[1])
        if axes is None:
            return [node]
        del node.input[1]
        _drop(node, "noop_with_empty_axes")
        values = [int(axis) for axis in numpy_helper.to_array(axes).reshape(-1)]
        if values:
            node.attribute.append(helper.make_attribute("axes", values))
        return [node]

    def _split(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """``num_outputs`` goes where the parts are equal, else their sizes are named."""
        if attribute(node, "num_outputs") is None:
            return [node]
        parts = len(node.output)
        side = self._side(node.input[0], int(str(attribute(node, "axis", 0))))
        if side is None:
            return [node]
        _drop(node, "num_outputs")
        if side % parts:
            size = -(-side // parts)
            sizes = [size] * (parts - 1) + [side - size * (parts - 1)]
            node.input.append(self._constant(np.array(sizes, np.int64), f"{node.output[0]}_sizes"))
        return [node]

    def _side(self, name: str, axis: int) -> int | None:
        kind = self.view.types.get(name)
        if kind is None or not kind.HasField("shape"):
            return None
        dims = kind.shape.dim
        return int(dims[axis].dim_value) or None

    def _resize(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """What opset 18 added goes where it says what is usual."""
        usual = {"antialias": 0, "keep_aspect_ratio_policy": b"stretch"}
        for name, value in usual.items():
            if attribute(node, name, value) == value:
                _drop(node, name)
        return [node]

    def _grid_sample(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Opset 20 gave the modes other names."""
        from onnx import helper

        names = {b"linear": "bilinear", b"cubic": "bicubic"}
        mode = attribute(node, "mode")
        if isinstance(mode, bytes) and mode in names:
            _drop(node, "mode")
            node.attribute.append(helper.make_attribute("mode", names[mode]))
        return [node]

    def _cast(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        from onnx import TensorProto

        floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
        source = self.view.types.get(node.input[0])
        kinds = (source.elem_type if source else TensorProto.FLOAT, attribute(node, "to"))
        if TensorProto.UINT8 not in kinds or any(kind in floats for kind in kinds):
            return [node]
        return self._from_float(node)

    def _shape(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        from onnx import TensorProto

        source = self.view.types.get(node.input[0])
        if source is None or source.elem_type != TensorProto.UINT8:
            return [node]
        return self._from_float(node)

    def _from_float(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        from onnx import TensorProto, helper

        name = self._name(f"{node.output[0]}_float")
        before = helper.make_node("Cast", [node.input[0]], [name], name, to=TensorProto.FLOAT)
        node.input[0] = name
        return [before, node]

    def _layer_normalisation(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        if self.view.version >= (8, 6) or any(node.output[1:]):
            return [node]
        return list(self._normalise(node))

    def _normalise(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """(x - mean) / sqrt(variance + epsilon), in float32 as ``stash_type`` says."""
        from onnx import TensorProto, helper

        kind = self.view.types.get(node.input[0])
        rank = len(kind.shape.dim) if kind is not None and kind.HasField("shape") else 0
        axis = int(str(attribute(node, "axis", -1)))
        axes = list(range(axis, rank if axis >= 0 else 0))
        half = kind is not None and kind.elem_type == TensorProto.FLOAT16
        tag = node.output[0]

        def step(op: str, inputs: list[str], what: str, **attributes: Any) -> onnx.NodeProto:
            name = self._name(f"{tag}_{what}")
            return helper.make_node(op, inputs, [name], name, **attributes)

        x = node.input[0]
        if half:
            yield (made := step("Cast", [x], "float", to=TensorProto.FLOAT))
            x = made.output[0]
        yield (mean := step("ReduceMean", [x], "mean", axes=axes, keepdims=1))
        yield (centred := step("Sub", [x, mean.output[0]], "centred"))
        yield (squares := step("Mul", [centred.output[0]] * 2, "squares"))
        yield (variance := step("ReduceMean", [squares.output[0]], "variance", axes=axes,
                                keepdims=1))  # fmt: skip
        epsilon = np.array(attribute(node, "epsilon", 1e-5), np.float32)
        floor = self._constant(epsilon, f"{tag}_epsilon")
        yield (above := step("Add", [variance.output[0], floor], "above"))
        yield (spread := step("Sqrt", [above.output[0]], "spread"))
        yield (last := step("Div", [centred.output[0], spread.output[0]], "unit"))
        if half:
            yield (last := step("Cast", [last.output[0]], "half", to=TensorProto.FLOAT16))
        yield (last := step("Mul", [last.output[0], node.input[1]], "scaled"))
        if len(node.input) > 2 and node.input[2]:
            yield (last := step("Add", [last.output[0], node.input[2]], "shifted"))
        last.output[0] = tag

    def _weights(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """float32 weights that become the same bytes again."""
        from onnx import TensorProto, helper, numpy_helper

        weights, scale = (self.view.constants.get(name) for name in node.input[:2])
        if weights is None or scale is None or weights.data_type != TensorProto.INT8:
            return [node]
        values, scales = numpy_helper.to_array(weights), numpy_helper.to_array(scale)
        axis = int(str(attribute(node, "axis", 1)))
        if scales.ndim:
            shape = [1] * values.ndim
            shape[axis] = -1
            scales = scales.reshape(shape)
        plain = self._constant(values.astype(np.float32) * scales, f"{weights.name}_float")
        if len(node.input) < 3:
            zero = np.zeros(tuple(scale.dims), np.int8)
            node.input.append(self._constant(zero, f"{weights.name}_zero"))
        name = self._name(f"{node.output[0]}_quantized")
        quantize = helper.make_node("QuantizeLinear", [plain, *node.input[1:]], [name], name)
        quantize.attribute.extend(node.attribute)
        node.input[0] = name
        return [quantize, node]

    def _own_pairs(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Copies of the pairs in front of this node that another node has used already."""
        copies: list[onnx.NodeProto] = []
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            return copies
        for index, name in enumerate(node.input):
            pair = self._pair(name)
            if pair is None:
                continue
            if name not in self.pairs:
                self.pairs.add(name)
                continue
            for last in pair:
                copy = type(last)()
                copy.CopyFrom(last)
                copy.output[0] = copy.name = self._name(last.output[0])
                if copies and last is pair[1]:
                    copy.input[0] = copies[-1].output[0]
                copies.append(copy)
            node.input[index] = copies[-1].output[0]
        return copies

    def _pair(self, name: str) -> tuple[onnx.NodeProto, onnx.NodeProto] | None:
        last = self.made_by.get(name)
        if last is None or last.op_type != "DequantizeLinear":
            return None
        first = self.made_by.get(last.input[0])
        return None if first is None or first.op_type != "QuantizeLinear" else (first, last)

    def _constant(self, value: np.ndarray, name: str) -> str:
        from onnx import numpy_helper

        name = self._name(name)
        self.extra.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def _name(self, wish: str) -> str:
        name, number = wish, 1
        while name in self.taken:
            number += 1
            name = f"{wish}_{number}"
        self.taken.add(name)
        return name


def _drop(node: onnx.NodeProto, name: str) -> None:
    for each in [a for a in node.attribute if a.name == name]:
        node.attribute.remove(each)
