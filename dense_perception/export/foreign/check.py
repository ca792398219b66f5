"""Does the artefact say what the graph of others says, with its pipeline around it in NumPy?

In two steps, so that a graph that enlarges rounding is judged fairly: what enters the foreign graph
is held against NumPy's preparation, then what comes out against NumPy's answers to that very input.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from onnx import helper

from dense_perception.backends.self_check import frames_of
from dense_perception.core.difference import Difference
from dense_perception.core.errors import ArtefactError, InputError
from dense_perception.export.foreign.inspect import ForeignGraph
from dense_perception.export.foreign.recipe import Recipe
from dense_perception.export.foreign.reference import Arrays, GraphRun, answers, graph_input
from dense_perception.export.foreign.wrap import ENTRY

LIMIT = 1e-4
"""How far the artefact's answers may be from the foreign pipeline's, of their range."""
FP16_LIMIT = 5e-3
"""The same of an fp16 graph: ONNX Runtime on a CPU drops roundings to fp16 where it can."""
_ENTRY_LIMITS = {"float64": 1e-5, "float32": 1e-5, "float16": 2e-3}
"""By kind of the input, over its largest value; whole numbers are the same."""
# Of pixels: rounding also decides what is below the threshold, and which label is nearest.
_LABELS_APART = 1e-3


def check_artefact(
    graph: ForeignGraph, recipe: Recipe, model: onnx.ModelProto, feeds: Arrays
) -> tuple[dict[str, np.ndarray], Difference]:
    """What the artefact ought to answer to ``feeds``, and how far its answers are from that.

    :raises ArtefactError: if they are further than rounding explains.
    :raises InputError: if ONNX Runtime refuses one of the graphs.
    """
    picture = recipe.picture
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(picture.kind))
    watched.graph.output.append(helper.make_tensor_value_info(ENTRY, kind, None))
    artefact = GraphRun(watched, name="the wrapped graph")
    original = GraphRun(graph.model, name=str(graph.path))
    wanted: list[dict[str, np.ndarray]] = []
    worst = Difference(0.0, 0.0)
    for frame in frames_of(feeds):
        got = artefact(frame)
        entry = got.pop(ENTRY)
        _check_entry(graph, recipe, entry, frame["image"])
        height, width = frame["image"].shape[1:3]
        outputs = original({picture.name: entry})
        want = answers(recipe, outputs, height, width, got.get("labels"))
        worst = Difference.worst([worst, *_differences(graph, got, want)])
        wanted.append(want)
    limit = FP16_LIMIT if graph.precision == "fp16" else LIMIT
    if worst.max_of_range > limit:
        raise ArtefactError(
            f"the wrapped graph of {graph.path} answers otherwise than the graph itself, by "
            f"{worst.max_of_range:.1e} of the range, allowed are {limit:g}: export it with opset "
            "18 or above, and report this graph"
        )
    return {name: np.concatenate([each[name] for each in wanted]) for name in wanted[0]}, worst


def takes_batches(model: onnx.ModelProto, feeds: Arrays) -> bool:
    """Whether the graph answers to two pictures at once as to each alone."""
    pair = {name: array[:2] for name, array in feeds.items()}
    try:
        artefact = GraphRun(model)
        both = artefact(pair)
        single = [artefact(frame) for frame in frames_of(pair)]
    except InputError:
        return False
    return all(
        Difference.between(array, np.concatenate([each[name] for each in single])).max_of_range
        <= LIMIT
        for name, array in both.items()
    )


def takes_another_size(
    graph: ForeignGraph, recipe: Recipe, model: onnx.ModelProto, feeds: Arrays
) -> bool:
    """Whether the wrapped graph is right at another size, too: the picture cut or repeated."""
    spec = recipe.input
    height, width = spec.height + spec.multiple, spec.width + 3 * spec.multiple
    image = np.pad(
        feeds["image"][:1],
        ((0, 0), (0, height - spec.height), (0, width - spec.width), (0, 0)),
        mode="wrap",
    )
    try:
        other = replace(recipe, input=replace(spec, height=height, width=width))
        check_artefact(graph, other, model, {"image": image})
    except (ArtefactError, InputError):
        return False
    return True


def _check_entry(
    graph: ForeignGraph, recipe: Recipe, entry: np.ndarray, image_nhwc: np.ndarray
) -> None:
    want = graph_input(recipe.picture, image_nhwc)
    error = np.abs(entry.astype(np.float64) - want.astype(np.float64)).max()
    limit = _ENTRY_LIMITS.get(recipe.picture.kind, 0.0) * max(1.0, float(np.abs(want).max()))
    if entry.shape != want.shape or error > limit:
        raise ArtefactError(
            f"pictures enter {graph.path} otherwise than described, by {error:.1e}: report this "
            "graph"
        )


def _differences(graph: ForeignGraph, got: Arrays, want: Arrays) -> list[Difference]:
    """Of every output; labels may differ at a few pixels."""
    found = []
    for name, array in want.items():
        if got[name].shape != array.shape:
            raise ArtefactError(
                f"the wrapped graph of {graph.path} gives {name} as {got[name].shape}, expected "
                f"{array.shape}: give another --size"
            )
        if name == "labels":
            share = float((got[name] != array).mean())
            found.append(Difference(share if share > _LABELS_APART else 0.0, share))
        else:
            found.append(Difference.between(got[name], array))
    return found
