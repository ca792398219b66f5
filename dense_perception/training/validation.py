"""Measures a network on frames with exact depth, at the network's own size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from dense_perception.evaluation import metrics
from dense_perception.nets.zoo import normalisation
from dense_perception.training.batches import Frames, whole_batches
from dense_perception.training.config import StageConfig, TrainingConfig


@torch.no_grad()
def validate(
    network: nn.Module, frames: Frames, indices: Sequence[int], config: TrainingConfig, batch: int
) -> dict[str, float]:
    """Mean over frames of every metric in :mod:`dense_perception.evaluation.metrics`.

    Truth outside ``min_m`` to ``max_m`` is left out. The network is left in evaluation mode.
    """
    network.eval()
    mean, std = normalisation(config.network)
    rows = []
    stage = StageConfig(width=config.width, height=config.height, batch=batch)
    for start in range(0, len(indices), batch):
        for part in whole_batches(frames, indices[start : start + batch], stage):
            predicted = network(part.image_nchw(mean, std), part.focal_px)["depth"].numpy()
            true = part.depth_m.numpy()
            true = np.where((true >= config.min_m) & (true <= config.max_m), true, 0)
            rows += [
                metrics.evaluate(p, t, config.max_m) for p, t in zip(predicted, true, strict=True)
            ]
    return metrics.average(rows)
