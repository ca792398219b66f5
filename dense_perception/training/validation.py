"""Measures a network on frames with exact truth, at the network's own size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from dense_perception.core.camera import Intrinsics
from dense_perception.core.instance_lists import MASKS
from dense_perception.core.prediction import GRAY_MAPS, DepthKind
from dense_perception.metrics import dense as dense_metrics
from dense_perception.metrics import depth as metrics
from dense_perception.metrics.surfaces import Surfaces
from dense_perception.nets.zoo import classes_of, normalisation, stuff_of
from dense_perception.training.batch import Batch
from dense_perception.training.batches import Frames, whole_batches
from dense_perception.training.config import StageConfig, TrainingConfig
from dense_perception.training.thing_scores import ThingScores

# Inverse depth that counts as infinitely far.
_FLAT = 1e-6
# As run folders and cards have them.
_NORMAL_NAMES = {
    "mean_deg": "normals_mean_deg",
    "median_deg": "normals_median_deg",
    "within_11": "normals_below_11_25",
    "within_22": "normals_below_22_5",
    "within_30": "normals_below_30",
}


@torch.no_grad()
def validate(
    network: nn.Module, frames: Frames, indices: Sequence[int], config: TrainingConfig, batch: int
) -> dict[str, float]:
    """Mean over frames of every metric in :mod:`dense_perception.metrics.depth`, and of the
    further tasks those in :mod:`dense_perception.metrics.dense`.

    Things are judged as :mod:`dense_perception.training.thing_scores` says.

    Relative depth is judged after alignment alone. Depth is also judged by its normals and edges.
    Intersection over union is taken over the pixels of all frames together. Depth truth outside
    ``min_m`` to ``max_m`` is left out. The network is left in evaluation mode.
    """
    network.eval()
    device = next(network.parameters()).device
    mean, std = normalisation(config.network)
    rows: list[dict[str, float]] = []
    classes = max(classes_of(config.network), 1)
    relative = getattr(network, "depth_kind", None) == DepthKind.RELATIVE_INVERSE
    confusion = dense_metrics.Confusion(classes)
    stuff = stuff_of(config.network)
    things = _things(network, config) if "instances" in config.tasks else []
    scores = None
    if things:
        labelled = "segmentation" in config.tasks
        scores = ThingScores(max(classes, len(things)), things, labelled=labelled)
    needs_focal = bool(getattr(network, "needs_focal", False))
    stage = StageConfig(width=config.width, height=config.height, batch=batch)
    for start in range(0, len(indices), batch):
        for part in whole_batches(
            frames, indices[start : start + batch], stage, config.targets, stuff
        ):
            moved = part.to(device)
            inputs = (moved.focal_px,) if needs_focal else ()
            answers = network(moved.image_nchw(mean, std), *inputs)
            # Nothing here is judged by masks, which take a hundred maps a frame.
            outputs = {k: value.cpu().numpy() for k, value in answers.items() if k != MASKS}
            rows += [_frame(outputs, part, index, config, relative) for index in range(len(part))]
            if "logits" in outputs:
                true = part.targets["segmentation"].numpy()
                confusion.add(outputs["logits"].argmax(1), true)
            elif "labels" in outputs:
                confusion.add(outputs["labels"], part.targets["segmentation"].numpy())
            if scores is not None:
                scores.add(outputs, {k: value.numpy() for k, value in part.targets.items()})
    results = metrics.average(rows)
    if confusion.counts.any():
        results |= {"miou": confusion.mean_iou, "pixel_accuracy": confusion.pixel_accuracy}
    return results | (scores.figures() if scores is not None else {})


def _things(network: nn.Module, config: TrainingConfig) -> list[int]:
    """The classes that are things, from 0 on, in the order in which the network counts them."""
    own = getattr(network, "config", None)
    if "segmentation" in config.tasks:
        return list(getattr(own, "thing_classes", ()))
    return list(range(int(getattr(own, "things", 0))))


def _frame(
    outputs: Mapping[str, np.ndarray],
    batch: Batch,
    index: int,
    config: TrainingConfig,
    relative: bool,
) -> dict[str, float]:
    row: dict[str, float] = {}
    if "depth" in outputs:
        true = batch.depth_m[index].numpy()
        true = np.where((true >= config.min_m) & (true <= config.max_m), true, 0)
        predicted = outputs["depth"][index]
        if relative:
            predicted = metrics.align_scale_shift(
                1 / np.maximum(predicted, _FLAT), true, config.max_m
            )
        found = metrics.evaluate(predicted, true, config.max_m)
        row |= {k: v for k, v in found.items() if not relative or k.startswith("aligned_")}
        height, width = true.shape
        focal = float(batch.focal_px[index])
        camera = Intrinsics(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
        shapes = Surfaces(predicted, true)
        slants = shapes.normals(camera)
        row |= {f"depth_normals_{name}": slants[name] for name in ("mean_deg", "median_deg")}
        row["edge_share"] = shapes.edge_share()
    if "normals" in outputs:
        true = batch.targets["normals"][index].numpy()
        predicted = outputs["normals"][index].transpose(1, 2, 0)
        slants = dense_metrics.normal_figures(predicted, true)
        row |= {_NORMAL_NAMES[name]: value for name, value in slants.items()}
    for name in GRAY_MAPS:
        if name in outputs:
            true = batch.targets[name][index].numpy()
            row[f"{name}_l1"] = dense_metrics.mean_absolute_error(outputs[name][index], true)
    return row
