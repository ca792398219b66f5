"""ONNX graphs as files: checked, tidied, with their card inside; without PyTorch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from dense_perception.backends.base import promised
from dense_perception.core.card import METADATA_KEY, ModelCard
from dense_perception.core.errors import ArtefactError
from dense_perception.core.printable import short
from dense_perception.core.storage import atomic_write

OPSET = 18
# ONNX Runtime 1.17 reads no newer file format, and opset 18 needs none.
IR_VERSION = 9
MOST_BYTES = (2 << 30) - (1 << 20)
"""A protobuf message cannot be larger than 2 GB; the rest of a file needs a little of it."""
FOLDED = ("Split", "Slice", "Transpose", "Unsqueeze", "Squeeze")


def output_names(card: ModelCard) -> list[str]:
    """The graph's outputs in their order: the card's, labels followed by their confidence."""
    return [spec.name for spec in promised(card)[1]]


def feed_names(card: ModelCard) -> Sequence[str]:
    return ("image", "focal_px") if card.input.focal else ("image",)


def embed_card(model: onnx.ModelProto, card: ModelCard) -> None:
    """Make ``card`` the one the file carries."""
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {METADATA_KEY: card.embedded_json()})


def tidy(model: onnx.ModelProto) -> None:
    """Remove what says where and how the file was made: source paths, stack traces, scopes."""
    graph = model.graph
    graph.name, graph.doc_string, model.doc_string = "network", "", ""
    model.producer_name, model.producer_version = "dense_perception", ""
    model.ir_version = IR_VERSION
    del model.functions[:]
    del graph.metadata_props[:]
    for items in (graph.node, graph.input, graph.output, graph.initializer, graph.value_info):
        for item in items:
            item.doc_string = ""
            del item.metadata_props[:]


def check(model: onnx.ModelProto) -> None:
    """The ONNX checker with full shape inference.

    :raises ArtefactError: if the graph is not valid or not whole.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ArtefactError(f"the graph is not valid ONNX: {short(str(error))}") from error
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise ArtefactError(f"weight {tensor.name} is outside the file: export it again")


def write_onnx(model: onnx.ModelProto, path: Path) -> None:
    """Write the file whole or not at all.

    :raises ArtefactError: if it cannot be written.
    """
    try:
        with atomic_write(path) as stream:
            stream.write(model.SerializeToString(deterministic=True))
    except OSError as error:
        raise ArtefactError(f"cannot write {path}: {error.strerror or error}") from error


def fold_constants(model: onnx.ModelProto, kinds: Collection[str] = FOLDED) -> None:
    """Replace nodes of these kinds whose inputs are all constant; in place."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {output.name for output in graph.output}
    folded = []
    for node in graph.node:
        given = [name for name in node.input if name]
        foldable = (
            node.op_type in kinds
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
