"""Puts a graph of others between bytes and answers: what goes in and comes out is the package's.

Before it: cast, normalisation and layout; after it: maps at the picture's size as the package's own
exporter gives them (:mod:`~dense_perception.export.onnx_graph`). The graph itself is left as it is,
raised to the operator set of the package and its names prefixed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dense_perception.core.errors import ArtefactError, InputError
from dense_perception.core.labels import VOID
from dense_perception.core.printable import short
from dense_perception.export.foreign.inspect import ForeignGraph, names_in, needed, weights_of
from dense_perception.export.foreign.open_file import PLAIN_DOMAINS, graphs_of
from dense_perception.export.foreign.recipe import (
    GRAY,
    GRAY_HALF,
    GRAY_WEIGHTS,
    DepthRecipe,
    LabelRecipe,
    Recipe,
)
from dense_perception.export.foreign.reference import Arrays, with_batch
from dense_perception.export.graph_file import FOLDED, OPSET, check, fold_constants, tidy

ENTRY = "picture_for_network"
"""The tensor that enters the foreign graph, for the check."""
_PREFIX, _TAKEN = "network/", "taken/"
_LEAST_INVERSE = 1e-8
_RESIZE_CHANGED = 11
_FLOAT, _UINT8, _INT64 = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT64


def wrapped(
    graph: ForeignGraph, recipe: Recipe, arrays: Arrays, *, any_batch: bool
) -> onnx.ModelProto:
    """The artefact's graph, without its card.

    :param arrays: what the graph gave for one picture of the recipe's size.
    :param any_batch: whether it takes several pictures at once.
    :raises InputError: if it cannot be raised to opset 18.
    :raises ArtefactError: if the result is not valid ONNX.
    """
    inner = _inner(graph, recipe)
    builder = _Builder(recipe, arrays, any_batch)
    builder.before()
    builder.nodes.extend(inner.graph.node)
    builder.constants.extend(inner.graph.initializer)
    builder.after()
    spec = recipe.input
    sides: list[int | str] = [spec.height, spec.width]
    if spec.free:
        sides = ["rows", "columns"]
    batch = "N" if any_batch else 1
    pixels = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
    image = helper.make_tensor_value_info("image", pixels, [batch, *sides, 3])
    outputs = [
        helper.make_tensor_value_info(name, kind, [batch, *sides]) for name, kind in builder.outputs
    ]
    model = helper.make_model(
        helper.make_graph(builder.nodes, "network", [image], outputs, builder.constants),
        opset_imports=[helper.make_opsetid("", _opset(inner))],
    )
    tidy(model)
    if graph.precision != "int8":  # whose pairs of constants must stay
        fold_constants(model, (*FOLDED, "Identity"))
    try:
        check(model)
    except onnx.shape_inference.InferenceError as error:
        raise ArtefactError(
            f"{graph.path} contradicts itself ({short(str(error))}): export it again, with fixed "
            "sizes if they are free"
        ) from error
    return model


def _inner(graph: ForeignGraph, recipe: Recipe) -> onnx.ModelProto:
    """The foreign graph at the package's opset: what the outputs need, under prefixed names."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    del model.metadata_props[:]
    _without_weight_inputs(model)
    if graph.opset < OPSET:
        try:
            model = onnx.version_converter.convert_version(model, OPSET)
        except Exception as error:  # the converter's classes differ between versions
            raise InputError(
                f"{graph.path} has opset {graph.opset} and cannot be raised to {OPSET} "
                f"({short(str(error))}): export it again with opset {OPSET} or above"
            ) from error
        if graph.opset < _RESIZE_CHANGED:
            _resize_as_before(model)
    inner = model.graph
    constants = weights_of(inner)
    kept = [node for node in inner.node if node.op_type != "Constant" or not _has_value(node)]
    nodes = needed(kept, recipe.outputs)
    used = names_in(nodes)
    new = onnx.ModelProto()
    new.opset_import.extend(model.opset_import)
    new.graph.node.extend(nodes)
    new.graph.initializer.extend(t for t in constants if t.name in used)
    _rename(new.graph, {recipe.picture.name: ENTRY})
    return new


