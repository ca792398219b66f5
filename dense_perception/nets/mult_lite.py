"""A small MulT: EfficientNet-Lite0 stem, a few transformer blocks, decoders that share attention.

As in MulT (Bhattacharjee 2022, section 3; see :mod:`dense_perception.nets.mult`) every task has a
decoder stream, and in each block the attention weights are computed once, from the encoder's
features of the same resolution and by the reference task's layers. Three things differ, so that
milliseconds on a CPU suffice. The encoder is a convolutional stem with a transformer over its last
map instead of a Swin. Each stream adds the encoder's features of its resolution, as U-Nets do,
since four coarse blocks cannot bring back texture. The depth is metric as in
:mod:`dense_perception.nets.dpt_lite`: canonical, scaled by the focal length.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.core.errors import InputError
from dense_perception.core.prediction import DepthKind
from dense_perception.nets.efficientnet_lite import CHANNELS, STRIDES, EfficientNetLite0
from dense_perception.nets.fusion import upsample_bilinear
from dense_perception.nets.mult import (
    DEFAULT_REFERENCE,
    TASKS,
    DecoderBlock,
    Upsample,
)
from dense_perception.nets.swin import LAYER_NORM_EPS
from dense_perception.nets.vit import VisionTransformer

# From logits near zero: two metres, and the dark gray that edges and corners mostly are.
_START_M = 2.0
_START_GRAY = 0.05


@dataclass(frozen=True)
class MulTLiteConfig:
    """The hyperparameters; ``height`` and ``width`` are the network's size in pixels.

    :param tasks: any subset of :data:`~dense_perception.nets.mult.TASKS`, without repetition.
    :param reference: the task whose layers make the shared attention; empty for surface normals,
        or the first task where they are absent.
    :param classes: of the segmentation.
    :param dim: channels of the encoder's transformer, which has ``depth`` blocks.
    :param decoder_dim: channels of the decoder's deepest stage; each finer one has half of them.
    :param decoder_heads: attention heads of the decoder's stages, deepest first.
    :param windows: side of their attention windows, in tokens.
    :param head_features: channels of each task's head.
    :param min_canonical_m: with ``max_canonical_m`` bounds the canonical depth the head can say;
        ``min_m`` and ``max_m`` bound the metric output.
    """

    height: int = 192
    width: int = 256
    tasks: tuple[str, ...] = TASKS
    reference: str = ""
    classes: int = 25
    dim: int = 192
    depth: int = 4
    heads: int = 4
    mlp_ratio: float = 2.0
    qk_norm: bool = True
    decoder_dim: int = 128
    decoder_mlp_ratio: float = 1.0
    decoder_heads: tuple[int, int, int, int] = (4, 4, 2, 1)
    windows: tuple[int, int, int, int] = (8, 8, 8, 4)
    head_features: int = 16
    min_canonical_m: float = 0.1
    max_canonical_m: float = 40.0
    min_m: float = 0.1
    max_m: float = 20.0

    def __post_init__(self) -> None:
        for name, side in (("height", self.height), ("width", self.width)):
            if side < STRIDES[-1] or side % STRIDES[-1]:
                raise InputError(f"{name} is {side}, expected a multiple of {STRIDES[-1]}")
        unknown = [task for task in self.tasks if task not in TASKS]
        if not self.tasks or unknown or len(set(self.tasks)) != len(self.tasks):
            raise InputError(f"tasks are {list(self.tasks)}, expected different ones of {TASKS}")
        if self.reference and self.reference not in self.tasks:
            raise InputError(
                f"the reference task is {self.reference!r}, expected one of the tasks "
                f"{list(self.tasks)}"
            )
        for index, heads in enumerate(self.decoder_heads):
            if self.decoder_dim % 2**index or (self.decoder_dim >> index) % heads:
                raise InputError(
                    f"decoder_heads {list(self.decoder_heads)} do not divide the stages' channels "
                    f"{[self.decoder_dim / 2**i for i in range(4)]}"
                )
        for low, high in (("min_canonical_m", "max_canonical_m"), ("min_m", "max_m")):
            if not 0 < getattr(self, low) < getattr(self, high):
                raise InputError(
                    f"{low} is {getattr(self, low)} and {high} is {getattr(self, high)}, expected "
                    "positive metres, the lower first"
                )

    @property
    def reference_task(self) -> str:
        if self.reference:
            return self.reference
        return DEFAULT_REFERENCE if DEFAULT_REFERENCE in self.tasks else self.tasks[0]

    def channels_of(self, task: str) -> int:
        """Channels of a task's map."""
        return {"segmentation": self.classes, "normals": 3}.get(task, 1)


