"""The further tasks' losses and how a batch of their maps is measured."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from dense_perception.core.labels import VOID
from dense_perception.training.config import LossConfig


def multitask_loss(
    maps: Mapping[str, Tensor], targets: Mapping[str, Tensor], config: LossConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum over the tasks, and each unweighted part, detached.

    As in MulT: cross entropy for the segmentation, L1 for everything else. Unknown pixels (VOID,
    NaN) have no influence.

    :param maps: (N, C, H, W) by task, as :meth:`MulTLite.maps` gives them; normals of any length,
        logits of the targets' size or a whole part of it.
    :param targets: (N, H, W), normals (N, H, W, 3), by task.
    """
    parts: dict[str, Tensor] = {}
    for task, map_nchw in maps.items():
        target = targets[task]
        if task == "segmentation":
            step = target.shape[-1] // map_nchw.shape[-1]
            parts[task] = segmentation_loss(map_nchw, target[:, ::step, ::step])
        elif task == "normals":
            unit_nchw = F.normalize(map_nchw, dim=1, eps=1e-6)
            parts[task] = l1_loss(unit_nchw, target.permute(0, 3, 1, 2))
        else:
            parts[task] = l1_loss(map_nchw.squeeze(1), target)
    loss = sum((getattr(config, task) * part for task, part in parts.items()), torch.zeros(()))
    return loss, {task: part.detach() for task, part in parts.items()}


def segmentation_loss(logits_nkhw: Tensor, classes_nhw: Tensor) -> Tensor:
    """Mean cross entropy over the pixels that have a class; 0 if none has."""
    total = F.cross_entropy(logits_nkhw, classes_nhw.long(), ignore_index=VOID, reduction="sum")
    return total / (classes_nhw != VOID).sum().clamp(min=1)


def l1_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference where the target is known; 0 if it is nowhere."""
    known = torch.isfinite(target)
    error = (predicted - torch.where(known, target, predicted.detach())).abs()
    return (error * known).sum() / known.sum().clamp(min=1)
