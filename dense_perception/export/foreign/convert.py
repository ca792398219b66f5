"""A graph of others becomes a model folder: opened, settled, wrapped, checked, written."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from dense_perception.core.card import ModelCard
from dense_perception.core.card_specs import DepthSpec, InputSpec, SegmentationSpec
from dense_perception.core.difference import TOLERANCES, Difference
from dense_perception.core.errors import CardError, InputError
from dense_perception.core.printable import short
from dense_perception.core.reference_frames import reference_feeds
from dense_perception.core.storage import file_sha256, real_path
from dense_perception.export.foreign.check import (
    check_artefact,
    takes_another_size,
    takes_batches,
)
from dense_perception.export.foreign.hugging_face import folder_facts, onnx_file_of
from dense_perception.export.foreign.inspect import ForeignGraph, read_graph
from dense_perception.export.foreign.labels import metadata_facts
from dense_perception.export.foreign.options import refuse_surplus
from dense_perception.export.foreign.recipe import PRESETS, Facts, Recipe, laid_over
from dense_perception.export.foreign.reference import (
    Arrays,
    GraphRun,
    graph_input,
    with_batch,
)
from dense_perception.export.foreign.settle_outputs import settle_outputs
from dense_perception.export.foreign.settle_picture import Decision, Settled, settle_picture
from dense_perception.export.foreign.widen import widened
from dense_perception.export.foreign.wrap import wrapped
from dense_perception.export.graph_file import MOST_BYTES, embed_card
from dense_perception.export.model_folder import (
    Exported,
    FolderMaker,
    Plan,
    with_tolerance,
    write_model,
)

UNKNOWN_LICENCE = "unknown, ask its authors"
_OWN_LABELS = "own"
_SHARED_NAMES = ("model", "onnx", "network")
_LONGEST_NAME = 100
_FRAMES = 3
_RUNS = 20
"""Pictures that the checks feed, of original and artefact, in two runtimes."""
_LONG_S = 10.0


@dataclass(frozen=True)
class Opened:
    """A graph of others that is understood: what was settled, its card and its wrapped graph.

    ``arrays`` are what the graph gave for one reference frame, ``feeds`` the artefact's frames.
    """

    graph: ForeignGraph
    recipe: Recipe
    card: ModelCard
    model: onnx.ModelProto
    decisions: Sequence[Decision]
    feeds: Arrays


def open_foreign(
    path: Path,
    given: Facts,
    like: str | None = None,
    *,
    on_step: Callable[[str], None] = lambda step: None,
    on_long: Callable[[str], None] = lambda notice: None,
) -> Opened:
    """Read, settle and wrap the graph of a file, or of a Hugging Face folder.

    ``given`` is what the user said, ``like`` a preset's name. Of what nobody says the graph's
    metadata and the files beside it are asked, then guesses are made. ``on_long`` is told, after
    one picture, where the checks will take long.

    :raises ArtefactError: see :func:`~..inspect.read_graph` and :func:`~..wrap.wrapped`.
    :raises InputError: as these, and if something contradicts the graph or has to be said.
    """
    if like is not None and like not in PRESETS:
        raise InputError(f"--like is {like!r}, expected one of {', '.join(PRESETS)}")
    file = onnx_file_of(path) if path.is_dir() else path
    on_step("read")
    graph = read_graph(file)
    said = [given] if like is None else [given, PRESETS[like]]
    said.append(folder_facts(file, laid_over(said)))
    layers = [*said, metadata_facts(graph.metadata, file, laid_over(said))]
    # Before anything looks into the graph: it may be no graph at all.
    run = GraphRun(graph.model, name=str(file))
    settled = Settled(laid_over(layers))
    settled.note("file", file.name, f"opset {graph.opset}, {_producer(graph)}")
    settled.note("precision", graph.precision, _precision_reason(graph))
    picture, spec = settle_picture(graph, settled)
    on_step("ask it once")
    frame = _frames(spec, 1)["image"]
    start = time.monotonic()
    arrays = run({picture.name: graph_input(picture, frame)})
    run_s = time.monotonic() - start
    if run_s * _RUNS > _LONG_S:
        on_long(
            f"one picture of {spec.width}x{spec.height} takes {run_s:.1f} s here, the checks run "
            f"about {_RUNS}: expect {_in_words(run_s * _RUNS)}; a graph for smaller pictures, or "
            "--size WxH where its sides are free, takes less"
        )
    spec, depth, labels = settle_outputs(
        graph, spec, {name: with_batch(array) for name, array in arrays.items()}, settled
    )
    recipe = Recipe(picture, spec, depth, labels)
    refuse_surplus(given, recipe)
    _refuse_training(graph, recipe)
    _refuse_no_numbers(recipe, arrays)
    if None in graph.picture.shape[1:] and not settled.facts.why("size").startswith("--"):
        _refuse_one_size(recipe, run, arrays, file)
    del run
    feeds = _frames(spec, _FRAMES)
    on_step("wrap")
    recipe, model = _wrapped(graph, recipe, arrays, feeds, settled, on_step)
    on_step("hash")
    card = _card(graph, recipe, settled, file)
    return Opened(graph, recipe, card, model, tuple(settled.decisions), feeds)


def without_own(plan: Plan, precision: str) -> Plan:
    """``plan`` without the precision that the graph has."""
    others = dict.fromkeys(kind for kind in plan.precisions if kind != precision)
    return replace(plan, precisions=tuple(others))


def import_graph(
    opened: Opened,
    output: Path,
    plan: Plan | None = None,
    *,
    overwrite: bool = False,
    on_step: Callable[[str, int], None] = lambda step, more: None,
) -> Exported:
    """Write the model folder of an opened graph, and what ``plan`` wants beside it.

    The artefact is held against the foreign graph with its pipeline in NumPy first. Of ``plan`` the
    precision that the graph has is left out; others of an fp16 graph are made of its weights in
    fp32, which are written, too.

    :raises ArtefactError: if they differ; else see
        :func:`~dense_perception.export.model_folder.write_model`.
    """
    precision = opened.graph.precision
    plan = without_own(plan or Plan(), precision)
    widen = precision == "fp16" and bool(plan.precisions)
    if widen:
        _refuse_too_large(opened.graph, plan.precisions)
        plan = replace(plan, precisions=tuple(dict.fromkeys(("fp32", *plan.precisions))))

    def begin(maker: FolderMaker) -> None:
        maker.on_step("against the original", 0)
        want, _ = check_artefact(opened.graph, opened.recipe, opened.model, maker.feeds)
        model = opened.model
        embed_card(model, with_tolerance(maker.card, TOLERANCES[precision]))
        path = maker.write(model, precision)
        maker.on_step("across runtimes", 0)
        found = maker.compare(path, want, "original", refusable=True)
        maker.warnings += _far_off(found, TOLERANCES[precision])
        maker.warnings += _the_same_everywhere(want)
        if precision != "fp32":
            # Graphs that round coarsely may differ more between runtimes.
            allowed = maker.tolerance(path, precision)
            embed_card(model, with_tolerance(maker.card, allowed))
            path = maker.write(model, precision)
        maker.model = model
        maker.enter(path, precision)
        if widen:
            _enter_widened(maker, want)

    return write_model(
        opened.card,
        output,
        begin,
        plan,
        precision=precision,
        overwrite=overwrite,
        on_step=on_step,
    )


def _refuse_too_large(graph: ForeignGraph, wanted: Sequence[str]) -> None:
    """
    :raises InputError: if an fp16 graph's weights are too many for one file in fp32.
    """
    if 4 * graph.parameters > MOST_BYTES:
        raise InputError(
            f"{' and '.join(wanted)} is made of fp32 weights, which would take "
            f"{4e-9 * graph.parameters:.1f} GB, one ONNX file holds at most 2 GB: import "
            f"{graph.path.name} in fp16 alone"
        )


def _enter_widened(maker: FolderMaker, want: Arrays) -> None:
    """The fp32 file of an fp16 graph, which the others are made of."""
    maker.on_step("fp32 of the fp16 weights", 0)
    maker.model = widened(maker.model)
    card = with_tolerance(replace(maker.card, precision="fp32", files={}), TOLERANCES["fp32"])
    embed_card(maker.model, card)
    path = maker.write(maker.model, "fp32")
    found = maker.compare(path, want, "original", refusable=True)
    maker.warnings += _far_off(found, TOLERANCES["fp16"])
    maker.enter(path, "fp32")


def _refuse_one_size(recipe: Recipe, run: GraphRun, arrays: Arrays, file: Path) -> None:
    """Tracing leaves the example's size in some graphs whose sides claim to be free.

    :raises InputError: if an output has the same size for a larger picture, too.
    """
    spec = recipe.input
    step = max(spec.multiple, 32)
    larger = replace(spec, height=spec.height + step, width=spec.width + step)
    try:
        again = run({recipe.picture.name: graph_input(recipe.picture, _frames(larger, 1)["image"])})
    except InputError:
        return  # it takes one size alone, and fails loudly at others
    for name in recipe.outputs:
        shape = arrays[name].shape
        # Classes of queries have no sides.
        if again[name].shape == shape and not (recipe.labels and len(recipe.labels.outputs) == 2):
            raise InputError(
                f"output {name} of {file.name} stays {'x'.join(map(str, shape))} whatever the "
                "picture's size: the graph was traced for one size, so say that with --size WxH, "
                "or export the network again"
            )


def _refuse_training(graph: ForeignGraph, recipe: Recipe) -> None:
    """
    :raises InputError: if the graph was written down as it is while it learns.
    """
    found = graph.only_in_training(recipe.outputs)
    if found:
        raise InputError(
            f"{graph.path} has {', '.join(found)} as in training, so its answers change from run "
            "to run or with the runtime: export the network in evaluation mode, model.eval()"
        )


def _refuse_no_numbers(recipe: Recipe, arrays: Arrays) -> None:
    """
    :raises InputError: if an output that is taken has NaN or infinite values.
    """
    for name in recipe.outputs:
        share = 1 - float(np.isfinite(arrays[name].astype(np.float64)).mean())
        if share > 0:
            raise InputError(
                f"{share:.0%} of output {name} are NaN or infinite for a plain picture, expected "
                "numbers: look at --pixels, --mean and --std, or export the network in fp32"
            )


def _far_off(found: Mapping[str, Difference], allowed: Difference) -> list[str]:
    """What to say of runtimes whose answers are far from the original's."""
    return [
        f"in {name} the model differs from the original by {difference.max_of_range:.1e} of the "
        f"range (mean {difference.mean_of_range:.1e}), allowed are {allowed.max_of_range:.1e} "
        f"(mean {allowed.mean_of_range:.1e}): "
        + (
            "the network enlarges rounding, look at its answers before you rely on them"
            if name == "onnxruntime"
            else "a node will take another runtime"
        )
        for name, difference in found.items()
        if not difference.within(allowed)
    ]


