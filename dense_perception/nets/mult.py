"""MulT: one Swin encoder and a decoder per task that share one attention (Bhattacharjee 2022).

Section 3 of the paper (CVPR 2022): in every decoder block the attention weights are computed once,
from the encoder's features of the same resolution and by the linear layers of the reference task;
each task mixes its own values with them. A task therefore costs its values, projection and MLP.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.core.errors import InputError
from dense_perception.nets.swin import (
    LAYER_NORM_EPS,
    SWIN_VARIANTS,
    SwinConfig,
    SwinTransformer,
    window_mix,
    window_weights,
)
from dense_perception.nets.vit import MLP, DropPath, linear_rates
from dense_perception.nets.windows import RelativePositionBias, WindowLayout

TASKS = ("segmentation", "depth", "normals", "reshading", "keypoints", "edges")


@dataclass(frozen=True)
class TaskConfig:
    """Which tasks a network has.

    :param tasks: any subset of :data:`TASKS`, without repetition; the order is the outputs'.
    :param reference: the task whose layers the shared attention is said to be; a name alone, since
        those layers are shared by all tasks.
    :param classes: of the segmentation.
    """

    known_tasks: ClassVar[tuple[str, ...]] = TASKS

    tasks: tuple[str, ...] = TASKS
    reference: str = ""
    classes: int = 40

    def __post_init__(self) -> None:
        known = self.known_tasks
        unknown = [task for task in self.tasks if task not in known]
        if not self.tasks or unknown or len(set(self.tasks)) != len(self.tasks):
            raise InputError(f"tasks are {list(self.tasks)}, expected different ones of {known}")
        if self.reference and self.reference not in self.tasks:
            raise InputError(
                f"the reference task is {self.reference!r}, expected one of the tasks "
                f"{list(self.tasks)}"
            )
        if self.classes < 2:
            raise InputError(f"classes is {self.classes}, expected two or more")

    def channels_of(self, task: str) -> int:
        """Channels of a task's map."""
        return {"segmentation": self.classes, "normals": 3}.get(task, 1)


@dataclass(frozen=True)
class MulTConfig(TaskConfig, SwinConfig):
    """Which tasks, on which Swin encoder.

    :param max_m: the depth head says up to this many metres.
    :param decoder_depths: blocks of the decoder's stages, deepest first.
    """

    max_m: float = 10.0
    decoder_depths: tuple[int, int, int, int] = (2, 2, 2, 2)

    def __post_init__(self) -> None:
        SwinConfig.__post_init__(self)
        TaskConfig.__post_init__(self)
        if not self.max_m > 0 or min(self.decoder_depths) < 1:
            raise InputError(
                f"max_m is {self.max_m}, decoder_depths {self.decoder_depths}: expected a positive "
                "number of metres and one block or more each"
            )


VARIANTS = {f"swin_{name}": MulTConfig(**asdict(swin)) for name, swin in SWIN_VARIANTS.items()}


class SharedAttention(nn.Module):
    """softmax(q k^T / sqrt(d) + B) of encoder tokens, by the reference task's layers (eq. 1)."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.bias = RelativePositionBias(window, heads)

    def forward(self, encoder_bhwc: Tensor, layout: WindowLayout) -> Tensor:
        """The weights of every window: (B * windows, heads, N, N)."""
        windows_wnc = layout.cut(encoder_bhwc)
        q_wnc, k_wnc = self.query(windows_wnc), self.key(windows_wnc)
        return window_weights(q_wnc, k_wnc, self.heads, self.bias(), layout)


class TaskBlock(nn.Module):
    """One task's half of a decoder block: values, projection, norms and MLP."""

    def __init__(self, dim: int, mlp_ratio: float, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, LAYER_NORM_EPS)
        self.value = nn.Linear(dim, dim)
        self.project = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, LAYER_NORM_EPS)
        self.mlp = MLP(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, grid_bhwc: Tensor, weights_whnn: Tensor, layout: WindowLayout) -> Tensor:
        value_wnc = self.value(layout.cut(self.norm1(grid_bhwc)))
        mixed_wnc = self.project(window_mix(weights_whnn, value_wnc))
        grid_bhwc = grid_bhwc + self.drop_path(layout.join(mixed_wnc))
        return grid_bhwc + self.drop_path(self.mlp(self.norm2(grid_bhwc)))


