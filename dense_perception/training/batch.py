"""What one step of the network sees: frames and their truth, stacked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from dense_perception.data.views import View

CLEAN = "clean_rgb"
"""The target, (N, H, W, 3) uint8, that is the view before its colours are augmented."""


@dataclass(frozen=True)
class Batch:
    """``rgb_nhwc`` uint8, ``depth_m`` (N, H, W) float32 with 0 = invalid, ``focal_px`` (N,).

    ``targets`` are those of :func:`~dense_perception.data.targets.further_targets`, stacked.
    ``keys`` name the N frames; ``unreadable`` says of each frame that another one replaced why.
    """

    rgb_nhwc: Tensor
    depth_m: Tensor
    focal_px: Tensor
    targets: Mapping[str, Tensor] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.focal_px)

    def only(self, index: int) -> Batch:
        """The batch of one of its frames."""
        one = self._each(lambda tensor: tensor[index : index + 1])
        return replace(one, keys=self.keys[index : index + 1])

    def image_nchw(self, mean: Sequence[float], std: Sequence[float]) -> Tensor:
        """Normalised float32, channels last in memory."""
        image_nchw = self.rgb_nhwc.permute(0, 3, 1, 2).float()
        shift, scale = _shift_and_scale(tuple(mean), tuple(std), image_nchw.device)
        return (image_nchw - shift) * scale

    def ready(self, device: torch.device) -> Batch:
        """What the network is trained on: see :meth:`to`."""
        return self.to(device)

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; from pinned memory without waiting for the copy."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same batch in memory that a GPU can copy from by itself."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return replace(
            self,
            rgb_nhwc=change(self.rgb_nhwc),
            depth_m=change(self.depth_m),
            focal_px=change(self.focal_px),
            targets={name: change(tensor) for name, tensor in self.targets.items()},
        )


@lru_cache
@torch.inference_mode(False)
def _shift_and_scale(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """(1, 3, 1, 1) each, for levels of 0 to 255; made once, since a GPU is waited for then."""
    scale = 1 / (255 * torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1))
    shift = torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1) * 255
    return shift.to(device), scale.to(device)


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
