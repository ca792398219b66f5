"""Tasks that are learned beside depth to shape its features, and are not part of the model.

Normals and reshading say how surfaces lie, which depth alone says only by small differences. Their
heads read the depth decoder's output, so that it has to tell planes apart; they are dropped when
the run is over.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.core.errors import TrainingError
from dense_perception.nets.dpt_lite import DPTLite

_CHANNELS = {"normals": 3, "reshading": 1}
_HIDDEN = 24


class AuxiliaryHeads(nn.Module):
    """A 3x3 and a 1x1 convolution for each task on (N, features, H / 4, W / 4).

    :raises TrainingError: if the network has no decoder of DPT to read.
    """

    def __init__(self, network: nn.Module, tasks: Sequence[str]) -> None:
        super().__init__()
        features = network.config.features if isinstance(network, DPTLite) else 0
        if tasks and not features:
            raise TrainingError(
                f"auxiliary tasks {list(tasks)} read the decoder of dpt/hybrid_lite0, the network "
                f"is {type(network).__name__}: leave auxiliary out"
            )
        self.heads = nn.ModuleDict(
            {
                task: nn.Sequential(
                    nn.Conv2d(features, _HIDDEN, 3, padding=1),
                    nn.ReLU(),
                    nn.Conv2d(_HIDDEN, _CHANNELS[task], 1),
                )
                for task in tasks
            }
        )

    def forward(self, fused_bchw: Tensor) -> dict[str, Tensor]:
        """The maps that :func:`~dense_perception.training.multitask.multitask_loss` takes: (N, C,
        H, W) by task, normals of any length."""
        return {
            task: F.interpolate(head(fused_bchw), scale_factor=4.0, mode="bilinear")
            for task, head in self.heads.items()
        }
