"""An fp32 graph becomes an int8 graph with explicit Q/DQ that every runtime reads alike.

Signed, symmetric (zero point 0): per-tensor activations, per-channel weights; only Conv, MatMul and
Gemm with constant weights; biases stay float. That is what TensorRT's parser accepts, and ONNX
Runtime and OpenVINO run it too. Quantisation follows Nagel 2021 (arXiv:2106.08295): ranges from
calibration frames, then bias correction, which takes the systematic part of the weights' rounding
error out of each layer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dense_perception.core.errors import ArtefactError, InputError
from dense_perception.export.calibration import Statistics, observe

QUANTISED = ("Conv", "MatMul", "Gemm")
METHODS = ("minmax", "percentile", "mse")
_LEVELS = 127


@dataclass(frozen=True)
class QuantizeOptions:
    """How to quantise.

    :param method: what an activation's range is: the largest magnitude seen, the ``percentile`` of
        magnitudes, or the clip that minimises the mean squared error.
    :param keep_float: how many of the first and last layers stay in floating point. The first few
        of the default model cost most of the accuracy and hardly any of the time.
    :param bias_correction: see the module.
    :param weight_levels: largest integer of a weight. 127 would use all of int8, but x86 without
        VNNI adds pairs of byte products in saturating 16 bits: with it OpenVINO was wrong by 10 %
        of the depth on such a processor, with 63 by 2 %, and ONNX Runtime lost nothing.
    """

    method: str = "minmax"
    percentile: float = 99.99
    keep_float: tuple[int, int] = (6, 1)
    bias_correction: bool = True
    weight_levels: int = 63

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"method is {self.method!r}, expected one of {list(METHODS)}")
        if not 50 <= self.percentile <= 100:
            raise InputError(f"percentile is {self.percentile}, expected 50 to 100")
        if min(self.keep_float) < 0:
            raise InputError(f"keep_float is {self.keep_float}, expected numbers from 0")
        if not 1 <= self.weight_levels <= _LEVELS:
            raise InputError(f"weight_levels is {self.weight_levels}, expected 1 to {_LEVELS}")


@dataclass
class _Layer:
    """A node to quantise, its constant weight, and the axis of its output channels."""

    node: onnx.NodeProto
    weight: np.ndarray
    axis: int
    bias: str | None = field(default=None)

    @property
    def activation(self) -> str:
        return self.node.input[0]


def quantize(
    model: onnx.ModelProto,
    frames: Iterable[Mapping[str, np.ndarray]],
    options: QuantizeOptions | None = None,
) -> onnx.ModelProto:
    """The int8 version of ``model``, calibrated on ``frames`` (graph inputs, batches welcome).

    The card inside is left as it is.

    :raises InputError: if there are no frames.
    :raises ArtefactError: if the graph has nothing to quantise.
    """
    options = options or QuantizeOptions()
    model = copy.deepcopy(model)
    layers = _layers(model, options.keep_float)
    if not layers:
        raise ArtefactError("the graph has no layer left to quantise: keep fewer in float")
    names = list(dict.fromkeys(layer.activation for layer in layers))
    statistics = observe(model, names, frames, histograms=options.method != "minmax")
    graph = _Rewriter(model, options)
    for layer in layers:
        graph.quantize_layer(layer, statistics[layer.activation])
    graph.finish()
    onnx.checker.check_model(model, full_check=True)
    return model


def quantized_layers(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes whose data and weight inputs are both dequantised int8."""
    dequantised = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in QUANTISED and set(node.input[:2]) <= dequantised
    ]


def _layers(model: onnx.ModelProto, keep_float: Sequence[int]) -> list[_Layer]:
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found = []
    for node in model.graph.node:
        # Products of two activations (attention) are small and stay in floating point.
        if node.op_type not in QUANTISED or node.input[1] not in constants:
            continue
        weight = numpy_helper.to_array(constants[node.input[1]])
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        axis = 0 if node.op_type == "Conv" or attributes.get("transB") else 1
        bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
        if weight.ndim >= 2 and weight.dtype == np.float32 and not attributes.get("transA"):
            found.append(_Layer(node, weight, axis, bias if bias in constants else None))
    first, last = keep_float
    return found[first : len(found) - last]


