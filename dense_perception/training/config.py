"""The training configuration: frozen dataclasses, read strictly from one YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dense_perception.core.errors import TrainingError
from dense_perception.core.strict import number, read
from dense_perception.data.augmentation import AugmentConfig

ARITHMETICS = ("fp32", "bf16")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the training losses; see :mod:`dense_perception.training.losses`."""

    silog: float = number(1.0, 0, 100, "scale-invariant log loss on metric depth")
    silog_lambda: float = number(0.5, 0, 1, "how much of the mean log error is forgiven")
    aligned: float = number(1.0, 0, 100, "scale-and-shift-invariant loss in inverse depth")
    gradient: float = number(0.5, 0, 100, "multi-scale gradient matching in log depth")
    depth_normals: float = number(0.0, 0, 100, "1 - cosine of the normals of the depth")
    depth_edges: float = number(0.0, 0, 100, "share of the true depth steps that is missed")
    segmentation: float = number(1.0, 0, 100, "cross entropy of the classes")
    segmentation_rarity: float = number(0.0, 0, 1, "power of a class's rarity; 1: all alike")
    normals: float = number(1.0, 0, 100, "L1 of the unit normals")
    reshading: float = number(1.0, 0, 100, "L1 of the reshading")
    keypoints: float = number(1.0, 0, 100, "L1 of the corner strength")
    edges: float = number(1.0, 0, 100, "L1 of the texture edges")


@dataclass(frozen=True)
class StageConfig:
    """One part of the run: the size and batch that are used until ``until`` of the run is over."""

    until: float = number(1.0, 0, 1, "share of the run at which this stage ends")
    width: int = number(256, 32, 4096, "image width in this stage, pixels")
    height: int = number(192, 32, 4096, "image height in this stage, pixels")
    batch: int = number(16, 1, 4096, "frames per step")


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides a training run but the corpora and the time."""

    name: str = field(metadata={"help": "model name, lower_case_words"})
    summary: str = field(metadata={"help": "one sentence for the card"})
    network: Mapping[str, Any] = field(metadata={"help": "what nets.zoo.build takes"})
    width: int = number(256, 32, 4096, "network input width, pixels")
    height: int = number(192, 32, 4096, "network input height, pixels")
    min_m: float = number(0.1, 0.001, 1000, "nearest depth that is supervised, metres")
    max_m: float = number(20.0, 0.01, 10000, "farthest depth that is supervised, metres")
    seed: int = number(1, 0, 2**31, "decides the order of the frames and every augmentation")
    minutes: float = number(60, 0, 100000, "length of the run in minutes of wall clock")
    steps: int = number(0, 0, 10**9, "length in optimiser steps; when set, minutes is ignored")
    learning_rate: float = number(1e-3, 0, 10, "peak learning rate of AdamW")
    weight_decay: float = number(0.02, 0, 10, "decoupled weight decay of matrices and kernels")
    warmup: float = number(0.03, 0, 1, "share of the run in which the rate rises from 0")
    final_rate: float = number(0.01, 0, 1, "last learning rate as a share of the peak")
    grad_clip: float = number(1.0, 0, 1000, "largest gradient norm")
    arithmetic: str = field(
        default="fp32",
        metadata={"help": "fp32, or bf16: mixed precision, somewhat faster where the CPU has it"},
    )
    ema_decay: float = number(0.998, 0, 1, "decay of the weights' moving average, per step")
    feature_mix_p: float = number(0.5, 0, 1, "MixStyle on the modules in feature_mix")
    feature_mix: tuple[str, ...] = field(
        default=(), metadata={"help": "modules whose output statistics are mixed in training"}
    )
    rates: Mapping[str, float] = field(
        default_factory=dict,
        metadata={
            "low": 0,
            "high": 100,
            "help": "learning rate factor by module name prefix; 0 freezes; longest wins",
        },
    )
    fixed_statistics: tuple[str, ...] = field(
        default=(), metadata={"help": "module name prefixes whose BatchNorm statistics stay"}
    )
    stages: tuple[StageConfig, ...] = (StageConfig(),)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    losses: LossConfig = LossConfig()
    validate_minutes: float = number(5, 0.01, 100000, "time between validations")
    save_minutes: float = number(2, 0.001, 100000, "time between checkpoints")

    def __post_init__(self) -> None:
        ends = [stage.until for stage in self.stages]
        if not ends or ends != sorted(ends) or ends[-1] != 1.0:
            raise TrainingError(
                f"stages end at {ends} of the run, expected rising shares that end with 1.0"
            )
        if self.arithmetic not in ARITHMETICS:
            raise TrainingError(
                f"arithmetic is {self.arithmetic!r}, expected one of {list(ARITHMETICS)}"
            )
        if not self.min_m < self.max_m:
            raise TrainingError(f"min_m {self.min_m} is not below max_m {self.max_m}")
        if self.steps == 0 and self.minutes <= 0:
            raise TrainingError("the run has no length: set minutes or steps above 0")

    @classmethod
    def from_dict(cls, data: object, where: str) -> TrainingConfig:
        """Check and build; ``where`` names the origin in messages.

        :raises TrainingError: for an unknown, missing, mistyped or out-of-range entry.
        """
        return read(cls, data, where, TrainingError)

    @classmethod
    def from_yaml(cls, path: Path) -> TrainingConfig:
        """:raises TrainingError: if the file cannot be read or is not a valid configuration."""
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise TrainingError(
                f"cannot read the training configuration {path}: {error}"
            ) from error
        return cls.from_dict(data, str(path))

    @property
    def tasks(self) -> tuple[str, ...]:
        """What is trained: the network's ``tasks``, depth alone where it names none."""
        return tuple(self.network.get("tasks", ("depth",)))

    def to_dict(self) -> dict[str, Any]:
        """Plain data (lists for tuples), ready for YAML and for a checkpoint."""
        return _plain(asdict(self))

    def stage_at(self, progress: float) -> StageConfig:
        """The stage in force when ``progress`` (0 to 1) of the run is over."""
        return next((stage for stage in self.stages if progress < stage.until), self.stages[-1])


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