class DecoderBlock(nn.Module):
    """The shared attention and each task's use of it, on (B, H, W, C) grids of one size."""

    def __init__(
        self,
        dim: int,
        heads: int,
        window: int,
        shift: int,
        tasks: Sequence[str],
        mlp_ratio: float,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.window = window
        self.shift = shift
        self.shared = SharedAttention(dim, heads, window)
        self.tasks = nn.ModuleDict({task: TaskBlock(dim, mlp_ratio, drop_path) for task in tasks})

    def forward(self, streams: Mapping[str, Tensor], encoder_bhwc: Tensor) -> dict[str, Tensor]:
        height, width = encoder_bhwc.shape[1:3]
        layout = WindowLayout((height, width), self.window, self.shift)
        weights_whnn = self.shared(encoder_bhwc, layout)
        return {
            task: block(streams[task], weights_whnn, layout) for task, block in self.tasks.items()
        }


class Upsample(nn.Module):
    """Bilinear to the next finer grid, norm, Linear to half the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, LAYER_NORM_EPS)
        self.reduce = nn.Linear(dim, dim // 2)

    def forward(self, grid_bhwc: Tensor, size_hw: tuple[int, int]) -> Tensor:
        resized_bchw = _resize(grid_bhwc.permute(0, 3, 1, 2), size_hw)
        return self.reduce(self.norm(resized_bchw.permute(0, 2, 3, 1)))


class DecoderStage(nn.Module):
    """Blocks at one resolution, after an upsampling of every stream unless it is the deepest."""

    def __init__(
        self, config: MulTConfig, stage: int, dim: int, is_deepest: bool, rates: Sequence[float]
    ) -> None:
        super().__init__()
        tasks = config.tasks
        self.upsample = None if is_deepest else nn.ModuleDict({t: Upsample(2 * dim) for t in tasks})
        self.blocks = nn.ModuleList(
            DecoderBlock(
                dim,
                config.heads[stage],
                config.window,
                config.window // 2 if index % 2 else 0,
                tasks,
                config.mlp_ratio,
                rate,
            )
            for index, rate in enumerate(rates)
        )

    def forward(self, streams: Mapping[str, Tensor], encoder_bhwc: Tensor) -> dict[str, Tensor]:
        size_hw = (encoder_bhwc.shape[1], encoder_bhwc.shape[2])
        grids = dict(streams)
        if self.upsample is not None:
            grids = {task: up(grids[task], size_hw) for task, up in self.upsample.items()}
        for block in self.blocks:
            grids = block(grids, encoder_bhwc)
        return grids


class MulT(nn.Module):
    """(N, 3, H, W) normalised RGB to one map of the image's size per task.

    ``logits``: (N, classes, H, W) of the segmentation. ``depth``: (N, H, W) z-buffer depth in
    metres, 0 to ``max_m``. ``normals``: (N, 3, H, W) unit vectors. ``reshading``, ``keypoints`` and
    ``edges`` (Sobel texture edges): (N, H, W) in the units of their labels.
    """

    def __init__(self, config: MulTConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = SwinTransformer(config)
        dims = config.dims
        rates = linear_rates(config.drop_path, sum(config.decoder_depths))[::-1]
        self.stages = nn.ModuleList()
        for depth, stage in zip(config.decoder_depths, reversed(range(len(dims))), strict=True):
            deepest = stage == len(dims) - 1
            self.stages.append(DecoderStage(config, stage, dims[stage], deepest, rates[:depth]))
            rates = rates[depth:]
        self.norms = nn.ModuleDict(
            {task: nn.LayerNorm(dims[0], LAYER_NORM_EPS) for task in config.tasks}
        )
        self.heads = nn.ModuleDict(
            {task: nn.Linear(dims[0], config.channels_of(task)) for task in config.tasks}
        )
        for part in (self.stages, self.heads):
            part.apply(_initialise)

    def forward(self, image_nchw: Tensor) -> dict[str, Tensor]:
        size_hw = (image_nchw.shape[2], image_nchw.shape[3])
        return {
            "logits" if task == "segmentation" else task: self._output(task, grid, size_hw)
            for task, grid in self._streams(image_nchw).items()
        }

    def maps(self, image_nchw: Tensor) -> dict[str, Tensor]:
        """What the losses compare, by task: (N, C, H, W), not yet of unit length.

        The depth is the natural logarithm of the metres.
        """
        size_hw = (image_nchw.shape[2], image_nchw.shape[3])
        found = {
            task: self._map(task, grid, size_hw) for task, grid in self._streams(image_nchw).items()
        }
        if "depth" in found:
            found["depth"] = F.logsigmoid(found["depth"]) + math.log(self.config.max_m)
        return found

    def _streams(self, image_nchw: Tensor) -> dict[str, Tensor]:
        grids = [map_bchw.permute(0, 2, 3, 1) for map_bchw in self.encoder(image_nchw)][::-1]
        streams = dict.fromkeys(self.config.tasks, grids[0])
        for stage, encoder_bhwc in zip(self.stages, grids, strict=True):
            streams = stage(streams, encoder_bhwc)
        return streams

    def _map(self, task: str, grid_bhwc: Tensor, size_hw: tuple[int, int]) -> Tensor:
        # The linear layer commutes with the interpolation and costs a sixteenth before it.
        small_bchw = self.heads[task](self.norms[task](grid_bhwc)).permute(0, 3, 1, 2)
        return _resize(small_bchw, size_hw)

    def _output(self, task: str, grid_bhwc: Tensor, size_hw: tuple[int, int]) -> Tensor:
        map_bchw = self._map(task, grid_bhwc, size_hw)
        if task == "depth":
            return torch.sigmoid(map_bchw.squeeze(1)) * self.config.max_m
        if task == "normals":
            return F.normalize(map_bchw, dim=1, eps=1e-6)
        return map_bchw if task == "segmentation" else map_bchw.squeeze(1)


def _resize(x_bchw: Tensor, size_hw: tuple[int, int]) -> Tensor:
    if tuple(x_bchw.shape[-2:]) == size_hw:
        return x_bchw
    return F.interpolate(x_bchw, size=size_hw, mode="bilinear", align_corners=False)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
