"""Training a part of a network: its heads, CoMer's branch, or low-rank changes of the backbone.

LoRA (Hu 2021, arXiv:2106.09685) is a parametrisation of PyTorch's: the weight of a linear layer is
the frozen one plus ``alpha / rank * B A``, B being 0 at first. Delivered weights have it added.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dense_perception.core.errors import TrainingError
from dense_perception.nets.lite import LiteNetwork
from dense_perception.nets.swin import SwinTransformer
from dense_perception.nets.upernet import UperNet
from dense_perception.nets.vit import VisionTransformer
from dense_perception.nets.vit_comer import ViTCoMer, XCoMer
from dense_perception.training.config import TuningConfig

# The linear layers of attention, in either transformer.
_ATTENTION = re.compile(r"(^|\.)attention\.(qkv|project)$")
_ORIGINAL = re.compile(r"(.*)\.parametrizations\.weight\.original")


class LowRank(nn.Module):
    """W to W + scale * B A, for W of (rows, columns)."""

    def __init__(self, rows: int, columns: int, rank: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.down_rc = nn.Parameter(torch.empty(rank, columns))
        self.up_rr = nn.Parameter(torch.zeros(rows, rank))
        nn.init.kaiming_uniform_(self.down_rc, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * (self.up_rr @ self.down_rc)


def tune(network: nn.Module, config: TuningConfig) -> None:
    """Freeze what ``config`` leaves as it is, and add what it trains instead.

    Call it when the network has its weights; a second network of the same configuration takes the
    first one's state dictionary after the same call.

    :raises TrainingError: if the network has no such part.
    """
    if config.method == "all":
        return
    if config.method == "branch":
        for part in network.modules():
            if isinstance(part, ViTCoMer | XCoMer):
                part.freeze_transformer()
                return
        raise TrainingError(
            "tuning.method is branch, which is for ViT-CoMer: take heads, lora or all"
        )
    parts = list(_backbones(network))
    if config.method == "heads" and isinstance(network, UperNet):
        parts = [network.backbone]  # CoMer's branch, too
    if not parts:
        raise TrainingError(
            f"tuning.method is {config.method}, but {type(network).__name__} has no backbone to "
            "leave as it is: take all"
        )
    for part in parts:
        part.requires_grad_(False)
    if config.method == "lora":
        for part in parts:
            _add_low_rank(part, config)


def merged(state: Mapping[str, Tensor], config: TuningConfig) -> dict[str, Tensor]:
    """A state dictionary as the network has it without :func:`tune`."""
    plain: dict[str, Tensor] = {}
    for name, value in state.items():
        original = _ORIGINAL.fullmatch(name)
        if original:
            change = f"{original[1]}.parametrizations.weight.0"
            low_rank = state[f"{change}.up_rr"] @ state[f"{change}.down_rc"]
            plain[f"{original[1]}.weight"] = value + config.alpha / config.rank * low_rank
        elif ".parametrizations." not in name:
            plain[name] = value
    return plain


def trained_share(network: nn.Module) -> tuple[int, int]:
    """How many parameters are trained, and how many there are."""
    counts = [(p.numel(), p.requires_grad) for p in network.parameters()]
    return sum(n for n, trained in counts if trained), sum(n for n, _ in counts)


def _backbones(network: nn.Module) -> Iterable[nn.Module]:
    """The pretrained parts: transformers, and the stems before them."""
    if isinstance(network, LiteNetwork):
        yield network.stem
    stem = getattr(network, "stem", None)
    if isinstance(stem, nn.Module) and not isinstance(network, LiteNetwork):
        yield stem
    for part in network.modules():
        if isinstance(part, VisionTransformer | SwinTransformer):
            yield part


def _add_low_rank(part: nn.Module, config: TuningConfig) -> None:
    scale = config.alpha / config.rank
    layers = [(name, layer) for name, layer in part.named_modules() if _ATTENTION.search(name)]
    for _, layer in layers:
        assert isinstance(layer, nn.Linear)
        change = LowRank(layer.out_features, layer.in_features, config.rank, scale)
        parametrize.register_parametrization(layer, "weight", change.to(layer.weight.device))
