"""An ONNX file of others, whole: weights inside, functions in place, ONNX's operators alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import TensorProto
from onnx.inliner import inline_local_functions

from dense_perception.core.card import METADATA_KEY
from dense_perception.core.errors import ArtefactError, InputError
from dense_perception.core.printable import short
from dense_perception.core.storage import real_path, refuse_pointer
from dense_perception.export.foreign.file_kinds import other_kind
from dense_perception.export.graph_file import MOST_BYTES

PLAIN_DOMAINS = ("", "ai.onnx")


def open_model(path: Path) -> onnx.ModelProto:
    """Read a model of others, with weights that lie beside it.

    :raises ArtefactError: if the file is missing, no ONNX model, not whole, over 2 GB, one of ours,
        or keeps weights outside of its folder.
    :raises InputError: if it has operators of its own.
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
    return model


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and those within its nodes: the branches of If, the bodies of Loop and Scan."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for below in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from graphs_of(below)


def tensors_of(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Every constant of a graph and of the graphs within its nodes."""
    for each in graphs_of(graph):
        yield from each.initializer
        for node in each.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def _parsed(path: Path) -> onnx.ModelProto:
    try:
        other, size = other_kind(path), path.stat().st_size
    except OSError as error:
        raise ArtefactError(f"cannot read {path}: {error.strerror or error}") from error
    if other is not None:
        what, cure = other
        raise ArtefactError(f"{path} is {what}, not an ONNX model: {cure}")
    if size > MOST_BYTES:
        raise ArtefactError(
            f"{path} has {size / 1e9:.1f} GB, one ONNX file holds at most 2 GB: take the fp16 file"
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
    outside = [t for t in tensors_of(model.graph) if t.data_location == TensorProto.EXTERNAL]
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


def _refuse_own_operators(model: onnx.ModelProto, path: Path) -> None:
    own = sorted(
        {
            f"{node.domain}.{node.op_type}"
            for graph in graphs_of(model.graph)
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
