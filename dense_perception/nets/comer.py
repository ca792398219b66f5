"""ViT-CoMer's modules (Xia 2024, arXiv:2403.07392, section 3): stem, MRFP, CTI.

The convolutional branch lives as one sequence of tokens (B, 21 n, C): the maps at 1/8, 1/16 and
1/32 of the image flattened and concatenated, n the tokens of the coarsest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.core.errors import InputError
from dense_perception.nets.deformable import MultiScaleDeformableAttention, token_centres
from dense_perception.nets.vit import LAYER_NORM_EPS, DropPath

STRIDES = (8, 16, 32)


class Pyramid:
    """The grids of an image's three levels, and how tokens and maps of them go over.

    :raises InputError: if a side is not a multiple of 32.
    """

    def __init__(self, height: int, width: int) -> None:
        if height % STRIDES[-1] or width % STRIDES[-1]:
            raise InputError(
                f"image is {width}x{height}, expected multiples of {STRIDES[-1]}: resize it to "
                f"{-(-width // STRIDES[-1]) * STRIDES[-1]}x"
                f"{-(-height // STRIDES[-1]) * STRIDES[-1]}"
            )
        self.shapes = tuple((height // stride, width // stride) for stride in STRIDES)
        self.lengths = [rows * columns for rows, columns in self.shapes]

    def maps(self, tokens_bnc: Tensor) -> list[Tensor]:
        """Tokens as three maps (B, C, rows, columns), finest first."""
        return [
            level_bnc.transpose(1, 2).unflatten(2, shape)
            for level_bnc, shape in zip(
                tokens_bnc.split(self.lengths, dim=1), self.shapes, strict=True
            )
        ]

    @staticmethod
    def tokens(maps: Sequence[Tensor]) -> Tensor:
        """The inverse of :meth:`maps`."""
        return torch.cat([map_bchw.flatten(2).transpose(1, 2) for map_bchw in maps], dim=1)

    def add(self, tokens_bnc: Tensor, level: int, addend_bnc: Tensor) -> Tensor:
        """Add the tokens of one level's grid to that level."""
        levels = list(tokens_bnc.split(self.lengths, dim=1))
        levels[level] = levels[level] + addend_bnc
        return torch.cat(levels, dim=1)

    def reference(self, like: Tensor) -> Tensor:
        """(21 n, 2): x and y of every token's centre in units of the image, 0 to 1."""
        return token_centres(self.shapes, like)


class ConvStem(nn.Module):
    """A small convolutional network: (B, 3, H, W) to maps of ``dim`` at 1/4, 1/8, 1/16, 1/32."""

    def __init__(self, dim: int, channels: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *_conv_norm_relu(3, channels, 2),
            *_conv_norm_relu(channels, channels, 1),
            *_conv_norm_relu(channels, channels, 1),
            nn.MaxPool2d(3, 2, 1),
        )
        widths = (channels, 2 * channels, 4 * channels, 4 * channels)
        self.downs = nn.ModuleList(
            nn.Sequential(*_conv_norm_relu(widths[i], widths[i + 1], 2)) for i in range(3)
        )
        self.project = nn.ModuleList(nn.Conv2d(width, dim, 1) for width in widths)

    def forward(self, image_bchw: Tensor) -> list[Tensor]:
        maps = [self.stem(image_bchw)]
        for down in self.downs:
            maps.append(down(maps[-1]))
        return [project(map_bchw) for project, map_bchw in zip(self.project, maps, strict=True)]


def _conv_norm_relu(channels_in: int, channels: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
    return [conv, nn.BatchNorm2d(channels), nn.ReLU()]


class MRFP(nn.Module):
    """Multi-receptive-field feature pyramid (section 3.2), without residual.

    Half of the channels see a 3x3, half a 5x5 neighbourhood; each level has its own filters.
    """

    def __init__(self, dim: int, ratio: float) -> None:
        super().__init__()
        hidden = int(dim * ratio)
        if hidden < 2 or hidden % 2:
            raise InputError(f"MRFP has {hidden} hidden channels, expected an even number")
        half = hidden // 2
        self.fc1 = nn.Linear(dim, hidden)
        self.near = nn.ModuleList(nn.Conv2d(half, half, 3, padding=1, groups=half) for _ in STRIDES)
        self.far = nn.ModuleList(nn.Conv2d(half, half, 5, padding=2, groups=half) for _ in STRIDES)
        self.norms = nn.ModuleList(nn.BatchNorm2d(hidden) for _ in STRIDES)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, tokens_bnc: Tensor, pyramid: Pyramid) -> Tensor:
        maps = []
        for level, map_bchw in enumerate(pyramid.maps(self.fc1(tokens_bnc))):
            near_bchw, far_bchw = map_bchw.chunk(2, dim=1)
            both = torch.cat([self.near[level](near_bchw), self.far[level](far_bchw)], dim=1)
            maps.append(F.gelu(self.norms[level](both)))
        # The authors' code applies GELU a second time after joining the levels.
        return self.fc2(F.gelu(pyramid.tokens(maps)))


