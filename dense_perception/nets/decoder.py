"""DPT's decoder: tokens become maps (Reassemble), and maps are fused from coarse to fine (Fusion).

Ranftl 2021, sections 3.1 and 3.2; the fusion is RefineNet's (Lin 2017, arXiv:1611.06612).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.core.errors import InputError

READOUTS = ("ignore", "add", "project")
SCALES = (4.0, 2.0, 1.0, 0.5)


class Readout(nn.Module):
    """What becomes of the class token: dropped, added to every token, or mixed in by a Linear.

    (B, 1 + N, C) to (B, N, C).
    """

    def __init__(self, dim: int, kind: str) -> None:
        super().__init__()
        if kind not in READOUTS:
            raise InputError(f"readout is {kind!r}, expected one of {list(READOUTS)}")
        self.kind = kind
        self.project = nn.Linear(2 * dim, dim) if kind == "project" else None

    def forward(self, tokens_bnc: Tensor) -> Tensor:
        class_b1c, patches_bnc = tokens_bnc[:, :1], tokens_bnc[:, 1:]
        if self.kind == "add":
            return patches_bnc + class_b1c
        if self.project is not None:
            # The Linear of [patch, class], without a copy of the class token per patch.
            patch_weight, class_weight = self.project.weight.chunk(2, dim=1)
            shared_b1c = F.linear(class_b1c, class_weight, self.project.bias)
            return F.gelu(F.linear(patches_bnc, patch_weight) + shared_b1c)
        return patches_bnc


class Reassemble(nn.Module):
    """Read, concatenate into a grid, project to ``channels``, resample by ``scale``.

    :param readout: one of :data:`READOUTS`, or None where there is no class token.
    :param scale: one of :data:`SCALES`: output side over patch-grid side.
    """

    def __init__(self, dim: int, channels: int, scale: float, readout: str | None) -> None:
        super().__init__()
        self.readout: nn.Module = nn.Identity() if readout is None else Readout(dim, readout)
        self.project = nn.Conv2d(dim, channels, 1)
        self.resample: nn.Module
        if scale in (4.0, 2.0):
            factor = int(scale)
            self.resample = nn.ConvTranspose2d(channels, channels, factor, factor)
        elif scale == 1.0:
            self.resample = nn.Identity()
        elif scale == 0.5:
            self.resample = nn.Conv2d(channels, channels, 3, 2, 1)
        else:
            raise InputError(f"scale is {scale}, expected one of {list(SCALES)}")

    def forward(self, tokens_bnc: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """(B, N, C) tokens of a patch grid to (B, channels, rows * scale, columns * scale)."""
        patches_bcn = self.readout(tokens_bnc).transpose(1, 2)
        b, c, _ = patches_bcn.shape
        return self.resample(self.project(patches_bcn.reshape(b, c, *grid_hw)))


class ResidualConvUnit(nn.Module):
    """Pre-activation: x + conv(relu(conv(relu(x)))), 3x3; optionally with batch norm."""

    def __init__(self, features: int, batch_norm: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1, bias=not batch_norm)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1, bias=not batch_norm)
        self.norm1: nn.Module = nn.BatchNorm2d(features) if batch_norm else nn.Identity()
        self.norm2: nn.Module = nn.BatchNorm2d(features) if batch_norm else nn.Identity()

    def forward(self, x_bchw: Tensor) -> Tensor:
        y_bchw = self.norm1(self.conv1(F.relu(x_bchw)))
        return x_bchw + self.norm2(self.conv2(F.relu(y_bchw)))


class FeatureFusion(nn.Module):
    """Add the refined skip to what comes from below, refine, upsample, 1x1.

    ``upsample=False`` leaves the size as it is, for a head that stays at the finest level's size.
    """

    def __init__(
        self,
        features: int,
        has_skip: bool = True,
        upsample: bool = True,
        align_corners: bool = True,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.skip_unit = ResidualConvUnit(features, batch_norm) if has_skip else None
        self.unit = ResidualConvUnit(features, batch_norm)
        self.project = nn.Conv2d(features, features, 1)
        self.upsample = upsample
        self.align_corners = align_corners

    def forward(
        self,
        below_bchw: Tensor,
        skip_bchw: Tensor | None = None,
        size_hw: tuple[int, int] | None = None,
    ) -> Tensor:
        """Maps of equal size; the output has ``size_hw``, or twice the size if it is None."""
        fused_bchw = below_bchw
        if self.skip_unit is not None and skip_bchw is not None:
            fused_bchw = fused_bchw + self.skip_unit(skip_bchw)
        # The 1x1 convolution commutes with the interpolation and costs a quarter before it.
        fused_bchw = self.project(self.unit(fused_bchw))
        if not self.upsample:
            return fused_bchw
        return upsample_bilinear(fused_bchw, size_hw, self.align_corners)


class FusionDecoder(nn.Module):
    """Four maps, finest first, to one map of ``features`` channels.

    The output has twice the size of the finest map, or its size if ``upsample_last`` is false.
    """

    def __init__(
        self,
        channels: Sequence[int],
        features: int,
        upsample_last: bool = True,
        align_corners: bool = True,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.adapt = nn.ModuleList(
            nn.Conv2d(count, features, 3, padding=1, bias=False) for count in channels
        )
        deepest = len(channels) - 1
        self.fuse = nn.ModuleList(
            FeatureFusion(
                features, index != deepest, index > 0 or upsample_last, align_corners, batch_norm
            )
            for index in range(len(channels))
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return self.levels(maps)[-1]

    def levels(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The output of every fusion, deepest first."""
        adapted = [conv(map_bchw) for conv, map_bchw in zip(self.adapt, maps, strict=True)]
        fused_bchw = adapted[-1]
        levels = []
        for index in reversed(range(len(adapted))):
            skip_bchw = adapted[index] if index < len(adapted) - 1 else None
            # Odd grids do not double exactly: the next finer map says what size is needed.
            size_hw = tuple(adapted[index - 1].shape[-2:]) if index else None
            fused_bchw = self.fuse[index](fused_bchw, skip_bchw, size_hw)
            levels.append(fused_bchw)
        return levels


def upsample_bilinear(
    x_bchw: Tensor, size_hw: tuple[int, int] | None = None, align_corners: bool = False
) -> Tensor:
    """To ``size_hw``, or to twice the size."""
    doubled_hw = (2 * x_bchw.shape[-2], 2 * x_bchw.shape[-1])
    if size_hw is None or size_hw == doubled_hw:
        # A constant factor exports to one node; an explicit size needs shape arithmetic.
        return F.interpolate(x_bchw, scale_factor=2.0, mode="bilinear", align_corners=align_corners)
    return F.interpolate(x_bchw, size=size_hw, mode="bilinear", align_corners=align_corners)
