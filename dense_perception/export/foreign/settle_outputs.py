"""What the outputs of a graph of others mean: said, guessed with the reason, or asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dense_perception.core.card_specs import InputSpec
from dense_perception.core.errors import InputError
from dense_perception.core.labels import LABEL_SETS, VOID
from dense_perception.core.prediction import DepthKind
from dense_perception.core.printable import counted, short
from dense_perception.export.foreign.inspect import ForeignGraph
from dense_perception.export.foreign.labels import METADATA
from dense_perception.export.foreign.recipe import DepthRecipe, LabelRecipe
from dense_perception.export.foreign.reference import Arrays
from dense_perception.export.foreign.settle_picture import Settled

# Outputs whose sides differ from the picture's aspect by more are no maps of it.
_ASPECT = 0.25
_DEPTH_WORDS = ("depth", "disp", "inverse")
_LEAST_M = 1e-3
_SHOWN = 4


def settle_outputs(
    graph: ForeignGraph, spec: InputSpec, arrays: Arrays, settled: Settled
) -> tuple[InputSpec, DepthRecipe | None, LabelRecipe | None]:
    """What the graph gives, from what it gave for a picture of ``spec``'s size.

    :raises InputError: if what was said contradicts that, or cannot be guessed.
    """
    facts = settled.facts
    chosen, why = _chosen_outputs(graph, spec, arrays, settled)
    depth, labels = None, None
    if _are_queries(chosen, arrays):
        labels = _label_recipe(graph, chosen, arrays, spec, settled, why)
    else:
        if len(chosen) > 2:
            raise InputError(
                f"--graph-output names {len(chosen)} outputs, expected one for depth, one for "
                "labels, or both"
            )
        for name in chosen:
            if _is_depth(graph, name, arrays[name], spec, settled, alone=len(chosen) == 1):
                if depth is not None:
                    raise InputError(f"both {' and '.join(chosen)} look like depth: name one")
                depth = _depth_recipe(name, settled, why)
            else:
                if labels is not None:
                    raise InputError(f"both {' and '.join(chosen)} look like labels: name one")
                labels = _label_recipe(graph, (name,), arrays, spec, settled, why)
    if depth is not None:
        restore = facts.restore or "linear"
        settled.note("restore", restore, facts.why("restore") or "the package's usual one")
        spec = replace(spec, restore=restore)
    if labels is None and facts.odd_labels is not None:
        settled.note("names of classes", "left out", facts.odd_labels)
    return spec, depth, labels


def _chosen_outputs(
    graph: ForeignGraph, spec: InputSpec, arrays: Arrays, settled: Settled
) -> tuple[tuple[str, ...], str]:
    facts = settled.facts
    known = ", ".join(f"{name} {_sides(array)}" for name, array in arrays.items())
    if facts.outputs is not None:
        wrong = [name for name in facts.outputs if name not in arrays]
        if wrong:
            raise InputError(
                f"the graph has no output {' or '.join(map(repr, wrong))}, it gives {known}: name "
                "one of these with --graph-output"
            )
        for name in () if _are_queries(facts.outputs, arrays) else facts.outputs:
            if _sides_of_map(arrays[name], spec) is None:
                raise InputError(
                    f"output {name} is {_sides(arrays[name])}, no map of a {spec.width}x"
                    f"{spec.height} picture: name another with --graph-output, of {known}"
                )
        return facts.outputs, facts.why("outputs")
    pair = _queries_among(arrays)
    if pair:
        return pair, "classes and masks of as many queries"
    maps = [name for name, array in arrays.items() if _sides_of_map(array, spec) is not None]
    if len(maps) == 1:
        why = "the only output" if len(arrays) == 1 else "the only output that is a map"
        return (maps[0],), f"{why}: {_sides(arrays[maps[0]])}"
    if not maps:
        raise InputError(
            f"no output of {graph.path.name} is a map of a {spec.width}x{spec.height} picture, it "
            f"gives {known}: boxes and instances are not imported; name it with --graph-output "
            "if one is"
        )
    # An auxiliary head beside the main one, as torchvision's and mmsegmentation's networks have.
    main = [name for name in maps if "aux" not in name.lower()]
    if len(main) == 1:
        return (main[0],), "the only map that is no auxiliary one"
    raise InputError(
        f"{graph.path.name} gives several maps, {known}: choose with --graph-output NAME (one for "
        "depth, one for labels, or both)"
    )


def _sides_of_map(array: np.ndarray, spec: InputSpec) -> tuple[int, int, int, bool] | None:
    """``(channels, height, width, channels_last)`` if it is a map of the picture, else None."""
    if array.ndim == 2:
        tries = [(1, array.shape[0], array.shape[1], False)]
    elif array.ndim == 3:
        tries = [(1, array.shape[1], array.shape[2], False)]
    elif array.ndim == 4:
        _, one, two, three = array.shape
        tries = [(one, two, three, False), (three, one, two, True)]
    else:
        return None
    fitting = []
    for channels, height, width, last in tries:
        down, across = height / spec.height, width / spec.width
        if min(down, across) > 1 / 64 and abs(down / across - 1) <= _ASPECT and down <= 4:
            # Of two readings the one whose sides keep the aspect better, or has fewer channels.
            fitting.append((round(abs(down / across - 1), 2), channels, height, width, last))
    if not fitting:
        return None
    _, channels, height, width, last = min(fitting)
    return channels, height, width, last


def _queries_among(arrays: Arrays) -> tuple[str, str] | None:
    classes = [name for name, array in arrays.items() if array.ndim == 3]
    masks = [name for name, array in arrays.items() if array.ndim == 4]
    pairs = [
        (one, other)
        for one in classes
        for other in masks
        if arrays[one].shape[1] == arrays[other].shape[1] and "class" in one.lower()
    ]
    return pairs[0] if len(pairs) == 1 else None


def _are_queries(chosen: Sequence[str], arrays: Arrays) -> bool:
    shapes = [arrays[name].shape for name in chosen]
    return len(shapes) == 2 and [len(s) for s in shapes] == [3, 4] and shapes[0][1] == shapes[1][1]


def _is_depth(
    graph: ForeignGraph,
    name: str,
    array: np.ndarray,
    spec: InputSpec,
    settled: Settled,
    *,
    alone: bool,
) -> bool:
    facts = settled.facts
    found = _sides_of_map(array, spec)
    channels = found[0] if found else 0
    whole = _is_whole(array) or graph.endings.get(name) == "argmax"
    if facts.task is not None and alone:
        settled.note("task", facts.task, facts.why("task"))
        if facts.task == "depth" and (channels != 1 or whole):
            raise InputError(
                f"output {name} is {array.dtype} {_sides(array)}, which is no depth: expected one "
                "float a pixel; leave --task depth out, or name another --graph-output"
            )
        return facts.task == "depth"
    if whole or channels > 1:
        what = "whole numbers" if whole else f"{channels} channels"
        settled.note("task", "segmentation", f"output {name} has {what}")
        return False
    if any(word in name.lower() for word in _DEPTH_WORDS) or facts.depth_kind is not None:
        why = "--depth-kind" if facts.depth_kind is not None else f"the output is called {name}"
        settled.note("task", "depth", f"{why}, one number a pixel")
        return True
    # Exporters write names of classes into graphs of every task.
    named = facts.labels is not None and not facts.why("labels").startswith(METADATA)
    if facts.scores is not None or named:
        settled.note("task", "segmentation", "labels or their scores were named")
        return False
    raise InputError(
        f"output {name} is one number a pixel, depth or one class's score: say --task depth or "
        "--task segmentation"
    )


def _depth_recipe(name: str, settled: Settled, why: str) -> DepthRecipe:
    facts = settled.facts
    settled.note("depth output", name, why)
    if facts.depth_kind is None:
        raise InputError(
            "whether the depth is metric or relative cannot be told from a graph: say --depth-kind "
            "metric (metres), relative_inverse (as MiDaS, DPT and Depth Anything give it) or "
            "relative, or --like depth_anything_v2 or dpt"
        )
    kind = DepthKind(facts.depth_kind)
    settled.note("depth kind", kind.value, facts.why("depth_kind"))
    scale = 1.0 if facts.depth_scale is None else facts.depth_scale
    shift = facts.depth_shift or 0.0
    inverse = bool(facts.depth_inverse)
    if (scale, shift, inverse) != (1.0, 0.0, False):
        formula = f"{scale:g} * y + {shift:g}"
        why = facts.why("depth_scale") or facts.why("depth_shift") or facts.why("depth_inverse")
        settled.note("depth", f"1 / ({formula})" if inverse else formula, why)
    low, high = 0.0, float("inf")
    if kind is DepthKind.METRIC:
        low, high = facts.depth_range or (_LEAST_M, float("inf"))
        reason = facts.why("depth_range") or "no limit is known; --depth-range MIN MAX"
        settled.note("depth range", f"{low:g} to {high:g} m", reason)
    return DepthRecipe(name, kind, scale, shift, inverse, low, high)


def _label_recipe(
    graph: ForeignGraph,
    names: tuple[str, ...],
    arrays: Arrays,
    spec: InputSpec,
    settled: Settled,
    why: str,
) -> LabelRecipe:
    facts, array = settled.facts, arrays[names[0]]
    settled.note("label output", " and ".join(names), why)
    scores, reason = _scores(graph, names, array, settled)
    settled.note("scores", scores, reason)
    activation = "softmax"
    channels, last = _channels(array, spec, facts.labels)
    if scores in ("logits", "probabilities"):
        # One score a pixel has nothing to be compared with.
        activation = "sigmoid" if channels == 1 else facts.activation or "softmax"
        ending = graph.endings.get(names[0], "")
        if scores == "probabilities" and ending in ("softmax", "sigmoid"):
            settled.note("activation", ending, "the graph ends with it")
        else:
            reason = "one score a pixel" if channels == 1 else facts.why("activation")
            reason = reason or "one class a pixel; --activation sigmoid if classes overlap"
            settled.note("activation", activation, reason)
    classes = channels
    if scores == "queries":
        classes = array.shape[2] - 1
    elif channels == 1:
        classes = 2
    if scores == "labels":
        classes = 2 if array.dtype == bool else graph.classes_of_argmax(names[0])
        settled.note("confidence", "255", "the graph gives labels alone, so all are certain")
    labels, label_set = _names(classes, settled)
    void = facts.void or ()
    _refuse_outside(names[0], array, scores, len(labels), void)
    if void:
        settled.note("void", void, facts.why("void"))
    threshold = facts.threshold or 0.0
    if threshold:
        settled.note("threshold", threshold, facts.why("threshold"))
        if scores == "labels":
            raise InputError("--threshold needs scores, the graph gives labels: leave it out")
    return LabelRecipe(
        names, scores, activation, last, labels, label_set, threshold=threshold, void=void
    )


def _refuse_outside(
    name: str, array: np.ndarray, scores: str, classes: int, void: Sequence[int]
) -> None:
    """
    :raises InputError: if labels or probabilities are none of the known, or void is no label.
    """
    low, high = float(array.min()), float(array.max())
    if scores == "probabilities" and (low < -1e-3 or high > 1 + 1e-3):
        raise InputError(
            f"output {name} gives {low:.3g} to {high:.3g}, expected probabilities of 0 to 1: say "
            "--scores logits"
        )
    if scores != "labels":
        beyond = [label for label in void if label >= classes]
    else:
        known = (array < classes) | (array >= VOID) | np.isin(array, void)
        beyond = np.unique(array[~known]).astype(int).tolist()
        if beyond:
            raise InputError(
                f"output {name} gives the labels {short(beyond)}, expected 0 to {classes - 1}: "
                "name more with --labels, or say --void for those that mean none"
            )
    if beyond:
        raise InputError(f"--void is {short(beyond)}, expected labels of 0 to {classes - 1}")


def _channels(array: np.ndarray, spec: InputSpec, named: Sequence[str] | None) -> tuple[int, bool]:
    """Channels of a map, and whether they come last."""
    found = _sides_of_map(array, spec)
    if array.ndim < 4 or found is None:
        return 1, False
    first, last = array.shape[1], array.shape[3]
    if named is not None and first != last and len(named) in (first, last):
        return len(named), len(named) == last
    channels, _, _, is_last = found
    return channels, is_last


def _scores(
    graph: ForeignGraph, names: tuple[str, ...], array: np.ndarray, settled: Settled
) -> tuple[str, str]:
    facts = settled.facts
    if len(names) == 2:
        return "queries", "the outputs are classes and masks of queries"
    whole = _is_whole(array)
    ending = graph.endings.get(names[0], "")
    if facts.scores is not None:
        if whole and facts.scores != "labels":
            raise InputError(
                f"--scores is {facts.scores}, but {names[0]} gives whole numbers: leave it out"
            )
        return facts.scores, facts.why("scores")
    if whole or ending == "argmax":
        return "labels", f"it gives {array.dtype}" if whole else "the graph ends with ArgMax"
    if ending in ("softmax", "sigmoid"):
        return "probabilities", f"the graph ends with {ending.capitalize()}"
    return "logits", "float, and the graph ends with no softmax, sigmoid or argmax"


def _names(classes: int, settled: Settled) -> tuple[tuple[str, ...], str]:
    """Names by label, and the set they are of."""
    facts = settled.facts
    names = facts.labels
    if names is not None and facts.background and len(names) + 1 == classes:
        names = ("background", *names)
    if names is None and facts.odd_labels is not None:
        raise InputError(f"{facts.odd_labels}, or give --labels FILE")
    if names is None and not classes:
        raise InputError(
            "how many classes the labels have cannot be told from the graph: say --labels FILE, "
            "--labels NUMBER or --labels with a known set, such as cityscapes"
        )
    if names is None:
        two = classes == 2
        names = ("background", "foreground") if two else tuple(f"class_{i}" for i in range(classes))
        why = "nothing names them: --labels FILE"
        for label_set in LABEL_SETS.values():
            if len(label_set.labels) == classes:
                why += f", or --labels {label_set.name} if they are its {classes}"
        settled.note("classes", f"{classes}: {_some(names)}", why)
        return _checked(names), ""
    if classes and len(names) != classes:
        raise InputError(
            f"{len(names)} labels are named ({facts.why('labels')}), the graph gives "
            f"{counted(classes, 'class')}: give a name for each with --labels"
        )
    unique = _distinct(_checked(names))
    known = next((s.name for s in LABEL_SETS.values() if s.labels == unique), "")
    why = facts.why("labels")
    if unique != tuple(names):
        why += "; names that came twice are numbered"
    settled.note("classes", f"{len(unique)}: {_some(unique)}", why)
    return unique, known


def _checked(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) > VOID:
        raise InputError(
            f"the graph has {len(names)} classes, expected at most {VOID}: labels are bytes, and "
            f"{VOID} is void"
        )
    return names


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    found: list[str] = []
    for index, name in enumerate(names):
        text = name.strip() or f"class_{index}"
        number, unique = 2, text
        while unique in found:
            unique, number = f"{text}_{number}", number + 1
        found.append(unique)
    return tuple(found)


def _is_whole(array: np.ndarray) -> bool:
    """Whether it holds whole numbers, or yes and no."""
    return array.dtype.kind in "iub"


def _sides(array: np.ndarray) -> str:
    return "x".join(map(str, array.shape))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= _SHOWN else f"{', '.join(names[:_SHOWN])}, ..."
