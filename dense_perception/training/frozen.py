"""Runs the frozen convolutions of a network as they will run when deployed: folded, in place.

A convolution whose weights are frozen, followed by a BatchNorm whose statistics and weights are
too, is one convolution with a bias. Training spends a third of its forward pass on the frozen
layers; folding takes most of the memory traffic out of them. The module tree and its state
dictionary stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights


def fold_frozen(network: nn.Module) -> int:
    """Fold each frozen ``Sequential(Conv2d, BatchNorm2d[, ReLU6])``; returns how many there were.

    Call it after the weights are loaded and the modes are set; frozen weights must not change
    afterwards.
    """
    count = 0
    for part in network.modules():
        if isinstance(part, nn.Sequential) and _can_fold(part):
            part.forward = _folded(part)  # type: ignore[method-assign]
            count += 1
    return count


def _can_fold(part: nn.Sequential) -> bool:
    kinds = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU6]
    if len(part) not in (2, 3) or not all(map(isinstance, part, kinds)):
        return False
    return not part[1].training and not any(p.requires_grad for p in part.parameters())


def _folded(part: nn.Sequential) -> Callable[[Tensor], Tensor]:
    conv, norm = part[0], part[1]
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    fused_weight, fused_bias = fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    weight = fused_weight.detach().contiguous(memory_format=torch.channels_last)
    bias = fused_bias.detach()
    clips = len(part) == 3
    uneven = getattr(conv, "uneven", None)

    def forward(x_bchw: Tensor) -> Tensor:
        if uneven is not None:
            x_bchw = F.pad(x_bchw, uneven)
        y_bchw = F.conv2d(
            x_bchw, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups
        )
        # The convolution's output is nobody else's: clip it where it lies.
        return F.relu6(y_bchw, inplace=not y_bchw.requires_grad) if clips else y_bchw

    return forward