def _the_same_everywhere(want: Arrays) -> list[str]:
    """What to say of a graph that gives one answer to every picture."""
    count = len(want["labels" if "labels" in want else "depth"])
    if any(np.ptp(array) for array in want.values()):
        if any(np.any(array[1:] != array[:1]) for array in want.values()):
            return []
        what = f"the same answer for {count} different pictures"
    else:
        values = " and ".join(f"{name} {array.flat[0]:.4g}" for name, array in want.items())
        what = f"{values} at every pixel of {count} different pictures"
    return [
        f"the graph gives {what}: its weights may be missing or its pixels out of range; look at "
        "--pixels, --mean, --std and --layout, and try known pictures"
    ]


def _in_words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _wrapped(
    graph: ForeignGraph,
    recipe: Recipe,
    arrays: Arrays,
    feeds: Arrays,
    settled: Settled,
    on_step: Callable[[str], None],
) -> tuple[Recipe, onnx.ModelProto]:
    """The graph for every batch and every size that it is right for."""
    recipe, free = _fixed_unless_whole(recipe, arrays, settled)
    any_batch = graph.picture.shape[0] is None
    model = wrapped(graph, recipe, arrays, any_batch=any_batch)
    on_step("try other sizes and batches")
    if free and not takes_another_size(graph, recipe, model, feeds):
        recipe = _fixed(recipe, "the graph is wrong, or fails, at other sizes", settled)
        model = wrapped(graph, recipe, arrays, any_batch=any_batch)
    if any_batch and not takes_batches(model, feeds):
        any_batch = False
        model = wrapped(graph, recipe, arrays, any_batch=False)
        settled.note("batch", "1", "the graph fails, or answers otherwise, with two pictures")
    elif any_batch:
        settled.note("batch", "free", "two pictures at once give the answers of each")
    else:
        settled.note("batch", "1", "the graph has this batch")
    return recipe, model