class ConvFFN(nn.Module):
    """Linear, depthwise 3x3 on each level (one filter bank for all), GELU, Linear."""

    def __init__(self, dim: int, ratio: float) -> None:
        super().__init__()
        hidden = max(1, int(dim * ratio))
        self.fc1 = nn.Linear(dim, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, tokens_bnc: Tensor, pyramid: Pyramid) -> Tensor:
        maps = [self.depthwise(map_bchw) for map_bchw in pyramid.maps(self.fc1(tokens_bnc))]
        return self.fc2(F.gelu(pyramid.tokens(maps)))


class PyramidAttention(nn.Module):
    """Deformable attention from every token to all three levels, then the conv-FFN's norm and body.

    Without residual around the attention; :meth:`forward` returns what the caller adds.
    """

    def __init__(self, dim: int, heads: int, points: int, deform_ratio: float) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(dim, LAYER_NORM_EPS)
        self.feature_norm = nn.LayerNorm(dim, LAYER_NORM_EPS)
        self.attention = MultiScaleDeformableAttention(
            dim, heads, len(STRIDES), points, deform_ratio
        )

    def forward(self, query_bnc: Tensor, feature_bnc: Tensor, pyramid: Pyramid) -> Tensor:
        return self.attention(
            self.query_norm(query_bnc),
            pyramid.reference(query_bnc),
            self.feature_norm(feature_bnc),
            pyramid.shapes,
        )


class ResidualConvFFN(nn.Module):
    """c + ffn(norm(c))."""

    def __init__(self, dim: int, ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, LAYER_NORM_EPS)
        self.body = ConvFFN(dim, ratio)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens_bnc: Tensor, pyramid: Pyramid) -> Tensor:
        return tokens_bnc + self.drop_path(self.body(self.norm(tokens_bnc), pyramid))


class CTIToV(nn.Module):
    """CNN-Transformer interaction towards the transformer (section 3.3): its addend for x.

    The levels of the interacted pyramid, resized to the branch's grid and summed; ``gamma_c``,
    zero at first, leaves the pretrained transformer undisturbed at the start of training.
    """

    def __init__(
        self,
        dim: int,
        branch_dim: int,
        heads: int,
        points: int,
        deform_ratio: float,
        ffn_ratio: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.interact = PyramidAttention(dim, heads, points, deform_ratio)
        self.ffn = ResidualConvFFN(dim, ffn_ratio, drop_path)
        self.adapt = nn.Identity() if branch_dim == dim else nn.Linear(dim, branch_dim)
        self.gamma_c = nn.Parameter(torch.zeros(branch_dim))

    def forward(self, tokens_bnc: Tensor, pyramid: Pyramid, grid_hw: tuple[int, int]) -> Tensor:
        """(B, rows, columns, branch_dim) for a branch of ``grid_hw``."""
        mixed_bnc = self.ffn(self.interact(tokens_bnc, tokens_bnc, pyramid), pyramid)
        first, *others = (resize(map_bchw, grid_hw) for map_bchw in pyramid.maps(mixed_bnc))
        summed_bchw = sum(others, start=first)
        return self.gamma_c * self.adapt(summed_bchw.permute(0, 2, 3, 1))


class CTIToC(nn.Module):
    """CNN-Transformer interaction towards the pyramid (section 3.3).

    The branch's tokens have been added to their level. With ``interaction`` the levels attend to
    one another, and the residual's base is the normalised query; ``extra`` modules, which follow
    the last stage, have a conv-FFN before that.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        points: int,
        deform_ratio: float,
        ffn_ratio: float,
        drop_path: float,
        interaction: bool,
        extra: bool,
    ) -> None:
        super().__init__()
        self.first = ResidualConvFFN(dim, ffn_ratio, drop_path) if extra else None
        self.interaction = interaction
        if interaction:
            self.query_norm = nn.LayerNorm(dim, LAYER_NORM_EPS)
            self.feature_norm = nn.LayerNorm(dim, LAYER_NORM_EPS)
            self.interact = PyramidAttention(dim, heads, points, deform_ratio)
            self.ffn = ResidualConvFFN(dim, ffn_ratio, drop_path)

    def forward(self, tokens_bnc: Tensor, pyramid: Pyramid) -> Tensor:
        if self.first is not None:
            tokens_bnc = self.first(tokens_bnc, pyramid)
        if not self.interaction:
            return tokens_bnc
        query_bnc, feature_bnc = self.query_norm(tokens_bnc), self.feature_norm(tokens_bnc)
        return self.ffn(query_bnc + self.interact(query_bnc, feature_bnc, pyramid), pyramid)


def resize(x_bchw: Tensor, size_hw: Sequence[int]) -> Tensor:
    """Bilinear, pixel centres aligned; the identity where the size fits."""
    if tuple(x_bchw.shape[-2:]) == tuple(size_hw):
        return x_bchw
    return F.interpolate(x_bchw, size=tuple(size_hw), mode="bilinear", align_corners=False)


def initialise(module: nn.Module) -> None:
    """The authors' initialisation of the parts that are not pretrained."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
