"""A network with random weights under a card of its own: to measure speed before training."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from dense_perception.core.card import ModelCard
from dense_perception.core.card_specs import (
    OWN_LABELS,
    DepthSpec,
    InputSpec,
    InstancesSpec,
    SegmentationSpec,
)
from dense_perception.core.errors import InputError
from dense_perception.core.labels import LABEL_SETS
from dense_perception.core.prediction import DepthKind
from dense_perception.core.registry import find_card, list_models
from dense_perception.nets import zoo
from dense_perception.nets.networks import of_size

_HALF = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}


def untrained(name: str, size: str | None = None) -> tuple[nn.Module, ModelCard]:
    """The network of a known model's card, or of ``FAMILY/VARIANT``, with seeded random weights.

    ``size`` is WIDTHxHEIGHT in pixels, by default the card's, or 384x384.

    :raises InputError: if the size is not one.
    :raises CardError: if there is no such network or it cannot take the size.
    """
    card = find_card(name) if "/" not in name and name in list_models() else None
    if card is None:
        family, _, variant = name.partition("/")
        if not variant:
            raise InputError(f"there is no model {name!r}: name one, or FAMILY/VARIANT (dpt/base)")
        card = _card(family, variant)
    card = replace(card, name=card.name.removesuffix("_untrained") + "_untrained")
    if size:
        card = of_size(card, *parse_size(size))
    card = replace(
        card,
        summary="Random weights, for measuring speed only.",
        source=None,
        files={},
        provenance={"weights": "random, seed 0"},
        results={},
    )
    torch.manual_seed(0)
    module = zoo.build(card.network).eval()
    _spread(module)
    return module, card


def _card(family: str, variant: str) -> ModelCard:
    network: dict[str, object] = {"family": family, "variant": variant, **_HALF}
    probe = zoo.build(network)
    fields = getattr(getattr(probe, "config", None), "__dataclass_fields__", {})
    if "height" in fields:
        network |= {"height": 384, "width": 384}
    kind = getattr(probe, "depth_kind", None)
    config = getattr(probe, "config", None)
    tasks = getattr(config, "tasks", ())
    instances = segmentation = None
    if "segmentation" in tasks or (kind is None and "instances" not in tasks):
        labels, names = _labels(getattr(config, "classes", 0), "class")
        segmentation = SegmentationSpec(labels, names=names)
    if "instances" in tasks:
        count = int(getattr(config, "count", 1))
        if segmentation is None:
            labels, names = _labels(getattr(config, "things", 1), "thing")
            masks = bool(getattr(probe, "gives_masks", False))
            instances = InstancesSpec(labels, count, masks, names=names)
        else:
            every = segmentation.label_set.labels
            names = tuple(every[label] for label in getattr(config, "thing_classes", ()))
            instances = InstancesSpec(OWN_LABELS, count, panoptic=True, names=names)
    elif kind is not None:
        segmentation = None  # of several tasks the depth alone is timed
    limits = {
        key: float(getattr(config, key)) for key in ("min_m", "max_m") if hasattr(config, key)
    }
    return ModelCard(
        name=f"{family}_{variant}",
        family=family,
        variant=variant,
        task=_task(kind is not None, segmentation is not None, instances is not None),
        summary="Random weights.",
        input=InputSpec(384, 384, focal=bool(getattr(probe, "needs_focal", False))),
        depth=DepthSpec(DepthKind(kind), **limits) if kind else None,
        segmentation=segmentation,
        instances=instances,
        network=network,
    )


def _labels(classes: int, stem: str) -> tuple[str, tuple[str, ...]]:
    """A label set of so many classes, else ``own`` and made-up names."""
    fitting = [key for key, labels in LABEL_SETS.items() if len(labels.labels) == classes]
    if fitting:
        return fitting[0], ()
    return OWN_LABELS, tuple(f"{stem}_{number}" for number in range(1, classes + 1))


def _task(depth: bool, labels: bool, things: bool) -> str:
    if depth + labels + things > 1:
        return "multitask"
    return "instances" if things else "depth" if depth else "segmentation"


def _spread(module: nn.Module) -> None:
    """The last layers of depth heads start so small that a ReLU may hide every difference."""
    last = [m for m in module.modules() if isinstance(m, nn.Conv2d) and m.out_channels == 1]
    for convolution in last:
        nn.init.normal_(convolution.weight, std=0.1)
        if convolution.bias is not None:
            nn.init.constant_(convolution.bias, 1.0)


def parse_size(text: str) -> tuple[int, int]:
    """Width and height of a text such as 384x384.

    :raises InputError: if it is not one.
    """
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise InputError(f"--size is {text!r}, expected WIDTHxHEIGHT such as 384x384")
    return int(width), int(height)