class SharedStage(nn.Module):
    """One resolution: streams brought up, encoder features added, one block of shared attention."""

    def __init__(
        self, config: MulTLiteConfig, index: int, encoder_channels: int, dim: int, shift: bool
    ) -> None:
        super().__init__()
        tasks, window = config.tasks, config.windows[index]
        self.adapt = nn.Linear(encoder_channels, dim)
        self.norm = nn.LayerNorm(dim, LAYER_NORM_EPS)
        self.upsample = None
        self.skip = None
        if index:
            self.upsample = nn.ModuleDict({task: Upsample(2 * dim) for task in tasks})
            self.skip = nn.ModuleDict({task: nn.Linear(dim, dim) for task in tasks})
        self.block = DecoderBlock(
            dim,
            config.decoder_heads[index],
            window,
            window // 2 if shift else 0,
            tasks,
            config.decoder_mlp_ratio,
        )

    def forward(
        self, streams: Mapping[str, Tensor] | None, encoder_bchw: Tensor
    ) -> dict[str, Tensor]:
        """(B, H, W, dim) grids by task; without ``streams`` every task starts from the encoder."""
        encoder_bhwc = self.norm(self.adapt(encoder_bchw.permute(0, 2, 3, 1)))
        if streams is None or self.upsample is None or self.skip is None:
            grids = dict.fromkeys(self.block.tasks, encoder_bhwc)
        else:
            size_hw = (encoder_bhwc.shape[1], encoder_bhwc.shape[2])
            grids = {
                task: up(streams[task], size_hw) + self.skip[task](encoder_bhwc)
                for task, up in self.upsample.items()
            }
        return self.block(grids, encoder_bhwc)


class TaskHead(nn.Module):
    """A task's grid at a quarter of the size to its map at half of it: 3x3, then 1x1 per pixel.

    The map's four sub-pixels are channels of the last layer, so no layer runs at half size.
    """

    def __init__(self, dim: int, features: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, LAYER_NORM_EPS)
        self.conv = nn.Conv2d(dim, features, 3, padding=1)
        self.out = nn.Conv2d(features, 4 * channels, 1)

    def forward(self, grid_bhwc: Tensor) -> Tensor:
        x_bchw = self.norm(grid_bhwc).permute(0, 3, 1, 2)
        return F.pixel_shuffle(self.out(F.relu(self.conv(x_bchw))), 2)