class _Rewriter:
    """Inserts the Q/DQ nodes; one pair per activation, one int8 tensor per weight."""

    def __init__(self, model: onnx.ModelProto, options: QuantizeOptions) -> None:
        self.graph = model.graph
        self.options = options
        self.activations: dict[str, str] = {}
        self.weights: dict[tuple[str, int], str] = {}
        self.added: list[onnx.NodeProto] = []

    def quantize_layer(self, layer: _Layer, statistics: Statistics) -> None:
        options = self.options
        scales, integers = quantize_weight(layer.weight, layer.axis, options.weight_levels)
        if options.bias_correction and layer.node.op_type == "Conv":
            lost = layer.weight - _times(integers, scales, layer.axis)
            self._correct_bias(layer, lost, statistics)
        name = layer.node.input[1]
        layer.node.input[0] = self._activation(layer.activation, statistics)
        layer.node.input[1] = self._weight(name, layer.axis, scales, integers)

    def finish(self) -> None:
        """Put the new nodes before their users and drop the weights nobody uses any more."""
        nodes = list(self.graph.node)
        del self.graph.node[:]
        produced_by = {output: node for node in self.added for output in node.output}
        placed: set[str] = set()
        for node in nodes:
            for name in node.input:
                self._place(name, produced_by, placed)
            self.graph.node.append(node)
        used = {name for node in self.graph.node for name in node.input}
        kept = [tensor for tensor in self.graph.initializer if tensor.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)

    def _place(
        self, name: str, produced_by: Mapping[str, onnx.NodeProto], placed: set[str]
    ) -> None:
        node = produced_by.get(name)
        if node is None or name in placed:
            return
        placed.add(name)
        for below in node.input:
            self._place(below, produced_by, placed)
        self.graph.node.append(node)

    def _activation(self, name: str, statistics: Statistics) -> str:
        if name not in self.activations:
            limit = statistics.limit(self.options.method, self.options.percentile)
            scale, zero = f"{name}_scale", self._zero()
            self._constant(scale, np.array(limit / _LEVELS, np.float32))
            self._node("QuantizeLinear", [name, scale, zero], f"{name}_int8")
            self._node("DequantizeLinear", [f"{name}_int8", scale, zero], f"{name}_dequantized")
            self.activations[name] = f"{name}_dequantized"
        return self.activations[name]

    def _weight(self, name: str, axis: int, scales: np.ndarray, integers: np.ndarray) -> str:
        if (name, axis) not in self.weights:
            stem = f"{name}_axis{axis}"
            self._constant(f"{stem}_int8", integers)
            self._constant(f"{stem}_scale", scales)
            self._constant(f"{stem}_zero", np.zeros(len(scales), np.int8))
            inputs = [f"{stem}_int8", f"{stem}_scale", f"{stem}_zero"]
            self._node("DequantizeLinear", inputs, f"{stem}_dequantized", axis=axis)
            self.weights[name, axis] = f"{stem}_dequantized"
        return self.weights[name, axis]

    def _correct_bias(self, layer: _Layer, lost: np.ndarray, statistics: Statistics) -> None:
        """Give the bias what the rounded weights lose on the average input of each channel."""
        node = layer.node
        per_channel = lost.reshape(*lost.shape[:2], -1).sum(-1)
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        outputs = lost.shape[0]
        means = statistics.channel_mean.reshape(groups, -1).repeat(outputs // groups, axis=0)
        correction = (per_channel * means).sum(1).astype(np.float32)
        bias = np.zeros(outputs, np.float32)
        if layer.bias is not None:
            bias = next(
                numpy_helper.to_array(t) for t in self.graph.initializer if t.name == layer.bias
            )
        elif len(node.input) > 2 and node.input[2]:
            return  # a computed bias cannot be corrected
        name = f"{node.output[0]}_bias"
        self._constant(name, bias + correction)
        del node.input[2:]
        node.input.append(name)

    def _zero(self) -> str:
        if not any(tensor.name == "int8_zero" for tensor in self.graph.initializer):
            self._constant("int8_zero", np.array(0, np.int8))
        return "int8_zero"

    def _constant(self, name: str, value: np.ndarray) -> None:
        self.graph.initializer.append(numpy_helper.from_array(value, name))

    def _node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        self.added.append(helper.make_node(kind, inputs, [output], name=output, **attributes))


def quantize_weight(
    weight: np.ndarray, axis: int, levels: int = _LEVELS
) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric per-channel int8: scales (channels,) float32 and integers of the weight's shape."""
    others = tuple(a for a in range(weight.ndim) if a != axis)
    limits = np.abs(weight).max(axis=others)
    # A channel of zeros gets a scale that no runtime rounds to nothing.
    scales = (np.where(limits > 0, limits, 1.0) / levels).astype(np.float32)
    integers = np.rint(weight / _along(scales, weight.ndim, axis)).clip(-levels, levels)
    return scales, integers.astype(np.int8)


def _times(integers: np.ndarray, scales: np.ndarray, axis: int) -> np.ndarray:
    return integers.astype(np.float32) * _along(scales, integers.ndim, axis)


def _along(values: np.ndarray, ndim: int, axis: int) -> np.ndarray:
    shape = [1] * ndim
    shape[axis] = -1
    return values.reshape(shape)
