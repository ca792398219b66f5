"""The learning rate over a run."""

from __future__ import annotations

import math

from dense_perception.training.config import TrainingConfig

_SMALLEST = 1e-3


def learning_rate(config: TrainingConfig, progress: float) -> float:
    """The rate when ``progress`` (0 to 1) of the run is over; see the two functions below."""
    progress = min(max(progress, 0.0), 1.0)
    shape = poly if config.schedule == "poly" else cosine
    return config.learning_rate * shape(config, progress)


def cosine(config: TrainingConfig, progress: float) -> float:
    """Linear warm-up, then half a cosine down to ``final_rate`` (Loshchilov 2017)."""
    if progress < config.warmup:
        return max(progress / config.warmup, _SMALLEST)
    along = (progress - config.warmup) / max(1.0 - config.warmup, 1e-9)
    return config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * along))


def poly(config: TrainingConfig, progress: float) -> float:
    """``(1 - progress)^power`` down to ``final_rate``, times a linear warm-up.

    As DeepLab (Chen 2017) and mmsegmentation have it: the fall begins with the run, not after the
    warm-up.
    """
    fall = config.final_rate + (1 - config.final_rate) * (1 - progress) ** config.power
    rise = max(progress / config.warmup, _SMALLEST) if progress < config.warmup else 1.0
    return fall * rise
