"""TensorBoard: the curves of a run, and what the network says about some frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from dense_perception.core.errors import TrainingError
from dense_perception.core.instance_lists import IDS
from dense_perception.core.labels import LabelSet
from dense_perception.core.prediction import DepthKind
from dense_perception.data.sample import Sample
from dense_perception.imaging.colorize import colorize, robust_limits
from dense_perception.nets.zoo import normalisation, stuff_of
from dense_perception.training.batch import Batch
from dense_perception.training.batches import whole_batches
from dense_perception.training.config import StageConfig, TrainingConfig

FOLDER = "tensorboard"
PICTURES = 4


class Curves:
    """Writes event files to ``out/tensorboard``; a resumed run goes on beside the earlier ones.

    :raises TrainingError: if TensorBoard is not installed.
    """

    def __init__(self, out: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise TrainingError(
                "curves need the package tensorboard: pip install tensorboard, or leave "
                "--tensorboard"
            ) from error
        self._writer = SummaryWriter(str(out / FOLDER))

    def scalars(self, kind: str, values: Mapping[str, float], step: int) -> None:
        """One point of each curve, called ``kind/name``."""
        for name, value in values.items():
            self._writer.add_scalar(f"{kind}/{name}", value, step)

    @torch.no_grad()
    def pictures(
        self, network: nn.Module, frames: Sequence[Sample], config: TrainingConfig, step: int
    ) -> None:
        """Each frame as a row: the picture, then truth and answer of each map side by side.

        :param network: in evaluation mode.
        """
        device = next(network.parameters()).device
        stage = StageConfig(width=config.width, height=config.height, batch=1)
        stuff = stuff_of(config.network)
        batches = whole_batches(frames, range(len(frames)), stage, config.targets, stuff)
        for index, batch in enumerate(batches):
            moved = batch.to(device)
            inputs = (moved.focal_px,) if getattr(network, "needs_focal", False) else ()
            answers = network(moved.image_nchw(*normalisation(config.network)), *inputs)
            maps = {name: value[0].cpu().numpy() for name, value in answers.items()}
            if getattr(network, "depth_kind", None) == DepthKind.RELATIVE_INVERSE:
                maps["depth"] = _depth_of(maps["depth"])
            row = _row(batch, maps)
            self._writer.add_image(f"frame_{index}", row, step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _row(batch: Batch, answers: Mapping[str, np.ndarray]) -> np.ndarray:
    """(H, tiles * W, 3) uint8."""
    tiles = [batch.rgb_nhwc[0].numpy()]
    if "depth" in answers:
        true = batch.depth_m[0].numpy()
        tiles += [_depth(true), _depth(answers["depth"])]
    if "logits" in answers or "labels" in answers:
        found = answers["labels"] if "labels" in answers else answers["logits"].argmax(0)
        true = batch.targets["segmentation"][0].numpy()
        tiles += [_labels(true), _labels(found)]
    if IDS in answers:
        tiles += [_numbers(batch.targets[IDS][0].numpy()), _numbers(answers[IDS])]
    if "normals" in answers:
        true_hwc = np.nan_to_num(batch.targets["normals"][0].numpy())
        found_hwc = answers["normals"].transpose(1, 2, 0)
        tiles += [_signed(true_hwc), _signed(found_hwc)]
    return np.concatenate(tiles, axis=1)


def _depth(depth_m: np.ndarray) -> np.ndarray:
    depth = np.where(np.isfinite(depth_m) & (depth_m > 0), depth_m, np.nan).astype(np.float32)
    return colorize(depth, *(robust_limits(depth) or (0.5, 5.0)))


def _depth_of(inverse_hw: np.ndarray) -> np.ndarray:
    """Depth that is coloured as truth is; scale and shift of the inverse depth are not known."""
    low, high = np.percentile(inverse_hw, (2, 98))
    return 1 / (1 + np.clip((inverse_hw - low) / max(high - low, 1e-9), 0, 1))


def _labels(labels_hw: np.ndarray) -> np.ndarray:
    return LabelSet("", ("",) * 255).colors()[labels_hw]


def _numbers(ids_hw: np.ndarray) -> np.ndarray:
    """Each thing in a colour of its number, black where there is none."""
    return _labels(np.where(ids_hw > 0, (ids_hw - 1) % 254, 255))


def _signed(unit_hwc: np.ndarray) -> np.ndarray:
    return cv2.convertScaleAbs((unit_hwc + 1) * 127.5)
