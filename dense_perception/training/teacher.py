"""Distillation: a model that is there says what a smaller one is to say, on frames without truth.

The teacher sees each frame before its colours are augmented, the student after, as Depth Anything
(Yang 2024, arXiv:2401.10891) trains on unlabelled pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from dense_perception.core.card import ModelCard
from dense_perception.core.errors import ArtefactError, CardError, TrainingError
from dense_perception.core.prediction import DepthKind
from dense_perception.core.registry import find_card
from dense_perception.nets.checkpoint import read_checkpoint
from dense_perception.nets.networks import published_network, trained_network
from dense_perception.nets.weights import load_weights
from dense_perception.nets.zoo import build, classes_of, normalisation, tasks_of
from dense_perception.training.batch import CLEAN, Batch
from dense_perception.training.config import TrainingConfig
from dense_perception.training.initialisation import file_of


class Teacher:
    """A trained network, in evaluation mode, on ``device``.

    :param path: a ``model.pt``, an exported fp32 ``.onnx`` file, or the name of a model whose
        weights are on this machine.
    :raises TrainingError: if it cannot be read, or does not teach what the student is to learn.
    """

    def __init__(self, path: Path, config: TrainingConfig, device: torch.device) -> None:
        file = file_of(path)
        try:
            if file.suffix == ".onnx":
                checkpoint = read_checkpoint(file)
                self.card = checkpoint.card()
                self.network = build(self.card.network)
                load_weights(self.network, checkpoint)
            elif file != path:
                self.network, self.card, _ = published_network(find_card(str(path)))
            else:
                self.network, self.card = trained_network(file)
        except (ArtefactError, CardError) as error:
            raise TrainingError(f"cannot learn from {path}: {error}") from error
        self.config = config
        self.network.eval().requires_grad_(False).to(device)
        self.normalisation = normalisation(self.card.network)
        _check(path, self.card, config)

    @torch.no_grad()
    def teach(self, batch: Batch) -> Batch:
        """The batch with the teacher's answers as its truth."""
        size_hw = batch.rgb_nhwc.shape[1:3]
        clean = replace(batch, rgb_nhwc=batch.targets[CLEAN])
        image_nchw = clean.image_nchw(*self.normalisation)
        wanted_hw = (self.card.input.height, self.card.input.width)
        focal_px = batch.focal_px * (wanted_hw[1] / size_hw[1])
        if tuple(size_hw) != wanted_hw:
            image_nchw = F.interpolate(image_nchw, wanted_hw, mode="bilinear", antialias=True)
        inputs = (focal_px,) if self.card.input.focal else ()
        answers = self.network(image_nchw, *inputs)
        targets = {
            task: _target(task, answers, size_hw) for task in self.config.tasks if task != "depth"
        }
        depth_m = batch.depth_m
        if "depth" in self.config.tasks:
            depth_m = self._depth(_resized(answers["depth"][:, None], size_hw)[:, 0])
        return replace(batch, depth_m=depth_m, targets=targets)

    def _depth(self, answer_nhw: Tensor) -> Tensor:
        if self.card.depth is not None and self.card.depth.kind == DepthKind.METRIC:
            return answer_nhw
        # Inverse depth of any scale and shift: these let it fill the range that is supervised.
        low = answer_nhw.amin(dim=(1, 2), keepdim=True)
        high = answer_nhw.amax(dim=(1, 2), keepdim=True)
        share = (answer_nhw - low) / (high - low).clamp(min=1e-6)
        near, far = 1 / self.config.min_m, 1 / self.config.max_m
        # A little inside: rounding must not put the ends out of the range.
        return 1 / (far + (near - far) * (0.001 + 0.998 * share))


def _check(path: Path, card: ModelCard, config: TrainingConfig) -> None:
    missing = [task for task in config.tasks if task not in tasks_of(card.network)]
    if missing:
        raise TrainingError(f"{path} gives no {', '.join(missing)}, which the student is to learn")
    classes = classes_of(card.network), classes_of(config.network)
    if "segmentation" in config.tasks and classes[0] != classes[1]:
        raise TrainingError(
            f"{path} tells {classes[0]} classes apart, the student {classes[1]}: set `classes` of "
            "the configuration's network"
        )
    relative = card.depth is not None and card.depth.kind != DepthKind.METRIC
    if "depth" in config.tasks and relative and _is_metric(config):
        raise TrainingError(
            f"{path} gives relative depth and the student is to learn metres: take a metric "
            "teacher, or a relative student"
        )


def _is_metric(config: TrainingConfig) -> bool:
    kind = getattr(build(config.network), "depth_kind", DepthKind.METRIC)
    return kind == DepthKind.METRIC


def _target(task: str, answers: Mapping[str, Tensor], size_hw: Sequence[int]) -> Tensor:
    if task == "segmentation":
        return _resized(answers["logits"], size_hw).argmax(dim=1).to(torch.uint8)
    if task == "normals":
        unit_nchw = F.normalize(_resized(answers[task], size_hw), dim=1, eps=1e-6)
        return unit_nchw.permute(0, 2, 3, 1)
    return _resized(answers[task][:, None], size_hw)[:, 0]


def _resized(map_nchw: Tensor, size_hw: Sequence[int]) -> Tensor:
    if tuple(map_nchw.shape[-2:]) == tuple(size_hw):
        return map_nchw
    return F.interpolate(map_nchw, size=tuple(size_hw), mode="bilinear")
