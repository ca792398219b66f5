"""What the model card says about how a model came to be."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TypedDict

import torch
from torch import nn

from dense_perception.core.card import ModelCard
from dense_perception.core.card_specs import (
    FURTHER_MAPS,
    OWN_LABELS,
    DepthSpec,
    InputSpec,
    InstancesSpec,
    SegmentationSpec,
)
from dense_perception.core.labels import LABEL_SETS
from dense_perception.core.machine import cpu_model
from dense_perception.core.prediction import DepthKind
from dense_perception.training.config import TrainingConfig

LABELS = "generated_rooms"
"""What the labels of the corpora are called in :mod:`dense_perception.core.labels`."""
_KEPT = (
    "initialisation",
    "data",
    "validation_data",
    "seed",
    "command",
    "minutes",
    "samples",
    "step",
    "machine",
    "soup",
    "tuning",
    "teacher",
)


class Provenance(TypedDict, total=False):
    """How a model came to be, as its file and its card record it: plain data.

    ``classes`` are the corpora's own; the further entries are those of a run that has begun.
    """

    classes: list[str]
    data: object
    validation_data: object
    seed: int
    command: str
    machine: str
    initialisation: Mapping[str, object]
    tuning: Mapping[str, object]
    teacher: str


# What is a task of its own in a card.
_SINGLE = (("depth",), ("segmentation",), ("instances",))


class Training(Provenance, total=False):
    """The record of a run, as ``model.pt`` holds it under ``training``."""

    step: int
    samples: int
    minutes: float
    results: dict[str, float]
    config: dict[str, object]
    soup: Mapping[str, object]


def machine(device: str = "cpu") -> str:
    """The processor's name and the number of logical cores, and the GPU's name if that trains."""
    name = f"{cpu_model()}, {os.cpu_count()} logical cores"
    return f"{name}, {torch.cuda.get_device_name()}" if device == "cuda" else name


def _segmentation(training: Training) -> SegmentationSpec:
    """The corpora's own classes, where they are others than those of the generated rooms."""
    names = tuple(training.get("classes") or LABEL_SETS[LABELS].labels)
    if names == LABEL_SETS[LABELS].labels:
        return SegmentationSpec(LABELS)
    return SegmentationSpec(OWN_LABELS, names=names)


def _instances(
    config: TrainingConfig, training: Training, module: nn.Module
) -> InstancesSpec | None:
    """What a network of things gives: ids and labels of one merge where it tells stuff apart."""
    if "instances" not in config.tasks:
        return None
    if "segmentation" not in config.tasks:
        labels = _segmentation(training)
        return InstancesSpec(
            labels.labels,
            int(getattr(getattr(module, "config", None), "count", 1)),
            masks=bool(getattr(module, "gives_masks", False)),
            names=labels.names,
        )
    network = getattr(module, "config", None)
    names = _segmentation(training).label_set.labels
    things = tuple(
        names[label] for label in getattr(network, "thing_classes", ()) if label < len(names)
    )
    return InstancesSpec(OWN_LABELS, int(getattr(network, "count", 1)), panoptic=True, names=things)


def _depth(config: TrainingConfig, kind: DepthKind) -> DepthSpec:
    if kind != DepthKind.METRIC:
        return DepthSpec(kind)
    network = config.network
    given = [network.get(key) for key in ("max_m", "max_depth_m")]
    farthest = [value for value in given if isinstance(value, (int, float)) and value > 0]
    nearest = network.get("min_m")
    return DepthSpec(
        kind,
        float(nearest) if isinstance(nearest, (int, float)) else config.min_m,
        float([*farthest, config.max_m][0]),
    )


def card_of(config: TrainingConfig, training: Training, module: nn.Module) -> ModelCard:
    """The card of the trained ``module``, before export adds its files."""
    network = dict(config.network)
    results = {
        name: round(value, 4)
        for name, value in training.get("results", {}).items()
        if value == value  # NaN is no result
    }
    published = "names" in training.get("initialisation", {})
    depth = None
    if "depth" in config.tasks:
        depth = _depth(config, getattr(module, "depth_kind", DepthKind.METRIC))
    return ModelCard(
        name=config.name,
        family=str(network.get("family", "unknown")),
        variant=str(network.get("variant", "unknown")),
        task=config.tasks[0] if config.tasks in _SINGLE else "multitask",
        summary=config.summary,
        input=InputSpec(
            config.height, config.width, focal=bool(getattr(module, "needs_focal", False))
        ),
        depth=depth,
        segmentation=_segmentation(training) if "segmentation" in config.tasks else None,
        instances=_instances(config, training, module),
        maps=tuple(name for name in FURTHER_MAPS if name in config.tasks),
        network=network,
        licence={
            "code": "Apache-2.0",
            # Of a published checkpoint nothing is known here but its file.
            "weights": "that of the checkpoint it began with" if published else "Apache-2.0",
        },
        provenance={key: value for key, value in training.items() if key in _KEPT},
        results={"generated_validation_rooms": results} if results else {},
    )
