"""Convolutions with the semantics of the frameworks the published weights come from."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def same_padding(kernel: int, stride: int) -> tuple[int, int]:
    """Pixels before and after, as TensorFlow's "SAME" pads a side that the stride divides."""
    total = kernel - stride if kernel > stride else 0
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """Convolution without bias, padded as TensorFlow's "SAME" pads inputs of even size.

    A stride of two then pads one pixel more on the right and at the bottom; PyTorch's symmetric
    padding would shift the pretrained features by half a pixel at each such layer.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        before, after = same_padding(kernel, stride)
        super().__init__(
            channels_in,
            channels_out,
            kernel,
            stride,
            padding=before if before == after else 0,
            groups=groups,
            bias=False,
        )
        self.uneven = None if before == after else (before, after, before, after)

    def forward(self, x_bchw: Tensor) -> Tensor:
        if self.uneven is not None:
            x_bchw = F.pad(x_bchw, self.uneven)
        return super().forward(x_bchw)


class StandardizedConv2d(SameConv2d):
    """:class:`SameConv2d` whose filters are shifted to mean 0 and scaled to variance 1.

    Weight standardisation (Qiao 2019, arXiv:1903.10520): (w - mean) / sqrt(variance + eps).

    :param eps_outside: divide by (deviation + eps) instead, as the code did that the published
        DPT-Hybrid weights were trained with (eps 1e-5).
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        stride: int = 1,
        eps: float = 1e-8,
        eps_outside: bool = False,
    ) -> None:
        super().__init__(channels_in, channels_out, kernel, stride)
        self.eps = eps
        self.eps_outside = eps_outside

    def standardized(self) -> Tensor:
        """The filters that are convolved with."""
        flat = self.weight.flatten(1)
        centred = flat - flat.mean(1, keepdim=True)
        variance = centred.square().mean(1, keepdim=True)
        if self.eps_outside:
            scale = 1 / (variance.sqrt() + self.eps)
        else:
            scale = (variance + self.eps).rsqrt()
        return (centred * scale).view_as(self.weight)

    def forward(self, x_bchw: Tensor) -> Tensor:
        if self.uneven is not None:
            x_bchw = F.pad(x_bchw, self.uneven)
        return F.conv2d(x_bchw, self.standardized(), None, self.stride, self.padding)

    def folded(self) -> SameConv2d:
        """A plain convolution with the filters standardised once: what is exported."""
        plain = SameConv2d(
            self.in_channels, self.out_channels, self.kernel_size[0], self.stride[0]
        ).to(self.weight)
        with torch.no_grad():
            plain.weight.copy_(self.standardized())
        return plain
