"""The convolutional half of the hybrid ViT: ResNetV2 as in BiT (Kolesnikov 2019,
arXiv:1912.11370), in its post-activation form with standardised convolutions and group norm.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.nets.convolution import StandardizedConv2d

CHANNELS = (256, 512, 1024)
STRIDES = (4, 8, 16)
_GROUPS = 32


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(_GROUPS, channels, eps=1e-5)


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1; group norm after each; ReLU after the sum."""

    def __init__(
        self, channels_in: int, channels_out: int, stride: int, eps: float, eps_outside: bool
    ) -> None:
        super().__init__()
        hidden = channels_out // 4
        self.conv1 = StandardizedConv2d(channels_in, hidden, 1, 1, eps, eps_outside)
        self.norm1 = _norm(hidden)
        self.conv2 = StandardizedConv2d(hidden, hidden, 3, stride, eps, eps_outside)
        self.norm2 = _norm(hidden)
        self.conv3 = StandardizedConv2d(hidden, channels_out, 1, 1, eps, eps_outside)
        self.norm3 = _norm(channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                StandardizedConv2d(channels_in, channels_out, 1, stride, eps, eps_outside),
                _norm(channels_out),
            )

    def forward(self, x_bchw: Tensor) -> Tensor:
        y_bchw = F.relu(self.norm1(self.conv1(x_bchw)))
        y_bchw = F.relu(self.norm2(self.conv2(y_bchw)))
        return F.relu(self.norm3(self.conv3(y_bchw)) + self.shortcut(x_bchw))


class ResNetV2(nn.Module):
    """Three stages: 256, 512, 1024 channels at 1/4, 1/8, 1/16 of the size.

    ``forward``: (B, 3, H, W) with H and W multiples of 16 to the three maps, finest first.
    """

    def __init__(
        self, depths: Sequence[int] = (3, 4, 9), eps: float = 1e-8, eps_outside: bool = False
    ) -> None:
        super().__init__()
        self.conv = StandardizedConv2d(3, 64, 7, 2, eps, eps_outside)
        self.norm = _norm(64)
        self.stages = nn.ModuleList()
        channels_in = 64
        for index, (depth, channels) in enumerate(zip(depths, CHANNELS, strict=True)):
            blocks = []
            for position in range(depth):
                stride = 2 if index > 0 and position == 0 else 1
                blocks.append(Bottleneck(channels_in, channels, stride, eps, eps_outside))
                channels_in = channels
            self.stages.append(nn.Sequential(*blocks))

    def forward(self, image_bchw: Tensor) -> list[Tensor]:
        x_bchw = F.relu(self.norm(self.conv(image_bchw)))
        # A last window that may hang over the edge is "SAME" padding for a side that 2 divides.
        x_bchw = F.max_pool2d(x_bchw, 3, 2, ceil_mode=True)
        maps = []
        for stage in self.stages:
            x_bchw = stage(x_bchw)
            maps.append(x_bchw)
        return maps
