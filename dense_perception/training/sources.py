"""Frames as the corpus has them and what was drawn for them: batches that the device itself makes.

The processes that load frames decide which view is shown and how it looks, by the same draws as
where they make the views themselves; :meth:`Sources.ready` does the rest, on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dense_perception.core.instance_lists import IDS
from dense_perception.data.augmentation import Appearance
from dense_perception.data.sample import Sample
from dense_perception.data.targets import INSTANCE_ROWS, ROW_CLASSES, centres_of, rows_of
from dense_perception.data.views import Crop, affine, turn, view_intrinsics
from dense_perception.training import device_photometry, device_targets, device_views
from dense_perception.training.batch import CLEAN, Batch
from dense_perception.training.config import StageConfig


@dataclass(frozen=True)
class Drawn:
    """One position of a run: a frame, the view of it, and how that looks."""

    sample: Sample
    key: str
    crop: Crop
    look: Appearance


@dataclass(frozen=True)
class Sources:
    """N frames, each in the upper left corner of arrays that hold the largest.

    ``tensors``: ``rgb`` (N, H, W, 3) and, for a task that needs them, ``labels`` (N, H, W) uint8,
    ``depth`` (N, H, W) float32 metres; ``size`` (N, 2) widths and heights; ``to_source`` (N, 2, 3)
    and ``turn`` (N, 3, 3) of the view; ``camera`` and ``view`` (N, 4), the intrinsics of both;
    ``focal``, (N,) of the view; the targets ``instances``, ``instance_ids`` and
    ``instance_classes`` themselves. ``changes`` are those of
    :func:`~dense_perception.training.device_photometry.pack`.
    """

    tensors: Mapping[str, Tensor]
    changes: Mapping[str, Tensor]
    width: int
    height: int
    tasks: tuple[str, ...]
    taught: bool
    keys: tuple[str, ...]
    unreadable: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.keys)

    def pin_memory(self) -> Sources:
        """The same in memory that a GPU can copy from by itself."""
        return self._each(Tensor.pin_memory)

    @torch.no_grad()
    def ready(self, device: torch.device) -> Batch:
        """The views, made on the device; the same as the loader makes but for rounding.

        See :mod:`~dense_perception.training.device_photometry` for how close.
        """
        moved = self._each(lambda tensor: tensor.to(device, non_blocking=True))
        found = moved.tensors
        place = found["size"], found["to_source"], self.width, self.height
        rgb_nchw = device_views.cut_colours(found["rgb"].permute(0, 3, 1, 2), *place)
        index_nhw = device_views.nearest(found["depth"], *place)
        targets = {CLEAN: _bytes(rgb_nchw)} if self.taught else moved._targets(rgb_nchw, index_nhw)
        return Batch(
            _bytes(device_photometry.apply(rgb_nchw, moved.changes)),
            device_views.cut_nearest(found["depth"], index_nhw),
            found["focal"],
            targets,
            self.keys,
            self.unreadable,
        )

    def _targets(self, rgb_nchw: Tensor, index_nhw: Tensor) -> dict[str, Tensor]:
        """As :func:`~dense_perception.data.targets.further_targets`."""
        found, tasks = self.tensors, self.tasks
        targets: dict[str, Tensor] = {}
        if "segmentation" in tasks:
            labels_nhw = device_views.cut_nearest(found["labels"], index_nhw)
            targets["segmentation"] = device_targets.class_targets(labels_nhw)
        if "normals" in tasks or "reshading" in tasks:
            # From the whole frame: planes are fitted better to pixels that were not resampled.
            whole_nhw3 = device_targets.normals_from_depth(found["depth"], found["camera"])
            normals_nhw3 = device_views.cut_nearest(whole_nhw3, index_nhw)
            normals_nhw3 = device_targets.turned(normals_nhw3, found["turn"])
            targets["normals"] = normals_nhw3
            targets["reshading"] = device_targets.reshading(normals_nhw3, found["view"])
        if "edges" in tasks:
            targets["edges"] = device_targets.texture_edges(rgb_nchw)
        if "keypoints" in tasks:
            targets["keypoints"] = device_targets.corner_strength(rgb_nchw)
        if "instances" in tasks:
            targets["instances"] = found["instances"]
        rows = {name: found[name] for name in (IDS, ROW_CLASSES) if name in found}
        return {task: targets[task] for task in tasks if task in targets} | rows

    def _each(self, change: Callable[[Tensor], Tensor]) -> Sources:
        return replace(
            self,
            tensors={name: change(tensor) for name, tensor in self.tensors.items()},
            changes={name: change(tensor) for name, tensor in self.changes.items()},
        )


def gather(
    drawn: Sequence[Drawn],
    stage: StageConfig,
    tasks: tuple[str, ...],
    unreadable: Sequence[str],
    *,
    taught: bool,
    stuff: Collection[int] = (),
) -> Sources:
    """Stack what was drawn for consecutive positions; ``stuff`` are classes that are no things."""
    samples = [one.sample for one in drawn]
    crops = [one.crop for one in drawn]
    height = max(sample.depth_m.shape[0] for sample in samples)
    width = max(sample.depth_m.shape[1] for sample in samples)
    cameras = [sample.intrinsics for sample in samples]
    views = [
        view_intrinsics(camera, crop, stage.width, stage.height)
        for camera, crop in zip(cameras, crops, strict=True)
    ]
    matrices = [
        affine(camera, crop, stage.width, stage.height)
        for camera, crop in zip(cameras, crops, strict=True)
    ]
    tensors = {
        "rgb": _stacked([sample.rgb_hwc for sample in samples], width, height),
        "depth": _stacked(
            [sample.depth_m.astype(np.float32, copy=False) for sample in samples], width, height
        ),
        "size": torch.tensor([sample.depth_m.shape[::-1] for sample in samples]),
        "to_source": torch.from_numpy(np.stack(matrices).astype(np.float32)),
        "turn": torch.from_numpy(np.stack([turn(crop) for crop in crops])),
        "camera": torch.tensor([(c.fx, c.fy, c.cx, c.cy) for c in cameras], dtype=torch.float32),
        "view": torch.tensor([(c.fx, c.fy, c.cx, c.cy) for c in views], dtype=torch.float32),
        "focal": torch.tensor([c.mean_focal_px for c in views], dtype=torch.float32),
    }
    if "instances" in tasks and not taught:
        # Made here: the pixels of each thing are few, and gathering them does not suit a GPU.
        centres = [
            centres_of(sample, crop, stage.width, stage.height, stuff)
            for sample, crop in zip(samples, crops, strict=True)
        ]
        tensors["instances"] = torch.from_numpy(np.stack(centres))
    if INSTANCE_ROWS in tasks and not taught:
        found = [
            rows_of(sample, crop, stage.width, stage.height)
            for sample, crop in zip(samples, crops, strict=True)
        ]
        tensors |= {
            name: torch.from_numpy(np.stack([one[name] for one in found]))
            for name in (IDS, ROW_CLASSES)
        }
    if "segmentation" in tasks and not taught:
        none = [np.zeros(sample.depth_m.shape, np.uint8) for sample in samples]
        labels = [
            empty if sample.labels_hw is None else np.asarray(sample.labels_hw)
            for sample, empty in zip(samples, none, strict=True)
        ]
        tensors["labels"] = _stacked(labels, width, height)
    changes = device_photometry.pack([one.look for one in drawn], stage.width, stage.height)
    keys = tuple(one.key for one in drawn)
    return Sources(
        tensors, changes, stage.width, stage.height, tasks, taught, keys, tuple(unreadable)
    )


def _stacked(arrays: Sequence[np.ndarray], width: int, height: int) -> Tensor:
    """With zeros below and to the right."""
    shape = (len(arrays), height, width, *arrays[0].shape[2:])
    stacked = np.zeros(shape, arrays[0].dtype)
    for whole, array in zip(stacked, arrays, strict=True):
        whole[: array.shape[0], : array.shape[1]] = array
    return torch.from_numpy(stacked)


def _bytes(rgb_nchw: Tensor) -> Tensor:
    return rgb_nchw.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
