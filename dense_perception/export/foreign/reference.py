"""The pipeline around a graph of others in NumPy: what the artefact has to answer.

Written apart from :mod:`~dense_perception.export.foreign.wrap`, in float64 where it computes, so
that a mistake in one of them shows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from dense_perception.core.errors import InputError
from dense_perception.core.labels import VOID
from dense_perception.core.printable import short
from dense_perception.export.foreign.recipe import (
    GRAY,
    GRAY_HALF,
    GRAY_WEIGHTS,
    PIXEL_RANGES,
    DepthRecipe,
    LabelRecipe,
    PictureRecipe,
    Recipe,
)

Arrays = Mapping[str, np.ndarray]
_LEAST_INVERSE = 1e-8
_TIE = 1e-6
"""Of the largest score: float32 tells no two apart that are nearer."""


def graph_input(picture: PictureRecipe, image_nhwc: np.ndarray) -> np.ndarray:
    """RGB pixels (N, H, W, 3), 0 to 255, as the graph wants them."""
    low, high = PIXEL_RANGES[picture.pixels]
    values = image_nhwc.astype(np.float64)
    if picture.channels == "BGR":
        values = values[..., ::-1]
    values = (low + values / 255 * (high - low) - np.array(picture.mean)) / np.array(picture.std)
    if picture.channels == GRAY:
        values = values @ np.array(GRAY_WEIGHTS)[:, None]
    if picture.layout == "NCHW":
        values = values.transpose(0, 3, 1, 2)
    if picture.whole:
        values = np.rint(values + (GRAY_HALF if picture.channels == GRAY else 0))
    return np.ascontiguousarray(values.astype(picture.kind))


class GraphRun:
    """A graph in ONNX Runtime, node by node: what it gives for an input.

    :raises InputError: if ONNX Runtime refuses the graph.
    """

    def __init__(self, model: onnx.ModelProto, *, name: str = "the graph") -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        # The same arithmetic in both graphs that are compared.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._name = name
        try:
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # it has a class of its own for each reason
            raise InputError(
                f"ONNX Runtime {onnxruntime.__version__} refuses {name} "
                f"({short(_first_line(error))}): export it again in fp32, with plain ONNX operators"
            ) from error

    def __call__(self, feeds: Arrays) -> dict[str, np.ndarray]:
        outputs = self._session.get_outputs()
        names = [output.name for output in outputs if output.type.startswith("tensor(")]
        try:
            values = self._session.run(names, dict(feeds))
        except Exception as error:  # as above
            shapes = ", ".join(f"{key} {array.shape}" for key, array in feeds.items())
            raise InputError(
                f"{self._name} fails on {shapes} ({short(_first_line(error))}): give another "
                "--size, or export it for this size"
            ) from error
        return dict(zip(names, values, strict=True))


def answers(
    recipe: Recipe,
    outputs: Arrays,
    height: int,
    width: int,
    chosen_nhw: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """What the artefact's outputs have to be, of the foreign ones; by their names.

    Classes may score alike, to rounding: ``chosen_nhw`` are the labels to prefer there.
    """
    found = {}
    maps = {name: with_batch(array) for name, array in outputs.items()}
    if recipe.depth is not None:
        found["depth"] = _depth(recipe.depth, maps, height, width)
    if recipe.labels is not None:
        queries = recipe.labels.scores == "queries"
        found["labels"], found["confidence"] = _labels(
            recipe.labels, outputs if queries else maps, height, width, chosen_nhw
        )
    return found


def with_batch(array: np.ndarray) -> np.ndarray:
    """What a graph gave for one picture, (1, ...): some leave that side out of their classes."""
    return array[None] if array.ndim == 3 and len(array) != 1 else array


def planes(array: np.ndarray, *, channels_last: bool = False) -> np.ndarray:
    """A map (H, W), (N, H, W), or with channels first or last, as (N, C, H, W)."""
    if array.ndim == 2:
        return array[None, None]
    if array.ndim == 3:
        return array[:, None]
    return array.transpose(0, 3, 1, 2) if channels_last else array


def _depth(recipe: DepthRecipe, outputs: Arrays, height: int, width: int) -> np.ndarray:
    array = outputs[recipe.output]
    last = array.ndim == 4 and array.shape[1] != 1
    values = bilinear(planes(array, channels_last=last).astype(np.float64), height, width)[:, 0]
    values = recipe.scale * values + recipe.shift
    if recipe.inverse:
        values = 1 / np.maximum(values, _LEAST_INVERSE)
    return values.astype(np.float32)


def _labels(
    recipe: LabelRecipe,
    outputs: Arrays,
    height: int,
    width: int,
    chosen_nhw: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    first = outputs[recipe.outputs[0]]
    if recipe.scores == "labels":
        last = first.ndim == 4 and recipe.channels_last
        labels = nearest(planes(first, channels_last=last)[:, 0].astype(np.int64), height, width)
        certainty = np.ones(labels.shape)
    else:
        labels, certainty = _chosen(recipe, outputs, height, width, chosen_nhw)
    for label in recipe.void:
        labels = np.where(labels == label, VOID, labels)
    if recipe.threshold:
        labels = np.where(certainty < recipe.threshold, VOID, labels)
    labels = np.where((labels < 0) | (labels > VOID), VOID, labels)
    return labels.astype(np.uint8), np.rint(np.clip(certainty, 0, 1) * 255).astype(np.uint8)


def _chosen(
    recipe: LabelRecipe,
    outputs: Arrays,
    height: int,
    width: int,
    chosen_nhw: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """The best class of each pixel, int64 (N, H, W), and how certain it is."""
    if recipe.scores == "queries":
        classes, masks = (outputs[name].astype(np.float64) for name in recipe.outputs)
        shares = _softmax(classes, -1)[..., :-1]
        inside = _sigmoid(bilinear(masks, height, width))
        scores = np.einsum("nqc,nqhw->nchw", shares, inside)
    else:
        array = outputs[recipe.outputs[0]].astype(np.float64)
        scores = bilinear(planes(array, channels_last=recipe.channels_last), height, width)
    logits = recipe.scores == "logits"
    if scores.shape[1] == 1:
        share = _sigmoid(scores[:, 0]) if logits else scores[:, 0]
        return (share >= 0.5).astype(np.int64), np.maximum(share, 1 - share)
    labels = scores.argmax(axis=1)
    if chosen_nhw is not None:
        labels = _tied(scores, labels, chosen_nhw)
    if logits and recipe.activation == "softmax":
        scores = _softmax(scores, 1)
    elif logits:
        scores = _sigmoid(scores)
    return labels, scores.max(axis=1)


def _tied(scores_nchw: np.ndarray, best_nhw: np.ndarray, chosen_nhw: np.ndarray) -> np.ndarray:
    """The best labels, but those chosen where they are as good."""
    known_nhw = chosen_nhw < scores_nchw.shape[1]
    candidates_nhw = np.where(known_nhw, chosen_nhw, best_nhw).astype(np.int64)
    loss_nhw = (
        scores_nchw.max(axis=1)
        - np.take_along_axis(scores_nchw, candidates_nhw[:, None], axis=1)[:, 0]
    )
    largest = max(float(scores_nchw.max()), -float(scores_nchw.min()))
    return np.where(loss_nhw <= _TIE * largest, candidates_nhw, best_nhw)


def bilinear(array_nchw: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resized, pixel centres at halves, edges repeated: PyTorch's ``align_corners=False``."""
    for axis, size in ((2, height), (3, width)):
        old = array_nchw.shape[axis]
        if old == size:
            continue
        position = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
        first = np.floor(position).astype(np.intp)
        second = np.minimum(first + 1, old - 1)
        share = (position - first).reshape([-1 if each == axis else 1 for each in range(4)])
        one, other = (np.take(array_nchw, index, axis=axis) for index in (first, second))
        array_nchw = one * (1 - share) + other * share
    return array_nchw


def nearest(array_nhw: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resized by the pixel that covers each centre."""
    for axis, size in ((1, height), (2, width)):
        old = array_nhw.shape[axis]
        rows = ((np.arange(size) + 0.5) * old / size).astype(np.intp)
        array_nhw = np.take(array_nhw, rows, axis=axis)
    return array_nhw


def _softmax(array: np.ndarray, axis: int) -> np.ndarray:
    powers = np.exp(array - array.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


def _sigmoid(array: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(array, -60, 60)))


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