def _fixed_unless_whole(recipe: Recipe, arrays: Arrays, settled: Settled) -> tuple[Recipe, bool]:
    """Free sizes need maps that are a whole number of times smaller than the picture."""
    if not recipe.input.free:
        return recipe, False
    labels = recipe.labels
    if labels is not None and labels.scores == "queries":
        return _fixed(recipe, "queries are put together for one size", settled), False
    spec = recipe.input
    for name in recipe.outputs:
        last = labels is not None and labels.channels_last and name in labels.outputs
        array = with_batch(arrays[name])
        height, width = array.shape[1:3] if last and array.ndim == 4 else array.shape[-2:]
        if spec.height % height or spec.width % width:
            return _fixed(recipe, f"{name} is no whole part of the picture", settled), False
    return recipe, True


def _fixed(recipe: Recipe, why: str, settled: Settled) -> Recipe:
    spec = recipe.input
    settled.note("sizes", f"{spec.width}x{spec.height} alone, stretched", why)
    return replace(recipe, input=replace(spec, resize="stretch", multiple=1))


def _frames(spec: InputSpec, count: int) -> dict[str, np.ndarray]:
    card = ModelCard("frames", "imported", "frames", "depth", "Frames alone.", spec)
    return reference_feeds(card, count)


def _card(graph: ForeignGraph, recipe: Recipe, settled: Settled, file: Path) -> ModelCard:
    facts = settled.facts
    licence = facts.licence or UNKNOWN_LICENCE
    settled.note("licence", licence, facts.why("licence") or "nothing says; --licence TEXT")
    name, why = _name(facts, file)
    settled.note("name", name, why)
    tasks = [word for word, on in (("depth", recipe.depth), ("segmentation", recipe.labels)) if on]
    card = ModelCard(
        name=name,
        family="imported",
        variant=facts.family or "onnx",
        task=tasks[0] if len(tasks) == 1 else "multitask",
        summary=f"Imported from {file.name}.",
        input=recipe.input,
        depth=_depth_spec(recipe),
        segmentation=_segmentation_spec(recipe),
        precision=graph.precision,
        cost={"parameters": graph.parameters},
        licence={"weights": licence},
        provenance={
            "imported": {
                "file": file.name,
                "sha256": file_sha256(file),
                "made_by": _producer(graph),
                "opset": graph.opset,
                "settled": {each.what: f"{each.value} ({each.why})" for each in settled.decisions},
            }
        },
    )
    # Through the reader: a card that is written is one that can be read.
    return ModelCard.from_dict(card.to_dict(), f"the card of {file.name}")


