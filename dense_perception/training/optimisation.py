"""Parameter groups, optimisers and the moving average of the weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

import torch
from torch import nn

from dense_perception.core.errors import TrainingError
from dense_perception.nets.swin import SwinStage, SwinTransformer
from dense_perception.nets.vit import VisionTransformer
from dense_perception.training.config import TrainingConfig

_UNDECAYED = re.compile(r"(^|\.)(table(_\w+)?|\w*token_\w+|class_embeddings_\w+|level_embed_\w+)$")


class ParameterGroup(TypedDict):
    """What the optimisers take; ``factor`` times the schedule's rate is the group's."""

    params: list[nn.Parameter]
    factor: float
    weight_decay: float
    lr: float


def longest_prefix(name: str, factors: Mapping[str, float], default: float = 1.0) -> float:
    """The factor of the longest prefix of ``name``, in whole words: ``a.b`` is none of ``a.bc``."""
    best, value = -1, default
    for prefix, factor in factors.items():
        if covers(prefix, name) and len(prefix) > best:
            best, value = len(prefix), factor
    return value


def covers(prefix: str, name: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def parameter_groups(module: nn.Module, config: TrainingConfig) -> list[ParameterGroup]:
    """The optimiser's groups by rate factor and decay; parameters of factor 0 are frozen.

    The factor is that of ``rates`` times that of ``layer_decay``. Biases, norms and other vectors,
    position tables and extra tokens are not decayed.

    :raises TrainingError: if an entry of ``rates`` names no parameter, or nothing is left to train.
    """
    names = [name for name, _ in module.named_parameters()]
    _check_prefixes("rates", config.rates, names)
    depths = layer_factors(module, config.layer_decay)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        factor = longest_prefix(name, config.rates) * depths.get(name, 1.0)
        parameter.requires_grad_(factor > 0)
        if factor > 0:
            decayed = parameter.ndim > 1 and not _UNDECAYED.search(name)
            groups.setdefault((factor, decayed), []).append(parameter)
    if not groups:
        raise TrainingError("every parameter is frozen: raise one of the factors in rates")
    return [
        {
            "params": parameters,
            "factor": factor,
            "weight_decay": config.weight_decay if decayed else 0.0,
            "lr": config.learning_rate * factor,
        }
        for (factor, decayed), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def layer_factors(module: nn.Module, decay: float) -> dict[str, float]:
    """Layer-wise decay of the learning rate in a transformer, by parameter name (Bao 2022).

    Block i of L has ``decay ** (L - i)``, counted from 0, the embedding before them
    ``decay ** (L + 1)``; what follows the blocks, and all other parts, have no entry.
    """
    if decay == 1:
        return {}
    factors: dict[str, float] = {}
    for name, part in module.named_modules():
        if not isinstance(part, VisionTransformer | SwinTransformer):
            continue
        blocks = {id(p): k for k, block in enumerate(_blocks(part)) for p in block.parameters()}
        last = len(_blocks(part))
        for inner, parameter in part.named_parameters():
            depth = blocks.get(id(parameter))
            if depth is None and inner.startswith(("norm.", "norms.")):
                continue
            power = last + 1 if depth is None else last - depth
            factors[f"{name}.{inner}".lstrip(".")] = decay**power
    return factors


def _blocks(part: VisionTransformer | SwinTransformer) -> list[nn.Module]:
    """The blocks in order; a merging layer of Swin belongs to the block after it."""
    if isinstance(part, VisionTransformer):
        return list(part.blocks)
    blocks: list[nn.Module] = []
    for stage in part.stages:
        assert isinstance(stage, SwinStage)
        first, *others = stage.blocks
        blocks += [nn.ModuleList([stage.merge, first]), *others]
    return blocks


def optimiser_of(groups: Sequence[ParameterGroup], config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW, or SGD with momentum, over ``groups``."""
    plain = [dict(group) for group in groups]
    if config.optimiser == "sgd":
        return torch.optim.SGD(plain, lr=config.learning_rate, momentum=config.momentum)
    betas = (config.momentum, config.second_beta)
    return torch.optim.AdamW(plain, lr=config.learning_rate, betas=betas, fused=True)


def set_modes(module: nn.Module, config: TrainingConfig) -> None:
    """Training mode, except for the BatchNorms under ``fixed_statistics``.

    :raises TrainingError: if an entry of ``fixed_statistics`` names no module.
    """
    module.train()
    names = [name for name, _ in module.named_modules()]
    _check_prefixes("fixed_statistics", config.fixed_statistics, names)
    for name, part in module.named_modules():
        fixed = any(covers(prefix, name) for prefix in config.fixed_statistics)
        if fixed and isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()


class MovingAverage:
    """Exponential moving average of a module's state; young averages follow faster.

    The decay at update n is min(decay, (1 + n) / (10 + n)).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.state = {key: value.detach().clone() for key, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.updates += 1
        share = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        mine, theirs = [], []
        frozen = {name for name, p in module.named_parameters() if not p.requires_grad}
        for key, value in module.state_dict().items():
            if key in frozen:
                continue
            if value.is_floating_point():
                mine.append(self.state[key])
                theirs.append(value.detach())
            else:
                self.state[key].copy_(value)
        torch._foreach_lerp_(mine, theirs, share)


def _check_prefixes(entry: str, prefixes: Iterable[str], names: Iterable[str]) -> None:
    known = list(names)
    for prefix in prefixes:
        if not any(covers(prefix, name) for name in known):
            tops = sorted({".".join(name.split(".")[:2]) for name in known if name})
            raise TrainingError(f"{entry}: {prefix!r} names no part of the network; it has {tops}")
