"""A module and its card become one ONNX file with pre- and post-processing inside.

Inputs ``image`` (N, H, W, 3) RGB, uint8 or float32 as the card says, 0 to 255 in both, and, for a
focal-aware model, ``focal_px`` float32 (N,).
Outputs, as the card promises them: ``depth`` float32 (N, H, W); ``labels`` and ``confidence`` uint8
(N, H, W), the best class and its probability in units of 1/255; ``normals`` float32 (N, H, W, 3)
unit vectors; ``edges``, ``keypoints`` and ``reshading`` uint8 (N, H, W), 0 to 1 in units of 1/255.
Of instances, with M rows (the card's ``count``): ``boxes`` float32 (N, M, 4), ``box_scores``
float32 and ``box_classes`` uint8 (N, M), ``instance_ids`` uint8 or uint16 (N, H, W), ``masks``
uint8 (N, M, H, W). The network gives them under these names, ids as whole numbers and masks from 0
to 1; one of panoptic labels gives ``labels`` and ``confidence``, from 0 to 1, not ``logits``.
N is free, H and W are the card's, or free too where the card's rule gives several sizes. Of windows
that the card slides over a picture the graph gives ``scores`` float32 (N, classes, rows, columns).
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol, cast

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from dense_perception.backends.self_check import Arrays, frames_of
from dense_perception.core.card import ModelCard
from dense_perception.core.card_specs import InstancesSpec
from dense_perception.core.errors import ArtefactError, CardError
from dense_perception.core.instance_lists import BOXES, CLASSES, IDS, MASKS, SCORES
from dense_perception.core.labels import folded
from dense_perception.core.prediction import GRAY_MAPS, DepthKind
from dense_perception.core.printable import counted
from dense_perception.export.graph_file import (
    MOST_BYTES,
    OPSET,
    check,
    embed_card,
    feed_names,
    fold_constants,
    output_names,
    tidy,
)
from dense_perception.nets.positions import fix_positions
from dense_perception.nets.sliding_window import SlidingWindow
from dense_perception.nets.zoo import normalisation

_LARGEST_BATCH = 4096
_LARGEST_SIDE = 8192


class ExportedGraph(nn.Module):
    """What the file computes: bytes to normalised NCHW, the network, the named outputs."""

    def __init__(self, network: nn.Module, card: ModelCard) -> None:
        super().__init__()
        scored = card.segmentation is not None and card.segmentation.scores > 0
        self.network = _Scores(network) if scored else _windowed(network, card)
        self.focal = card.input.focal
        self.names = output_names(card)
        self.things = card.instances
        mean, std = normalisation(card.network)
        self.register_buffer("gain", torch.tensor([1 / (255 * s) for s in std]))
        self.register_buffer(
            "offset", torch.tensor([-m / s for m, s in zip(mean, std, strict=True)])
        )
        self.gain: Tensor
        self.offset: Tensor

    def forward(self, image: Tensor, focal_px: Tensor | None = None) -> tuple[Tensor, ...]:
        # TensorRT takes a byte input only if the cast comes first: a transpose of bytes is refused.
        image_nhwc = image.to(self.gain.dtype) * self.gain + self.offset
        # Contiguous: PyTorch's group norm of channels-last tensors is off by up to 1e-3 on a CPU.
        image_nchw = image_nhwc.permute(0, 3, 1, 2).contiguous()
        outputs = self.network(image_nchw, focal_px) if self.focal else self.network(image_nchw)
        found: dict[str, Tensor] = {}
        if "labels" in self.names and "logits" in outputs:
            found["labels"], found["confidence"] = _classified(outputs["logits"])
        elif "labels" in self.names:
            found["labels"] = outputs["labels"].to(torch.uint8)
            found["confidence"] = _in_bytes(outputs["confidence"])
        if "scores" in self.names:
            found["scores"] = outputs["scores"]
        if "depth" in self.names:
            found["depth"] = outputs["depth"]
        if "normals" in self.names:
            found["normals"] = outputs["normals"].permute(0, 2, 3, 1)
        for name in (*GRAY_MAPS, MASKS):
            if name in self.names:
                found[name] = _in_bytes(outputs[name])
        if self.things is not None:
            _check_lists(outputs, self.things)
            found[BOXES], found[SCORES] = outputs[BOXES], outputs[SCORES]
            found[CLASSES] = outputs[CLASSES].to(torch.uint8)
        if self.things is not None and self.things.has_ids:
            found[IDS] = outputs[IDS].to(getattr(torch, self.things.id_type))
        return tuple(found[name] for name in self.names)


def _check_lists(outputs: Mapping[str, Tensor], things: InstancesSpec) -> None:
    """
    :raises CardError: if the network has other rows than the card promises.
    """
    rows = outputs[BOXES].shape[1]
    if rows != things.count:
        raise CardError(
            f"the card's instances.count is {things.count}, the network gives {rows} boxes: "
            "correct the card"
        )


class _WithScores(Protocol):
    def scores(self, image_nchw: Tensor) -> Tensor: ...


class _Scores(nn.Module):
    """The network's scores before they are enlarged to the image."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_nchw: Tensor) -> dict[str, Tensor]:
        # PyTorch takes every attribute of a module for a tensor or a module.
        return {"scores": cast(_WithScores, self.network).scores(image_nchw)}


