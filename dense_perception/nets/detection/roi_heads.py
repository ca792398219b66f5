"""What looks at one region: box and mask heads (He 2017, arXiv:1703.06870, figure 4)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.nets.detection.boxes import decode_offsets

BOX_SIDE = 7
MASK_SIDE = 14


class BoxHead(nn.Module):
    """(K, C, 7, 7) of regions to class logits (K, classes + 1), nothing last, and box offsets.

    Offsets are (K, classes, 4): each class has its own box.

    :param convs: convolutions with batch norm before the linear layers, ``fcs`` of these.
    :param deviations: what the offsets are in units of.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        hidden: int,
        convs: int = 0,
        fcs: int = 2,
        deviations: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
    ) -> None:
        super().__init__()
        self.deviations = tuple(deviations)
        self.convs = nn.Sequential(*(layer for _ in range(convs) for layer in _conv_norm(channels)))
        widths = [channels * BOX_SIDE * BOX_SIDE, *[hidden] * fcs]
        self.fcs = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.classify = nn.Linear(widths[-1], classes + 1)
        self.regress = nn.Linear(widths[-1], 4 * classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.normal_(self.regress.weight, std=0.001)

    def forward(self, regions_kchw: Tensor) -> tuple[Tensor, Tensor]:
        seen_kc = self.convs(regions_kchw).flatten(1)
        for linear in self.fcs:
            seen_kc = F.relu(linear(seen_kc))
        return self.classify(seen_kc), self.regress(seen_kc).unflatten(1, (-1, 4))

    def refine(self, boxes_nr4: Tensor, logits: Tensor, offsets: Tensor) -> Tensor:
        """The box of each region's likeliest class, (N, R, 4), from what :meth:`forward` gave."""
        offsets_k4 = of_classes(offsets, logits[:, :-1].argmax(dim=1))
        return decode_offsets(boxes_nr4, offsets_k4.reshape(boxes_nr4.shape), self.deviations)


class MaskHead(nn.Module):
    """(K, C, 14, 14) of regions to mask logits of each class, (K, classes, 28, 28)."""

    def __init__(self, channels: int, classes: int, convs: int = 4) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1) for _ in range(convs)
        )
        self.upsample = nn.ConvTranspose2d(channels, channels, 2, 2)
        self.classify = nn.Conv2d(channels, classes, 1)
        for module in (*self.convs, self.upsample, self.classify):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)

    def forward(self, regions_kchw: Tensor) -> Tensor:
        for convolution in self.convs:
            regions_kchw = F.relu(convolution(regions_kchw))
        return self.classify(F.relu(self.upsample(regions_kchw)))


def of_classes(values_kc: Tensor, classes_k: Tensor) -> Tensor:
    """Of each region what belongs to its class: (K, C, ...) to (K, ...)."""
    first_k = torch.arange(values_kc.shape[0], device=values_kc.device) * values_kc.shape[1]
    return values_kc.flatten(0, 1).index_select(0, first_k + classes_k)


def _conv_norm(channels: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(channels), nn.ReLU()]