def _depth_spec(recipe: Recipe) -> DepthSpec | None:
    depth = recipe.depth
    return DepthSpec(depth.kind, depth.min_m, depth.max_m) if depth is not None else None


def _segmentation_spec(recipe: Recipe) -> SegmentationSpec | None:
    labels = recipe.labels
    if labels is None:
        return None
    if labels.label_set:
        return SegmentationSpec(labels.label_set)
    return SegmentationSpec(_OWN_LABELS, names=labels.names)


def _name(facts: Facts, file: Path) -> tuple[str, str]:
    """The model's name in lower_case_words."""
    if facts.name is not None and facts.why("name").startswith("--"):
        if len(facts.name) > _LONGEST_NAME or not re.fullmatch(
            r"[a-z0-9]+(_[a-z0-9]+)*", facts.name
        ):
            raise CardError(
                f"--name is {short(facts.name)}, expected lower_case_words of at most "
                f"{_LONGEST_NAME} characters"
            )
        return facts.name, "--name"
    folder = real_path(file).parent
    candidates = [file.stem, folder.name, folder.parent.name]
    if facts.name is not None:
        candidates.insert(0, facts.name)
    for candidate in candidates:
        words = re.findall(r"[a-z0-9]+", candidate.lower())
        if words and words != ["model"] and words[0] not in _SHARED_NAMES:
            name = "_".join(words)[:_LONGEST_NAME].rstrip("_")
            return name, "from the file's or the folder's name; --name for another"
    return "imported_model", "the file's name says nothing; --name for another"


def _producer(graph: ForeignGraph) -> str:
    words = f"{graph.model.producer_name} {graph.model.producer_version}".strip()
    return f"made by {words}" if words else "maker unknown"


def _precision_reason(graph: ForeignGraph) -> str:
    if graph.precision == "fp32" and graph.stored != "float32":
        return f"most of its weights are stored as {graph.stored}, the graph says what is computed"
    return {
        "fp32": "its weights are float32",
        "fp16": "most of its weights are float16",
        "int8": "it has quantised layers, which are kept",
    }[graph.precision]