def _classified(logits_nkhw: Tensor) -> tuple[Tensor, Tensor]:
    """Labels and confidence in bytes; the softmax of the best class alone, without the others'."""
    best_nhw, label_nhw = logits_nkhw.max(dim=1)
    certainty_nhw = 1 / torch.exp(logits_nkhw - best_nhw.unsqueeze(1)).sum(dim=1)
    return label_nhw.to(torch.uint8), _in_bytes(certainty_nhw)


def _in_bytes(share_nhw: Tensor) -> Tensor:
    """0 to 1 as 0 to 255."""
    return torch.round(share_nhw.clamp(0, 1) * 255).to(torch.uint8)


def prepare(
    network: nn.Module, card: ModelCard, frames: int
) -> tuple[ExportedGraph, dict[str, Tensor]]:
    """What is exported, in fp32 and for inference, and example inputs of that many frames.

    :raises CardError: if the card contradicts the network (focal length, depth kind or range).
    :raises InputError: if the network cannot take the card's size.
    """
    _check(network, card)
    exported = ExportedGraph(_folded(network), card).eval()
    height, width = card.input.height, card.input.width
    if card.input.free and height == width:
        width += card.input.multiple  # equal sides would be taken for one and the same
    pixels = torch.from_numpy(np.zeros((frames, height, width, 3), card.input.dtype))
    example = {"image": pixels}
    if card.input.focal:
        example["focal_px"] = torch.full((frames,), float(width))
    if not card.input.free:
        with torch.no_grad():
            # No runtime needs to resize a position table that never changes.
            fix_positions(exported, *(tensor[:1] for tensor in example.values()))
    return exported, example


