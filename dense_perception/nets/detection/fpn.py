"""The feature pyramid of detectors (Lin 2017, arXiv:1612.03144)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.core.errors import InputError


class FPN(nn.Module):
    """Maps of a backbone, finest first, to ``outputs`` maps of one width.

    Coarser ones are added to finer ones, enlarged by the nearest pixel, and each is smoothed.

    :param first: the first map that is used.
    :param learnt: whether the further levels come from convolutions of stride 2, as ATSS and GFL
        have them, and not by leaving out every second pixel of the last one.
    """

    def __init__(
        self,
        channels_in: Sequence[int],
        channels: int,
        outputs: int = 5,
        first: int = 0,
        *,
        learnt: bool = False,
    ) -> None:
        super().__init__()
        used = channels_in[first:]
        if outputs < len(used):
            raise InputError(f"the pyramid has {len(used)} maps and {outputs} outputs")
        self.first = first
        self.further = outputs - len(used)
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in used)
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in used)
        self.extra = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, 2, 1) for _ in range(self.further if learnt else 0)
        )
        for convolution in (*self.lateral, *self.smooth, *self.extra):
            nn.init.xavier_uniform_(convolution.weight)
            nn.init.zeros_(convolution.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        used = maps[self.first :]
        merged = [lateral(x) for lateral, x in zip(self.lateral, used, strict=True)]
        for level in reversed(range(len(merged) - 1)):
            size_hw = merged[level].shape[-2:]
            merged[level] = merged[level] + F.interpolate(merged[level + 1], size=size_hw)
        outputs = [smooth(x) for smooth, x in zip(self.smooth, merged, strict=True)]
        for index in range(self.further):
            last = outputs[-1]
            outputs.append(self.extra[index](last) if self.extra else F.max_pool2d(last, 1, 2))
        return outputs
