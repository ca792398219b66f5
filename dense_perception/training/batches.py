"""From corpora to batches: every batch is a pure function of (seed, position, stage)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from torch import Tensor

from dense_perception.data.augmentation import augment, random_crop
from dense_perception.data.corpus import Frames
from dense_perception.data.targets import further_targets
from dense_perception.data.views import View, cut, whole_crop, whole_view
from dense_perception.training.config import StageConfig, TrainingConfig

_ATTEMPTS = 6
_MIN_VALID = 0.3


@dataclass(frozen=True)
class Batch:
    """``rgb_nhwc`` uint8, ``depth_m`` (N, H, W) float32 with 0 = invalid, ``focal_px`` (N,).

    ``targets`` are those of :func:`~dense_perception.data.targets.further_targets`, stacked.
    """

    rgb_nhwc: Tensor
    depth_m: Tensor
    focal_px: Tensor
    targets: Mapping[str, Tensor] = field(default_factory=dict)

    def image_nchw(self, mean: Sequence[float], std: Sequence[float]) -> Tensor:
        """Normalised float32, channels last in memory."""
        image_nchw = self.rgb_nhwc.permute(0, 3, 1, 2).float()
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1))
        shift = torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1) * 255
        return (image_nchw - shift) * scale


class Batches:
    """Random training batches, one prepared in the background while the last one is used.

    Frames come in a new random order each epoch; position ``k`` of the run always yields the same
    augmented view, so a resumed run needs no state but its position.
    """

    def __init__(self, frames: Frames, config: TrainingConfig) -> None:
        self.frames = frames
        self.config = config
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._ahead: tuple[int, StageConfig, Future[Batch]] | None = None
        self._order: tuple[int, np.ndarray] = (-1, np.zeros(0, np.int64))

    def take(self, position: int, stage: StageConfig) -> Batch:
        """The batch that starts with the run's ``position``-th sample; starts on the next one."""
        if self._ahead is not None and self._ahead[:2] == (position, stage):
            batch = self._ahead[2].result()
        else:
            batch = self._pool.submit(self._make, position, stage).result()
        following = position + stage.batch
        self._ahead = (following, stage, self._pool.submit(self._make, following, stage))
        return batch

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _make(self, position: int, stage: StageConfig) -> Batch:
        return collate([self._view(position + offset, stage) for offset in range(stage.batch)])

    def _view(self, position: int, stage: StageConfig) -> tuple[View, dict[str, np.ndarray]]:
        count = len(self.frames)
        epoch, place = divmod(position, count)
        if self._order[0] != epoch or len(self._order[1]) != count:
            order = np.random.default_rng([self.config.seed, epoch]).permutation(count)
            self._order = (epoch, order)
        sample = self.frames[int(self._order[1][place])]
        rng = np.random.default_rng([self.config.seed, 1, position])
        for _ in range(_ATTEMPTS):
            crop = random_crop(sample.intrinsics, self.config.augment, rng)
            view = cut(sample, crop, stage.width, stage.height)
            # A crop of a window or of nothing but what is out of range teaches nothing.
            if np.count_nonzero(view.depth_m) >= _MIN_VALID * view.depth_m.size:
                break
        targets = further_targets(sample, crop, view, self.config.tasks)
        rgb_hwc = augment(view.rgb_hwc, self.config.augment, rng)
        return View(rgb_hwc, view.depth_m, view.intrinsics), targets


def whole_batches(
    frames: Frames, indices: Sequence[int], stage: StageConfig, tasks: Sequence[str] = ("depth",)
) -> list[Batch]:
    """The given frames without augmentation, the whole image stretched to the stage's size."""
    views = []
    for index in indices:
        sample = frames[index]
        view = whole_view(sample, stage.width, stage.height)
        views.append((view, further_targets(sample, whole_crop(sample), view, tasks)))
    return [collate(views[at : at + stage.batch]) for at in range(0, len(views), stage.batch)]


def collate(pairs: Sequence[tuple[View, Mapping[str, np.ndarray]]]) -> Batch:
    """Stack views of one size, and what their further tasks are to say."""
    views = [view for view, _ in pairs]
    targets = {
        task: torch.from_numpy(np.stack([found[task] for _, found in pairs]))
        for task in pairs[0][1]
    }
    return Batch(
        torch.from_numpy(np.stack([view.rgb_hwc for view in views])),
        torch.from_numpy(np.stack([view.depth_m for view in views])),
        torch.tensor([view.intrinsics.mean_focal_px for view in views], dtype=torch.float32),
        targets,
    )


def one_thread_for_opencv() -> None:
    """Batches are prepared beside the optimiser; OpenCV's own threads would only contend."""
    cv2.setNumThreads(1)