def to_onnx(
    network: nn.Module, card: ModelCard, on_step: Callable[[str], None] = lambda step: None
) -> onnx.ModelProto:
    """Export ``network`` in fp32 under ``card``, checked, weights and card inside.

    :param on_step: told what is done next.
    :raises ArtefactError: if the weights are too many for one file.
    :raises CardError: if the card contradicts the network (focal length, depth kind or range).
    :raises InputError: if the network cannot take the card's size.
    """
    weights = sum(parameter.numel() for parameter in network.parameters())
    if 4 * weights > MOST_BYTES:
        raise ArtefactError(
            f"{card.name} has {weights / 1e6:.1f} million weights, {4e-9 * weights:.1f} GB in "
            "fp32; one ONNX file holds at most 2 GB: take a smaller variant"
        )
    from dense_perception.export.simplify import simplify  # needs what the exporter needs

    shapes: dict[str, dict[int, torch.export.Dim]] = {
        "image": {0: torch.export.Dim("N", min=1, max=_LARGEST_BATCH)}
    }
    if card.input.focal:
        shapes["focal_px"] = dict(shapes["image"])
    if card.input.free:
        most = _LARGEST_SIDE // card.input.multiple
        for axis, name in ((1, "rows"), (2, "columns")):
            side = torch.export.Dim(name, min=2, max=most)
            shapes["image"][axis] = card.input.multiple * side
    with _quiet(), torch.no_grad():
        # Two frames: a batch of one would be taken for a constant. Errors that name a cure come
        # from here and must not drown in the exporter's report.
        exported, example = prepare(network, card, frames=2)
        on_step("trace")
        program = torch.onnx.export(
            exported,
            tuple(example.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(example),
            output_names=output_names(card),
            dynamic_shapes=shapes,
            external_data=False,
            verbose=False,
            optimize=False,
        )
        assert program is not None
        on_step("simplify")
        simplify(program.model)
    on_step("write")
    model = program.model_proto
    tidy(model)
    fold_constants(model)
    embed_card(model, card)
    check(model)
    return model


def torch_outputs(
    network: nn.Module,
    card: ModelCard,
    feeds: Arrays,
    *,
    double: bool = False,
    on_frame: Callable[[int], None] = lambda frame: None,
) -> dict[str, np.ndarray]:
    """What eager PyTorch says, through the same pre- and post-processing as the file.

    In fp32, or with ``double`` in fp64, which costs a copy of the weights of twice the size.
    Frame by frame: the activations of one frame are all that is held.
    """
    if double:
        network = copy.deepcopy(network)
    exported = ExportedGraph(network, card).eval()
    if double:
        exported.double()
    found: list[tuple[torch.Tensor, ...]] = []
    with torch.no_grad():
        for number, frame in enumerate(frames_of(feeds), start=1):
            on_frame(number)
            tensors = [torch.from_numpy(frame[name]) for name in feed_names(card)]
            if double:
                tensors[1:] = [tensor.double() for tensor in tensors[1:]]
            found.append(exported(*tensors))
    return {
        name: torch.cat(outputs).numpy()
        for name, outputs in zip(output_names(card), zip(*found, strict=True), strict=True)
    }


def _check(network: nn.Module, card: ModelCard) -> None:
    needs_focal = getattr(network, "needs_focal", False)
    if needs_focal != card.input.focal:
        raise CardError(
            f"card {card.name}: input.focal is {card.input.focal}, the network "
            f"{'needs' if needs_focal else 'takes no'} focal length: correct the card"
        )
    if not card.outputs:
        raise CardError(f"card {card.name} promises no output: add a depth or segmentation entry")
    _check_tasks(network, card)
    if card.segmentation is not None:
        _check_labels(network, card)
    if card.instances is not None:
        _check_things(network, card.name, card.instances)
        _check_order(network, card)
    if card.depth is not None:
        _check_depth(network, card)


def _check_tasks(network: nn.Module, card: ModelCard) -> None:
    """A network of several tasks says which; all of them may be promised, and no other."""
    tasks = getattr(getattr(network, "config", None), "tasks", None)
    if tasks is None and card.task != "multitask":
        return
    given = ["labels" if task == "segmentation" else task for task in tasks or ()]
    given += [IDS] if "instances" in given else []
    surplus = [name for name in card.outputs if name not in given]
    if surplus:
        raise CardError(
            f"card {card.name} promises {surplus}, the network gives {given}: correct the card"
        )


def _check_depth(network: nn.Module, card: ModelCard) -> None:
    assert card.depth is not None
    kind: DepthKind | None = getattr(network, "depth_kind", None)
    if kind is not card.depth.kind:
        raise CardError(
            f"card {card.name}: depth.kind is {card.depth.kind.value}, the network's is "
            f"{kind.value if kind else 'unknown'}: correct the card"
        )
    config = getattr(network, "config", None)
    for name in ("min_m", "max_m"):
        theirs = getattr(config, name, None)
        if theirs is not None and theirs != getattr(card.depth, name):
            raise CardError(
                f"card {card.name}: depth.{name} is {getattr(card.depth, name)}, the network "
                f"clamps at {theirs}: correct the card"
            )


def _check_labels(network: nn.Module, card: ModelCard) -> None:
    assert card.segmentation is not None
    classes = getattr(getattr(network, "config", None), "classes", 0)
    named = len(card.segmentation.label_set.labels)
    if classes != named:
        raise CardError(
            f"card {card.name}: the labels {card.segmentation.labels} are {named} classes, the "
            f"network has {classes}: correct the card"
        )


def _check_things(network: nn.Module, name: str, things: InstancesSpec) -> None:
    """A network that says how many classes of things it knows must agree with the card."""
    if things.masks and getattr(network, "gives_masks", None) is False:
        raise CardError(
            f"card {name}: instances.masks is true, the network gives boxes alone or ids of a "
            "merge: set it to false"
        )
    classes = getattr(getattr(network, "config", None), "things", None)
    named = len(things.label_set.labels)
    if classes is not None and classes != named:
        raise CardError(
            f"card {name}: the labels {things.labels} are {counted(named, 'class')} of things, "
            f"the network has {classes}: correct the card"
        )


def _check_order(network: nn.Module, card: ModelCard) -> None:
    """A merge counts its things as the labels do: their names have the network's order."""
    assert card.instances is not None
    things: Sequence[int] | None = getattr(getattr(network, "config", None), "thing_classes", None)
    if things is None or card.segmentation is None or not card.instances.panoptic:
        return
    labels = card.segmentation.label_set.labels
    expected = tuple(labels[label] for label in things)
    found = card.instances.label_set.labels
    if folded(found) != folded(expected):
        pairs = zip(folded(found), folded(expected), strict=True)
        at = next(k for k, (a, b) in enumerate(pairs) if a != b)
        raise CardError(
            f"card {card.name}: the class {at} of instances is {found[at]!r}, expected "
            f"{expected[at]!r}, which the network finds (label {things[at]} of segmentation): "
            "name the things in the order of the labels"
        )


def _windowed(network: nn.Module, card: ModelCard) -> nn.Module:
    """With the card's sliding window around it, if the image is larger than one window."""
    entry = card.segmentation
    height, width = card.input.height, card.input.width
    if entry is None or not entry.window or (height, width) == (entry.window, entry.window):
        return network
    return SlidingWindow(network, height, width, entry.window, entry.stride)


def _folded(network: nn.Module) -> nn.Module:
    """A copy for inference: modules that have a plainer equivalent are replaced by it."""
    network = copy.deepcopy(network).eval().to(torch.float32)
    for name, module in list(network.named_modules()):
        folded = getattr(module, "folded", None)
        if callable(folded):
            parent, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(parent), leaf, folded())
    return network


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns about packages and operators that are none of the user's business."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
