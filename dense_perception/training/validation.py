"""Measures a network on frames with exact truth, at the network's own size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from dense_perception.core.camera import Intrinsics
from dense_perception.core.instance_lists import CLASSES, IDS, MASKS, SCORES
from dense_perception.core.labels import VOID
from dense_perception.core.prediction import GRAY_MAPS, DepthKind
from dense_perception.data.centres import SMALLEST_PX
from dense_perception.data.instance_rows import NOBODY
from dense_perception.data.sample import instance_labels
from dense_perception.data.targets import INSTANCE_ROWS, ROW_CLASSES
from dense_perception.metrics import dense as dense_metrics
from dense_perception.metrics import depth as metrics
from dense_perception.metrics.panoptic import PanopticQuality, Segments
from dense_perception.metrics.surfaces import Surfaces
from dense_perception.nets.zoo import classes_of, normalisation, stuff_of
from dense_perception.training.batch import Batch
from dense_perception.training.batches import Frames, whole_batches
from dense_perception.training.config import StageConfig, TrainingConfig

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

    Things are judged by their panoptic quality; those of too few pixels do not count.

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
    things = [label for label in range(classes) if stuff and label + 1 not in stuff]
    if INSTANCE_ROWS in config.targets and "segmentation" not in config.tasks:
        things = list(range(int(getattr(getattr(network, "config", None), "things", 0))))
    elif INSTANCE_ROWS in config.targets:
        things = list(getattr(getattr(network, "config", None), "thing_classes", ()))
    # One more is the rest of the picture, where its classes are not known.
    quality_classes = max(classes, len(things))
    quality = PanopticQuality(quality_classes + 1)
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
            if IDS in outputs:
                for row in range(len(part)):
                    truth = (
                        _true(part, row, stuff) if stuff else _listed(part, row, quality_classes)
                    )
                    quality.add(_found(outputs, row, things), truth)
    results = metrics.average(rows)
    if confusion.counts.any():
        results |= {"miou": confusion.mean_iou, "pixel_accuracy": confusion.pixel_accuracy}
    if things and quality.mean(things).classes:
        of_things = quality.mean(things)
        results |= {"things_pq": of_things.pq, "things_sq": of_things.sq, "things_rq": of_things.rq}
    return results


def _found(outputs: Mapping[str, np.ndarray], row: int, things: Sequence[int]) -> Segments:
    """The things of a frame; their classes as the labels count."""
    used = np.flatnonzero(outputs[SCORES][row] > 0)
    classes = {int(k) + 1: things[int(outputs[CLASSES][row, k])] for k in used}
    return Segments(outputs[IDS][row], classes)


def _true(batch: Batch, row: int, stuff: Sequence[int]) -> Segments:
    """The true things, and the rest of the picture as segments that none of them may be.

    Void are pixels without a class, and things that are too small to be found.
    """
    labels_hw = batch.targets["segmentation"][row].numpy()
    known = labels_hw != VOID
    ids_hw = np.where(known, batch.targets[IDS][row].numpy(), 0)
    classes = instance_labels(ids_hw, labels_hw)
    sizes = np.bincount(ids_hw.ravel(), minlength=1)
    for number, label in list(classes.items()):
        if label + 1 in stuff:
            ids_hw[ids_hw == number] = 0
            del classes[number]
    small = np.isin(ids_hw, [number for number in classes if sizes[number] < SMALLEST_PX])
    rest = known & (ids_hw == 0)
    ids_hw = np.where(small, 0, ids_hw)
    begin = int(ids_hw.max(initial=0)) + 1
    ids_hw = np.where(rest, begin + labels_hw.astype(np.int32), ids_hw)
    present = set(np.unique(ids_hw).tolist()) - {0}
    return Segments(
        ids_hw,
        {number: classes.get(number, number - begin) for number in present},
    )


def _listed(batch: Batch, row: int, classes: int) -> Segments:
    """The things of a list, and the rest of the picture as a segment that none of them may be.

    Void is what nobody is to find.
    """
    ids_hw, classes_k = (batch.targets[name][row].numpy() for name in (IDS, ROW_CLASSES))
    rest = len(classes_k) + 1
    ids_hw = np.where(ids_hw == 0, rest, ids_hw)
    nobody = np.flatnonzero(classes_k == NOBODY) + 1
    ids_hw = np.where(np.isin(ids_hw, nobody), 0, ids_hw)
    present = set(np.unique(ids_hw).tolist()) - {0, rest}
    found = {number: int(classes_k[number - 1]) for number in present}
    return Segments(ids_hw, found | ({rest: classes} if (ids_hw == rest).any() else {}))


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
