"""Parameter groups, learning-rate schedule and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from dense_perception.core.errors import TrainingError
from dense_perception.training.config import TrainingConfig


def longest_prefix(name: str, factors: Mapping[str, float], default: float = 1.0) -> float:
    """The factor of the longest prefix of ``name``, in whole words: ``a.b`` is none of ``a.bc``."""
    best, value = -1, default
    for prefix, factor in factors.items():
        if covers(prefix, name) and len(prefix) > best:
            best, value = len(prefix), factor
    return value


def covers(prefix: str, name: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def parameter_groups(module: nn.Module, config: TrainingConfig) -> list[dict]:
    """AdamW groups by rate factor and decay; parameters of factor 0 stop requiring gradients.

    Biases, norms and other vectors are not decayed.

    :raises TrainingError: if an entry of ``rates`` names no parameter, or nothing is left to train.
    """
    names = [name for name, _ in module.named_parameters()]
    _check_prefixes("rates", config.rates, names)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        factor = longest_prefix(name, config.rates)
        parameter.requires_grad_(factor > 0)
        if factor > 0:
            groups.setdefault((factor, parameter.ndim > 1), []).append(parameter)
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


def learning_rate(config: TrainingConfig, progress: float) -> float:
    """Linear warm-up, then a cosine down to ``final_rate`` of the peak; ``progress`` is 0 to 1."""
    progress = min(max(progress, 0.0), 1.0)
    if progress < config.warmup:
        return config.learning_rate * max(progress / config.warmup, 1e-3)
    along = (progress - config.warmup) / max(1.0 - config.warmup, 1e-9)
    share = config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * along))
    return config.learning_rate * share


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
