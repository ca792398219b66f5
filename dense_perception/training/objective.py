"""From a network's maps and a batch to one number: which loss is for which map, and how they add.

What a network is trained on is what its ``maps`` gives, float (N, C, H, W) or (N, H, W) by name:

=================  ===============================================================================
``depth``          natural logarithm of metres; of the canonical depth where the network takes
                   focal lengths: ``log depth_m = it + log(focal_px / width)``
``inverse_depth``  inverse depth of any scale and shift
``segmentation``   logits, of the targets' size or a whole part of it; ``auxiliary`` likewise, of
                   a head that serves the training alone
``normals``        vectors of any length
``instances``      logits of centres' heights, and offsets to them, of the targets' size or a whole
                   part of it (:mod:`dense_perception.nets.centres`)
``reshading``, ``keypoints``, ``edges``
=================  ===============================================================================

What detectors and networks of queries, which have none, are trained on, say
:mod:`dense_perception.training.detector_objective` and
:mod:`dense_perception.training.mask_losses`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.core.errors import TrainingError
from dense_perception.nets.detection.dense_heads import DenseDetector
from dense_perception.nets.detection.mask_rcnn import RegionDetector
from dense_perception.nets.query_network import QueryNetwork
from dense_perception.training.batch import Batch
from dense_perception.training.config import LossConfig, TrainingConfig
from dense_perception.training.detector_objective import detector_losses
from dense_perception.training.instance_truth import things_of
from dense_perception.training.losses import (
    centre_loss,
    inverse_depth_losses,
    l1_loss,
    metric_depth_loss,
    segmentation_loss,
)
from dense_perception.training.mask_losses import query_loss

Parts = dict[str, Tensor]


@runtime_checkable
class Trainable(Protocol):
    """A network that says what the losses compare."""

    def maps(self, image_nchw: Tensor) -> dict[str, Tensor]:
        """See the module's table."""
        ...


