"""An fp32 graph becomes an int8 or fp8 graph with explicit Q/DQ that every runtime reads alike.

ONNX Runtime's quantiser places the pairs, set to what TensorRT's parser accepts and what ONNX
Runtime and OpenVINO run too: signed, symmetric (zero point 0), per-tensor activations, per-channel
weights, float biases, only Conv, MatMul and Gemm: layers with constant weights, and the products of
two activations in attention. Before it comes SmoothQuant
(:mod:`~dense_perception.export.smooth`), after it bias correction (Nagel 2021, arXiv:2106.08295),
which takes the systematic part of the weights' rounding error out of each convolution. fp8 is the
same graph with other numbers (:mod:`~dense_perception.export.float8`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dense_perception.core.errors import ArtefactError, InputError
from dense_perception.export.calibration import Statistics, observe
from dense_perception.export.float8 import to_float8
from dense_perception.export.smooth import smooth

QUANTISED = ("Conv", "MatMul", "Gemm")
METHODS = ("minmax", "percentile", "mse")
BYTES = ("int8", "fp8")
"""The precisions that a :class:`Quantizer` builds."""


@dataclass(frozen=True)
class QuantizeOptions:
    """How to quantise.

    :param method: what an activation's range is: the largest magnitude seen, the ``percentile`` of
        magnitudes, or the clip that minimises the mean squared error of int8's even steps.
    :param keep_float: how many of the first and last layers stay in floating point whatever the
        search says. The first few of the default model cost most of the accuracy and hardly any of
        the time.
    :param bias_correction: see the module.
    :param smooth: SmoothQuant's alpha, 0 to 1; None leaves the graph as it is.
    :param products: whether attention's products may become int8, too. They cost what the search
        measures; in DPT-Base at 384x384 they take 15 % of the time.
    :param full_range: weights, and the second factor of attention's products, use -127..127 in int8
        instead of -64..63. x86 without VNNI adds pairs of byte products in saturating 16 bits: with
        it OpenVINO was wrong by 10 % of the depth on such a processor, with 63 by 2 %.
    """

    method: str = "minmax"
    percentile: float = 99.99
    keep_float: tuple[int, int] = (0, 0)
    bias_correction: bool = True
    smooth: float | None = 0.5
    products: bool = True
    full_range: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"method is {self.method!r}, expected one of {list(METHODS)}")
        if not 50 <= self.percentile <= 100:
            raise InputError(f"percentile is {self.percentile}, expected 50 to 100")
        if min(self.keep_float) < 0:
            raise InputError(f"keep_float is {self.keep_float}, expected numbers from 0")
        if self.smooth is not None and not 0 <= self.smooth <= 1:
            raise InputError(f"smooth is {self.smooth}, expected 0 to 1")

    @property
    def needs_histograms(self) -> bool:
        """Whether every frame is looked at twice."""
        return self.method != "minmax"

    def check_for(self, precision: str) -> None:
        """Whether a graph of that precision can be built so.

        :raises InputError: if not.
        """
        if precision == "fp8" and self.method == "mse":
            raise InputError(
                "the method is 'mse', which weighs int8's even steps: take 'minmax' or "
                "'percentile' for fp8"
            )


class Quantizer:
    """Calibrates once, then builds int8 and fp8 versions of one graph.

    ``layers`` are the names of the nodes that can be quantised: those with weights in the graph's
    order, then attention's scores, then its weighted sums. The given model is left alone; the card
    inside is copied as it is. ``on_frame`` is that of
    :func:`~dense_perception.export.calibration.observe`.

    :raises InputError: if there are no frames.
    :raises ArtefactError: if the graph has nothing to quantise.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        frames: Iterable[Mapping[str, np.ndarray]],
        options: QuantizeOptions | None = None,
        on_frame: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.options = options or QuantizeOptions()
        self._model = copy.deepcopy(model)
        _name_nodes(self._model)
        found = _layers(self._model)
        first, last = self.options.keep_float
        found = found[first : len(found) - last]
        if not found:
            raise ArtefactError("the graph has no layer left to quantise: keep fewer in float")
        activations: dict[str, int] = {}
        self._second_factors: set[str] = set()
        if self.options.products:
            products = _products(self._model)
            activations = {name: -1 for node in products for name in node.input}
            self._second_factors = {node.input[1] for node in products}
            found += products
        self.layers = [node.name for node in found]
        for node in found:
            axis = 1 if node.op_type == "Conv" else -1
            activations[node.input[0]] = max(axis, activations.get(node.input[0], -1))
        self.statistics = observe(
            self._model, activations, frames, self.options.needs_histograms, on_frame
        )
        if self.options.smooth is not None:
            smooth(self._model, self.layers, self.statistics, self.options.smooth)

    def build(self, keep: Collection[str] = (), precision: str = "int8") -> onnx.ModelProto:
        """The int8 or fp8 graph with the layers ``keep`` in fp32.

        :raises ArtefactError: if that leaves none, or the graph cannot hold fp8.
        :raises InputError: if fp8 is wanted with the method ``mse``.
        """
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        self.options.check_for(precision)
        chosen = [name for name in self.layers if name not in keep]
        if not chosen:
            raise ArtefactError("the graph has no layer left to quantise: keep fewer in float")
        halved = precision == "int8" and not self.options.full_range
        ranges = {}
        for name, statistics in self.statistics.items():
            limit = np.float32(statistics.limit(self.options.method, self.options.percentile))
            if halved and name in self._second_factors:
                limit *= np.float32(127 / 63)
            ranges[name] = (-limit, limit)
        quantizer = QDQQuantizer(
            copy.deepcopy(self._model),
            True,
            not self.options.full_range,
            QuantType.QInt8,
            QuantType.QInt8,
            TensorsData(CalibrationMethod.MinMax, ranges),
            chosen,
            [],
            list(QUANTISED),
            {
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "MatMulConstBOnly": False,
                "OpTypesToExcludeOutputQuantization": list(QUANTISED),
            },
        )
        quantizer.quantize_model()
        # The new nodes are at the end; TensorRT and the checker want them before their users.
        quantizer.model.topological_sort()
        model: onnx.ModelProto = quantizer.model.model
        _as_before(model, self._model)
        if precision == "fp8":
            model = to_float8(model, _weights(model, self._model))
        if self.options.bias_correction:
            _correct_biases(model, self._model, set(chosen), self.statistics)
        onnx.checker.check_model(model, full_check=True)
        return model