def _without_weight_inputs(model: onnx.ModelProto) -> None:
    """Old exporters list weights among the inputs, which the converter takes for variables."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 4)


def _resize_as_before(model: onnx.ModelProto) -> None:
    """Keep resizes of opset 7 to 10 what they were: opset 11 moved pixel centres to halves.

    The converter leaves the new default in place.
    """
    for graph in graphs_of(model.graph):
        for node in graph.node:
            said = {attribute.name for attribute in node.attribute}
            if node.op_type == "Resize" and "coordinate_transformation_mode" not in said:
                node.attribute.append(
                    helper.make_attribute("coordinate_transformation_mode", "asymmetric")
                )
                node.attribute.append(helper.make_attribute("nearest_mode", "floor"))


def _has_value(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "value" for attribute in node.attribute)


def _opset(model: onnx.ModelProto) -> int:
    return max(each.version for each in model.opset_import if each.domain in PLAIN_DOMAINS)


def _rename(graph: onnx.GraphProto, given: dict[str, str]) -> None:
    """Prefix every name, in the graphs within nodes too, but for those in ``given``."""

    def renamed(name: str) -> str:
        return given.get(name, f"{_PREFIX}{name}") if name else name

    for tensor in graph.initializer:
        tensor.name = renamed(tensor.name)
    for value in (*graph.input, *graph.output):
        value.name = renamed(value.name)
    del graph.value_info[:]
    for index, node in enumerate(graph.node):
        node.name = f"{_PREFIX}{node.name or f'{node.op_type}_{index}'}"
        for names in (node.input, node.output):
            new = [renamed(name) for name in names]
            del names[:]
            names.extend(new)
        for attribute in node.attribute:
            for below in (attribute.g, *attribute.graphs):
                if below.node:
                    _rename(below, given)


class _Builder:
    """Nodes, constants and outputs around the foreign graph, in order."""

    def __init__(self, recipe: Recipe, arrays: Arrays, any_batch: bool) -> None:
        self.recipe = recipe
        self.raw = arrays
        self.arrays = {name: with_batch(array) for name, array in arrays.items()}
        self.any_batch = any_batch
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []
        self.outputs: list[tuple[str, int]] = []

    def add(
        self, kind: str, inputs: Sequence[str], output: str, **attributes: int | str | list[int]
    ) -> str:
        node = helper.make_node(kind, inputs, [output], name=output)
        node.attribute.extend(
            helper.make_attribute(name, value) for name, value in sorted(attributes.items())
        )
        self.nodes.append(node)
        return output

    def constant(self, name: str, value: object, kind: type = np.float32) -> str:
        if name not in {tensor.name for tensor in self.constants}:
            self.constants.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def cast(self, source: str, kind: int, output: str) -> str:
        return self.add("Cast", [source], output, to=kind)

    def before(self) -> None:
        """``image`` to :data:`ENTRY`."""
        picture = self.recipe.picture
        target = helper.np_dtype_to_tensor_dtype(np.dtype(picture.kind))
        # TensorRT takes a byte input only if the cast comes first.
        name = self.cast("image", _FLOAT, "pixels")
        if picture.channels == "BGR":
            order = self.constant("bgr", [2, 1, 0], np.int64)
            name = self.add("Gather", [name, order], "swapped", axis=3)
        if not picture.whole:
            name = self.add("Mul", [name, self.constant("gain", picture.gain)], "scaled")
            name = self.add("Add", [name, self.constant("offset", picture.offset)], "normalised")
        if picture.channels == GRAY:
            # No MatMul: that would count as the network's first layer, and be quantised.
            name = self.add("Mul", [name, self.constant("gray_weights", GRAY_WEIGHTS)], "shares")
            name = self.add("ReduceSum", [name, self.constant("last_axis", [3], np.int64)], "gray")
            if picture.whole:
                half = self.constant("gray_half", GRAY_HALF)
                name = self.add("Add", [name, half], "gray_up")
                name = self.add("Round", [name], "gray_rounded")
        if picture.layout == "NCHW":
            name = self.add("Transpose", [name], "planes", perm=[0, 3, 1, 2])
        if target != _FLOAT:
            self.cast(name, target, ENTRY)
        else:
            self.add("Identity", [name], ENTRY)

    def after(self) -> None:
        """The foreign outputs to the package's."""
        if self.recipe.depth is not None:
            self._depth(self.recipe.depth)
        if self.recipe.labels is not None:
            self._labels(self.recipe.labels)

    def _planes(self, output: str, *, channels_last: bool) -> str:
        """A foreign map as float (N, C, H, W)."""
        array = self.arrays[output]
        name = f"{_PREFIX}{output}"
        if array.dtype != np.float32:
            name = self.cast(name, _FLOAT, f"{_TAKEN}{output}_float")
        if self.raw[output].ndim < array.ndim:
            axes = self.constant("first", [0], np.int64)
            name = self.add("Unsqueeze", [name, axes], f"{_TAKEN}{output}_batch")
        if array.ndim == 2:
            axes = self.constant("first_two", [0, 1], np.int64)
            return self.add("Unsqueeze", [name, axes], f"{_TAKEN}{output}_planes")
        if array.ndim == 3:
            axes = self.constant("second", [1], np.int64)
            return self.add("Unsqueeze", [name, axes], f"{_TAKEN}{output}_planes")
        if channels_last:
            return self.add("Transpose", [name], f"{_TAKEN}{output}_planes", perm=[0, 3, 1, 2])
        return name

    def _resized(self, name: str, sides: tuple[int, int], *, smooth: bool) -> str:
        """At the picture's size, if the map has another."""
        spec = self.recipe.input
        if sides == (spec.height, spec.width):
            return name
        scales = [_scale(sides[0], spec.height), _scale(sides[1], spec.width)]
        given = ["", self.constant(f"{name}_scales", [1, 1, *scales])]
        if smooth:
            method = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        else:
            method = {
                "mode": "nearest",
                "coordinate_transformation_mode": "half_pixel",
                "nearest_mode": "round_prefer_ceil",
            }
        return self.add("Resize", [name, *given], f"{name}_resized", **method)

    def _depth(self, recipe: DepthRecipe) -> None:
        array = self.arrays[recipe.output]
        last = array.ndim == 4 and array.shape[1] != 1
        name = self._planes(recipe.output, channels_last=last)
        name = self._resized(name, _map_sides(array, channels_last=last), smooth=True)
        axis = self.constant("second", [1], np.int64)
        steps: list[tuple[str, str | None, float]] = []
        if recipe.scale != 1:
            steps.append(("Mul", "depth_scale", recipe.scale))
        if recipe.shift:
            steps.append(("Add", "depth_shift", recipe.shift))
        if recipe.inverse:
            steps += [("Max", "depth_least", _LEAST_INVERSE), ("Reciprocal", None, 0)]
        for kind, constant, value in steps:
            inputs = [name] if constant is None else [name, self.constant(constant, value)]
            name = self.add(kind, inputs, f"depth_{kind.lower()}")
        self.add("Squeeze", [name, axis], "depth")
        self.outputs.append(("depth", _FLOAT))

    def _labels(self, recipe: LabelRecipe) -> None:
        first = self.arrays[recipe.outputs[0]]
        if recipe.scores == "labels":
            last = first.ndim == 4 and recipe.channels_last
            name = self._planes(recipe.outputs[0], channels_last=last)
            name = self._resized(name, _map_sides(first, channels_last=last), smooth=False)
            name = self.add("Squeeze", [name, self.constant("second", [1], np.int64)], "chosen")
            share = self.add("Mul", [name, self.constant("none", 0)], "no_label")
            share = self.add("Add", [share, self.constant("all", 1)], "certainty")
            if np.issubdtype(first.dtype, np.signedinteger) or first.dtype.kind == "f":
                negative = self.add("Less", [name, self.constant("none", 0)], "is_negative")
                void = self.constant("void_float", VOID)
                name = self.add("Where", [negative, void, name], "counted")
            label = self.cast(name, _INT64, "label")
        else:
            label, share = self._chosen(recipe)
        void = self.constant("void", VOID, np.int64)
        for each in recipe.void:
            which = self.constant(f"void_{each}", each, np.int64)
            test = self.add("Equal", [label, which], f"is_void_{each}")
            label = self.add("Where", [test, void, label], f"label_but_{each}")
        if recipe.threshold:
            least = self.constant("threshold", recipe.threshold)
            test = self.add("Less", [share, least], "is_unsure")
            label = self.add("Where", [test, void, label], "label_if_sure")
        self.cast(label, _UINT8, "labels")
        self._in_bytes(share)
        self.outputs += [("labels", _UINT8), ("confidence", _UINT8)]

    def _chosen(self, recipe: LabelRecipe) -> tuple[str, str]:
        """The best class of each pixel, int64, and its probability."""
        scores, classes = self._scores(recipe)
        axis = self.constant("second", [1], np.int64)
        logits = recipe.scores == "logits"
        if classes == 1:
            share = self.add("Squeeze", [scores, axis], "score")
            if logits:
                share = self.add("Sigmoid", [share], "share")
            test = self.add("GreaterOrEqual", [share, self.constant("half", 0.5)], "is_there")
            label = self.cast(test, _INT64, "label")
            other = self.add("Sub", [self.constant("all", 1), share], "rest")
            return label, self.add("Max", [share, other], "certainty")
        best = self.add("ReduceMax", [scores, axis], "best", keepdims=1)
        label = self.add("ArgMax", [scores], "label", axis=1, keepdims=0)
        if logits and recipe.activation == "softmax":
            # The softmax of the best class alone, without the others'.
            lower = self.add("Sub", [scores, best], "below_best")
            powers = self.add("Exp", [lower], "powers")
            total = self.add("ReduceSum", [powers, axis], "total", keepdims=0)
            return label, self.add("Reciprocal", [total], "certainty")
        share = self.add("Squeeze", [best, axis], "best_score")
        if logits:
            share = self.add("Sigmoid", [share], "certainty")
        return label, share

    def _scores(self, recipe: LabelRecipe) -> tuple[str, int]:
        """Float (N, C, H, W) at the picture's size, and C."""
        if recipe.scores == "queries":
            return self._scores_of_queries(recipe)
        array = self.arrays[recipe.outputs[0]]
        name = self._planes(recipe.outputs[0], channels_last=recipe.channels_last)
        sides = _map_sides(array, channels_last=recipe.channels_last)
        channels = 1
        if array.ndim == 4:
            channels = array.shape[3 if recipe.channels_last else 1]
        return self._resized(name, sides, smooth=True), channels

    def _scores_of_queries(self, recipe: LabelRecipe) -> tuple[str, int]:
        """A class's score is the sum over queries of the class's share times the mask's."""
        spec = self.recipe.input
        classes, masks = (self.arrays[name] for name in recipe.outputs)
        names = []
        for output, array in zip(recipe.outputs, (classes, masks), strict=True):
            name = f"{_PREFIX}{output}"
            if array.dtype != np.float32:
                name = self.cast(name, _FLOAT, f"{_TAKEN}{output}_float")
            names.append(name)
        shares = self.add("Softmax", [names[0]], "class_shares", axis=-1)
        ends = [
            self.constant(name, value, np.int64)
            for name, value in (("begin", [0]), ("end", [-1]), ("last", [-1]))
        ]
        # The last class is that of queries which found nothing.
        shares = self.add("Slice", [shares, *ends], "known_shares")
        shares = self.add("Transpose", [shares], "shares_by_class", perm=[0, 2, 1])
        inside = self._resized(names[1], (masks.shape[2], masks.shape[3]), smooth=True)
        inside = self.add("Sigmoid", [inside], "mask_shares")
        flat = self.constant("flat", [0, 0, -1], np.int64)
        inside = self.add("Reshape", [inside, flat], "mask_rows")
        scores = self.add("MatMul", [shares, inside], "class_rows")
        shape = self.constant("image_sides", [0, 0, spec.height, spec.width], np.int64)
        return self.add("Reshape", [scores, shape], "class_scores"), classes.shape[2] - 1

    def _in_bytes(self, share: str) -> None:
        """0 to 1 as 0 to 255."""
        limits = [self.constant("none", 0), self.constant("all", 1)]
        share = self.add("Clip", [share, *limits], "certainty_limited")
        share = self.add("Mul", [share, self.constant("whole_byte", 255)], "certainty_bytes")
        share = self.add("Round", [share], "certainty_rounded")
        self.cast(share, _UINT8, "confidence")


def _map_sides(array: np.ndarray, *, channels_last: bool) -> tuple[int, int]:
    if array.ndim == 4 and channels_last:
        return array.shape[1], array.shape[2]
    return array.shape[-2], array.shape[-1]


def _scale(old: int, new: int) -> np.float32:
    """The factor from which a runtime computes ``new``, rounding down."""
    scale = np.float32(new / old)
    while old * float(scale) < new:  # exact; rounded to 32 bits it is no smaller
        scale = np.nextafter(scale, np.float32(np.inf))
    return scale