class Learner(nn.Module):
    """A network and what it is to learn: batches in, losses out.

    :param mean: with ``std``, how the network's pixels are normalised; see
        :func:`~dense_perception.nets.zoo.normalisation`.
    :raises TrainingError: if the network has no ``maps`` and no queries, and is no detector.
    """

    def __init__(
        self,
        network: nn.Module,
        config: TrainingConfig,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        _check_losses(network, config)
        if not isinstance(network, Trainable | RegionDetector | DenseDetector | QueryNetwork):
            raise TrainingError(
                f"{config.network.get('family')}/{config.network.get('variant')} cannot be "
                "trained: it does not say what the losses compare"
            )
        self.network: nn.Module = network
        self.config = config
        self.mean, self.std = tuple(mean), tuple(std)
        self.needs_focal = bool(getattr(network, "needs_focal", False))
        self.weighting: UncertaintyWeighting | None = None
        if config.losses.weighting == "uncertainty":
            self.weighting = UncertaintyWeighting(config.tasks)

    def forward(self, batch: Batch) -> tuple[Tensor, Parts]:
        """The loss, and the unweighted parts of it, detached."""
        image_nchw = batch.image_nchw(self.mean, self.std)
        if isinstance(self.network, QueryNetwork):
            return query_loss(self.network, image_nchw, batch, self.config.losses)
        if isinstance(self.network, RegionDetector | DenseDetector):
            found = detector_losses(self.network, image_nchw, things_of(batch.targets))
            parts = {name: loss.detach() for name, loss in found.items()}
            return sum(found.values(), torch.zeros(())), parts
        # PyTorch takes every attribute of a module for a tensor or a module.
        maps = cast(Trainable, self.network).maps(image_nchw)
        # The losses are taken in fp32: bf16 resolves 0.4 %.
        with torch.autocast(image_nchw.device.type, enabled=False):
            maps = {name: found.float() for name, found in maps.items()}
            return self.loss(maps, batch)

    def loss(self, maps: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Parts]:
        """As :meth:`forward`, from the maps."""
        losses, parts = task_losses(maps, batch, self.config, self.needs_focal)
        if self.weighting is not None:
            return self.weighting(losses), parts
        return sum(losses.values(), torch.zeros(())), parts


def _check_losses(network: nn.Module, config: TrainingConfig) -> None:
    """
    :raises TrainingError: for what is set, and weighs nothing in this network's loss.
    """
    if not isinstance(network, RegionDetector | DenseDetector | QueryNetwork):
        return
    own = "segment_" if isinstance(network, QueryNetwork) else None
    given = asdict(config.losses)
    default = asdict(LossConfig())
    for name, value in given.items():
        if value != default[name] and not (own and name.startswith(own)):
            why = "a detector is trained on its paper's losses, whose weights are fixed"
            if own:
                why = "what queries predict has one loss for all tasks, of losses.segment_* alone"
            raise TrainingError(
                f"losses.{name} is {value!r}, expected {default[name]!r} or none at all: {why}"
            )


def task_losses(
    maps: Mapping[str, Tensor], batch: Batch, config: TrainingConfig, needs_focal: bool
) -> tuple[dict[str, Tensor], Parts]:
    """The weighted loss of each task, and the unweighted parts, detached.

    Cross entropy for classes and L1 for everything but depth, as in MulT. Unknown pixels (VOID,
    NaN, depth out of the configuration's range) have no influence. Predicted depth is not clamped:
    pixels out of range still teach.
    """
    weights = config.losses
    losses: dict[str, Tensor] = {}
    parts: Parts = {}
    # Without the channel, maps are as the truth is.
    flat = {name: found for name, found in maps.items() if name in ("depth", "inverse_depth")}
    for name, found in flat.items():
        predicted = found.reshape(batch.depth_m.shape)
        valid = (batch.depth_m >= config.min_m) & (batch.depth_m <= config.max_m)
        if name == "depth":
            if needs_focal:
                width = predicted.shape[-1]
                predicted = predicted + (batch.focal_px / width).log()[:, None, None]
            losses["depth"], found_parts = metric_depth_loss(
                predicted, batch.depth_m, valid, weights, batch.focal_px
            )
            parts |= found_parts
        else:
            ssi, gradient = inverse_depth_losses(predicted, batch.depth_m, valid, weights.ssi_trim)
            losses["depth"] = weights.ssi * ssi + weights.ssi_gradient * gradient
            parts |= {"ssi": ssi.detach(), "ssi_gradient": gradient.detach()}
    for name, found in maps.items():
        if name in flat:
            continue
        task = "segmentation" if name == "auxiliary" else name
        part = _LOSSES.get(name, _gray_loss)(found, batch.targets[task], weights)
        losses[task] = losses.get(task, torch.zeros(())) + getattr(weights, name) * part
        parts[name] = part.detach()
    return losses, parts


class UncertaintyWeighting(nn.Module):
    """Weights between tasks that are learnt (Kendall 2018, arXiv:1705.07115, eq. 7 and 10).

    With s the logarithm of a task's variance: exp(-s) L + s / 2 for classes and
    exp(-s) L / 2 + s / 2 for what is regressed, s being 0 at first.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.log_variances = nn.ParameterDict({task: torch.zeros(()) for task in tasks})

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The sum over the tasks."""
        total = torch.zeros(())
        for task, loss in losses.items():
            log_variance = self.log_variances[task]
            share = 1.0 if task == "segmentation" else 0.5
            total = total + share * torch.exp(-log_variance) * loss + log_variance / 2
        return total


def _class_loss(logits_nkhw: Tensor, classes_nhw: Tensor, weights: LossConfig) -> Tensor:
    step = classes_nhw.shape[-1] // logits_nkhw.shape[-1]
    small_nhw = classes_nhw[:, ::step, ::step]
    return segmentation_loss(logits_nkhw, small_nhw, weights.segmentation_rarity)


def _normals_loss(map_nchw: Tensor, normals_nhwc: Tensor, weights: LossConfig) -> Tensor:
    unit_nchw = F.normalize(map_nchw, dim=1, eps=1e-6)
    return l1_loss(unit_nchw, normals_nhwc.permute(0, 3, 1, 2))


def _gray_loss(map_nchw: Tensor, target_nhw: Tensor, weights: LossConfig) -> Tensor:
    return l1_loss(map_nchw.squeeze(1), target_nhw)


def _centre_loss(map_n3hw: Tensor, target_nhw3: Tensor, weights: LossConfig) -> Tensor:
    step = target_nhw3.shape[-2] // map_n3hw.shape[-1]
    return centre_loss(map_n3hw, target_nhw3[:, ::step, ::step].permute(0, 3, 1, 2))


_LOSSES: Mapping[str, Callable[[Tensor, Tensor, LossConfig], Tensor]] = {
    "segmentation": _class_loss,
    "auxiliary": _class_loss,
    "normals": _normals_loss,
    "instances": _centre_loss,
}
