"""A small MulT: EfficientNet-Lite0 stem, a few transformer blocks, decoders that share attention.

As in MulT (Bhattacharjee 2022, section 3; see :mod:`dense_perception.nets.mult`) every task has a
decoder stream, and in each block the attention weights are computed once, from the encoder's
features of the same resolution and by the reference task's layers. Three things differ, so that
milliseconds on a CPU suffice. The encoder is a convolutional stem with a transformer over its last
map instead of a Swin. Each stream adds the encoder's features of its resolution, as U-Nets do,
since four coarse blocks cannot bring back texture. The depth is metric as in
:mod:`dense_perception.nets.lite`, which has the encoder too: canonical, scaled by the focal length.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.core.errors import InputError
from dense_perception.nets.decoder import upsample_bilinear
from dense_perception.nets.efficientnet_lite import CHANNELS
from dense_perception.nets.lite import LiteConfig, LiteNetwork
from dense_perception.nets.mult import DecoderBlock, TaskConfig, Upsample
from dense_perception.nets.swin import LAYER_NORM_EPS

# The dark gray that edges and corners mostly are.
_START_GRAY = 0.05
_AT_HALF_SIZE = ("segmentation", "instances")


@dataclass(frozen=True)
class MulTLiteConfig(TaskConfig, LiteConfig):
    """The decoder's hyperparameters beside the encoder's and the tasks.

    :param decoder_dim: channels of the decoder's deepest stage; each finer one has half of them.
    :param decoder_heads: attention heads of the decoder's stages, deepest first.
    :param windows: side of their attention windows, in tokens.
    :param head_features: channels of each task's head.
    """

    classes: int = 25
    decoder_dim: int = 128
    decoder_mlp_ratio: float = 1.0
    decoder_heads: tuple[int, int, int, int] = (4, 4, 2, 1)
    windows: tuple[int, int, int, int] = (8, 8, 8, 4)
    head_features: int = 16

    def __post_init__(self) -> None:
        LiteConfig.__post_init__(self)
        TaskConfig.__post_init__(self)
        for index, heads in enumerate(self.decoder_heads):
            if self.decoder_dim % 2**index or (self.decoder_dim >> index) % heads:
                raise InputError(
                    f"decoder_heads {list(self.decoder_heads)} do not divide the stages' channels "
                    f"{[self.decoder_dim / 2**i for i in range(4)]}"
                )


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


class MulTLite(LiteNetwork):
    """(N, 3, H, W) normalised RGB, and (N,) focal lengths in pixels if depth is a task.

    ``logits``: (N, classes, H, W) of the segmentation. ``depth``: (N, H, W) metres. ``normals``:
    (N, 3, H, W) unit vectors in the optical frame. ``reshading``, ``keypoints`` and ``edges``:
    (N, H, W), 0 to 1. H and W are multiples of 32.
    """

    def __init__(self, config: MulTLiteConfig) -> None:
        super().__init__(config)
        self.config = config
        self.needs_focal = "depth" in config.tasks
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
                self.start_at_two_metres(head.out.bias)
            elif task in ("edges", "keypoints"):
                nn.init.constant_(head.out.bias, _START_GRAY)
            elif task == "normals":
                # Facing the camera.
                with torch.no_grad():
                    head.out.bias[8:] = -1.0

    def maps(self, image_nchw: Tensor) -> dict[str, Tensor]:
        """What the losses compare, by task: (N, C, H, W), not yet clamped or of unit length.

        The segmentation's logits have half the size, since there are many and labels need no more;
        so have the centres of things (:mod:`dense_perception.nets.centres`).
        The depth is the natural logarithm of the canonical one: ``log depth_m = it + log(focal_px /
        width)``.

        :raises InputError: if H or W is not a multiple of 32.
        """
        shallow, tokens_bnc, grid_hw = self.encode(image_nchw)
        deep_bchw = tokens_bnc.transpose(1, 2).reshape(-1, self.config.dim, *grid_hw)
        streams: dict[str, Tensor] | None = None
        for stage, encoder_bchw in zip(self.stages, [deep_bchw, *shallow[::-1]], strict=True):
            streams = stage(streams, encoder_bchw)
        assert streams is not None
        found = {task: head(streams[task]) for task, head in self.heads.items()}
        if "depth" in found:
            # Bounded before the last upsampling, and still bounded after.
            found["depth"] = self.log_canonical(found["depth"])
        return {
            task: map_bchw if task in _AT_HALF_SIZE else upsample_bilinear(map_bchw)
            for task, map_bchw in found.items()
        }

    def forward(self, image_nchw: Tensor, focal_px: Tensor | None = None) -> dict[str, Tensor]:
        """The maps in the units of the class.

        :param focal_px: float32 (N,), focal length in pixels at this image's size; for depth only.
        """
        return self.in_units(self.maps(image_nchw), image_nchw.shape[-1], focal_px)

    def in_units(
        self, maps: Mapping[str, Tensor], width: int, focal_px: Tensor | None
    ) -> dict[str, Tensor]:
        """The outputs from :meth:`maps` of an image of ``width`` columns."""
        outputs: dict[str, Tensor] = {}
        for task, map_bchw in maps.items():
            if task == "segmentation":
                outputs["logits"] = upsample_bilinear(map_bchw)
            elif task == "normals":
                outputs[task] = F.normalize(map_bchw, dim=1, eps=1e-6)
            elif task == "depth":
                assert focal_px is not None
                outputs[task] = self.metres(map_bchw.squeeze(1), focal_px, width)
            else:
                outputs[task] = map_bchw.squeeze(1).clamp(0, 1)
        return outputs