class MulTLite(nn.Module):
    """(N, 3, H, W) normalised RGB, and (N,) focal lengths in pixels if depth is a task.

    ``logits``: (N, classes, H, W) of the segmentation. ``depth``: (N, H, W) metres. ``normals``:
    (N, 3, H, W) unit vectors in the optical frame. ``reshading``, ``keypoints`` and ``edges``:
    (N, H, W), 0 to 1. H and W are multiples of 32.
    """

    depth_kind = DepthKind.METRIC

    def __init__(self, config: MulTLiteConfig) -> None:
        super().__init__()
        self.config = config
        self.needs_focal = "depth" in config.tasks
        self.stem = EfficientNetLite0()
        self.transformer = VisionTransformer(
            channels_in=CHANNELS[-1],
            dim=config.dim,
            heads=config.heads,
            taps=(config.depth - 1,),
            grid_hw=(config.height // STRIDES[-1], config.width // STRIDES[-1]),
            patch=1,
            class_token=False,
            mlp_ratio=config.mlp_ratio,
            qk_norm=config.qk_norm,
        )
        channels = (config.dim, *CHANNELS[-2::-1])
        self.stages = nn.ModuleList(
            SharedStage(config, index, count, config.decoder_dim >> index, shift=index % 2 == 1)
            for index, count in enumerate(channels)
        )
        self.heads = nn.ModuleDict(
            {
                task: TaskHead(
                    config.decoder_dim >> 3, config.head_features, config.channels_of(task)
                )
                for task in config.tasks
            }
        )
        self._initialise()

    def _initialise(self) -> None:
        for module in (*self.stages.modules(), *self.heads.modules()):
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for task, head in self.heads.items():
            assert isinstance(head, TaskHead)
            assert head.out.bias is not None
            nn.init.normal_(head.out.weight, std=0.02)
            nn.init.zeros_(head.out.bias)
            if task == "depth":
                low, high = self._log_bounds()
                start = (math.log(_START_M) - low) / (high - low)
                if 0 < start < 1:
                    nn.init.constant_(head.out.bias, math.log(start / (1 - start)))
            elif task in ("edges", "keypoints"):
                nn.init.constant_(head.out.bias, _START_GRAY)
            elif task == "normals":
                # Facing the camera.
                with torch.no_grad():
                    head.out.bias[8:] = -1.0

    def _log_bounds(self) -> tuple[float, float]:
        return math.log(self.config.min_canonical_m), math.log(self.config.max_canonical_m)

    def maps(self, image_nchw: Tensor) -> dict[str, Tensor]:
        """What the losses compare, by task: (N, C, H, W), not yet clamped or of unit length.

        The segmentation's logits have half the size: there are many, and labels need no more.
        The depth is the natural logarithm of the canonical one: ``log depth_m = it + log(focal_px /
        width)``.

        :raises InputError: if H or W is not a multiple of 32.
        """
        height, width = image_nchw.shape[-2:]
        if height % STRIDES[-1] or width % STRIDES[-1]:
            raise InputError(
                f"image is {width}x{height}, expected multiples of {STRIDES[-1]}: resize it to "
                f"{self.config.width}x{self.config.height}"
            )
        *shallow, deepest_bchw = self.stem(image_nchw)
        (tokens_bnc,), (rows, columns) = self.transformer(deepest_bchw)
        deep_bchw = tokens_bnc.transpose(1, 2).reshape(-1, self.config.dim, rows, columns)
        streams: dict[str, Tensor] | None = None
        for stage, encoder_bchw in zip(self.stages, [deep_bchw, *shallow[::-1]], strict=True):
            streams = stage(streams, encoder_bchw)
        assert streams is not None
        found = {task: head(streams[task]) for task, head in self.heads.items()}
        if "depth" in found:
            low, high = self._log_bounds()
            # Bounded before the last upsampling, and still bounded after.
            found["depth"] = low + (high - low) * torch.sigmoid(found["depth"])
        return {
            task: map_bchw if task == "segmentation" else upsample_bilinear(map_bchw)
            for task, map_bchw in found.items()
        }

    def forward(self, image_nchw: Tensor, focal_px: Tensor | None = None) -> dict[str, Tensor]:
        """The maps in the units of the class.

        :param focal_px: float32 (N,), focal length in pixels at this image's size; for depth only.
        """
        found = self.maps(image_nchw)
        outputs: dict[str, Tensor] = {}
        for task, map_bchw in found.items():
            if task == "segmentation":
                outputs["logits"] = upsample_bilinear(map_bchw)
            elif task == "normals":
                outputs[task] = F.normalize(map_bchw, dim=1, eps=1e-6)
            elif task == "depth":
                assert focal_px is not None
                scale_n11 = (focal_px / image_nchw.shape[-1]).reshape(-1, 1, 1)
                depth_nhw = torch.exp(map_bchw.squeeze(1)) * scale_n11
                outputs[task] = depth_nhw.clamp(self.config.min_m, self.config.max_m)
            else:
                outputs[task] = map_bchw.squeeze(1).clamp(0, 1)
        return outputs