def _layers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.op_type not in QUANTISED or node.input[1] not in constants:
            continue
        weight = constants[node.input[1]]
        turned = any(a.name == "transA" and a.i for a in node.attribute)
        if len(weight.dims) >= 2 and weight.data_type == onnx.TensorProto.FLOAT and not turned:
            found.append(node)
    return found


def _products(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Products of two activations: scores first, then what a softmax weighs.

    Sorted so that a unit of the search is of one kind: a softmax, most of whose values are tiny,
    loses more than scores do.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    softmaxes = {n.output[0] for n in model.graph.node if n.op_type == "Softmax"}
    found = [
        node
        for node in model.graph.node
        if node.op_type == "MatMul" and not constants & set(node.input)
    ]
    return sorted(found, key=lambda node: node.input[0] in softmaxes)


def _name_nodes(model: onnx.ModelProto) -> None:
    """The quantiser chooses layers by name, which must be there and be unique."""
    taken: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}"
        taken.add(node.name)


def _as_before(model: onnx.ModelProto, before: onnx.ModelProto) -> None:
    """Undo what the quantiser writes about itself; drop the weights nobody uses any more."""
    model.producer_name, model.producer_version = before.producer_name, before.producer_version
    model.ir_version = before.ir_version
    del model.opset_import[:]
    model.opset_import.extend(before.opset_import)
    del model.metadata_props[:]
    model.metadata_props.extend(before.metadata_props)
    used = {name for node in model.graph.node for name in node.input}
    used |= {output.name for output in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    del model.graph.value_info[:]


def _weights(model: onnx.ModelProto, before: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The float32 weights of the quantised layers by the names of their quantised tensors."""
    quantised = {tensor.name for tensor in model.graph.initializer}
    floats = {tensor.name: tensor for tensor in before.graph.initializer}
    original = {node.name: node for node in before.graph.node}
    made_by = {output: node for node in model.graph.node for output in node.output}
    found = {}
    for node in model.graph.node:
        if node.op_type not in QUANTISED or node.input[1] not in made_by:
            continue
        source = made_by[node.input[1]].input[0]
        weight = original[node.name].input[1]
        if source in quantised and weight in floats:
            found[source] = numpy_helper.to_array(floats[weight])
    return found


def _correct_biases(
    model: onnx.ModelProto,
    before: onnx.ModelProto,
    names: set[str],
    statistics: Mapping[str, Statistics],
) -> None:
    """Give each bias what the rounded weights lose on the average input of each channel."""
    constants = {t.name: t for t in model.graph.initializer}
    floats = {t.name: t for t in before.graph.initializer}
    original = {node.name: node for node in before.graph.node}
    made_by = {output: node for node in model.graph.node for output in node.output}
    for node in list(model.graph.node):
        if node.op_type != "Conv" or node.name not in names:
            continue
        source = original[node.name]
        rounded = _dequantised(made_by[node.input[1]], constants)
        lost = numpy_helper.to_array(floats[source.input[1]]) - rounded
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        outputs = lost.shape[0]
        means = statistics[source.input[0]].channel_mean.reshape(groups, -1)
        means = means.repeat(outputs // groups, axis=0)
        per_channel = lost.reshape(*lost.shape[:2], -1).sum(-1)
        correction = (per_channel * means).sum(1).astype(np.float32)
        bias = np.zeros(outputs, np.float32)
        if len(source.input) > 2 and source.input[2]:
            if source.input[2] not in floats:
                continue  # a computed bias cannot be corrected
            bias = numpy_helper.to_array(floats[source.input[2]])
        name = f"{node.output[0]}_bias"
        model.graph.initializer.append(numpy_helper.from_array(bias + correction, name))
        del node.input[2:]
        node.input.append(name)


def _dequantised(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> np.ndarray:
    """What a DequantizeLinear of a constant gives, float32."""
    values, scales = (numpy_helper.to_array(constants[name]) for name in node.input[:2])
    axis = next((helper.get_attribute_value(a) for a in node.attribute if a.name == "axis"), 1)
    shape = [1] * values.ndim
    shape[axis] = -1
    product: np.ndarray = values.astype(np.float32) * scales.reshape(shape)
    return product
