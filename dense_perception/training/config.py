"""The training configuration: frozen dataclasses, read strictly from one YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dense_perception.core.errors import TrainingError
from dense_perception.core.strict import number, read, yaml_file
from dense_perception.data.augmentation import AugmentConfig
from dense_perception.data.targets import INSTANCE_ROWS
from dense_perception.nets.zoo import stuff_of, tasks_of
from dense_perception.training.figures import NO_FIGURE, check_figure

ARITHMETICS = ("fp32", "bf16", "fp16")
OPTIMISERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "poly")
METHODS = ("all", "heads", "branch", "lora")
WEIGHTINGS = ("fixed", "uncertainty")
OWN_START = "default"
# What may differ between a run and its resumption: when it ends, and when it looks and saves.
LENGTHS = (
    "minutes",
    "steps",
    "validate_minutes",
    "validate_steps",
    "save_minutes",
    "save_steps",
    "keep_best",
)


@dataclass(frozen=True)
class LossConfig:
    """Weights of the training losses; see :mod:`dense_perception.training.objective`."""

    silog: float = number(1.0, 0, 100, "scale-invariant log loss on metric depth")
    silog_lambda: float = number(0.5, 0, 1, "how much of the mean log error is forgiven")
    aligned: float = number(1.0, 0, 100, "scale-and-shift-invariant loss in inverse depth")
    gradient: float = number(0.5, 0, 100, "multi-scale gradient matching in log depth")
    depth_normals: float = number(0.0, 0, 100, "1 - cosine of the normals of the depth")
    depth_edges: float = number(0.0, 0, 100, "share of the true depth steps that is missed")
    ssi: float = number(1.0, 0, 100, "of relative depth: scale-and-shift-invariant L1 (MiDaS)")
    ssi_trim: float = number(0.2, 0, 0.9, "share of its largest errors that is left out")
    ssi_gradient: float = number(0.5, 0, 100, "of relative depth: gradient matching (MiDaS)")
    segmentation: float = number(1.0, 0, 100, "cross entropy of the classes")
    segmentation_rarity: float = number(0.0, 0, 1, "power of a class's rarity; 1: all alike")
    auxiliary: float = number(0.4, 0, 100, "cross entropy of the auxiliary head")
    normals: float = number(1.0, 0, 100, "L1 of the unit normals")
    reshading: float = number(1.0, 0, 100, "L1 of the reshading")
    keypoints: float = number(1.0, 0, 100, "L1 of the corner strength")
    edges: float = number(1.0, 0, 100, "L1 of the texture edges")
    instances: float = number(1.0, 0, 100, "focal loss of the centres, and L1 of the offsets")
    segment_classes: float = number(2.0, 0, 100, "of queries: cross entropy of their classes")
    segment_mask: float = number(5.0, 0, 100, "of queries: binary cross entropy of their masks")
    segment_dice: float = number(5.0, 0, 100, "of queries: dice of their masks")
    segment_points: int = number(12544, 16, 10**6, "of queries: points at which masks are compared")
    weighting: str = field(
        default="fixed",
        metadata={"help": "between tasks: fixed, or uncertainty: learnt besides (Kendall 2018)"},
    )

    def __post_init__(self) -> None:
        if self.weighting not in WEIGHTINGS:
            raise TrainingError(
                f"weighting is {self.weighting!r}, expected one of {list(WEIGHTINGS)}"
            )


@dataclass(frozen=True)
class TuningConfig:
    """How much of the network is trained; see :mod:`dense_perception.training.tuning`."""

    method: str = field(
        default="all",
        metadata={
            "help": "all; heads: all but the backbone; branch: the convolutional branch of "
            "ViT-CoMer and the heads; lora: the heads, and low-rank changes of the backbone"
        },
    )
    rank: int = number(8, 1, 1024, "of LoRA's matrices")
    alpha: float = number(16.0, 0.001, 10000, "LoRA's changes count alpha / rank times")

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise TrainingError(f"method is {self.method!r}, expected one of {list(METHODS)}")


@dataclass(frozen=True)
class StageConfig:
    """One part of the run: the size and batch that are used until ``until`` of the run is over."""

    until: float = number(1.0, 0, 1, "share of the run at which this stage ends")
    width: int = number(256, 32, 4096, "image width in this stage, pixels")
    height: int = number(192, 32, 4096, "image height in this stage, pixels")
    batch: int = number(16, 1, 65536, "frames per step, over all processes and parts of the step")


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides a training run but the corpora and the time."""

    name: str = field(metadata={"help": "model name, lower_case_words"})
    summary: str = field(metadata={"help": "one sentence for the card"})
    network: Mapping[str, object] = field(metadata={"help": "what nets.zoo.build takes"})
    init: str = field(
        default=OWN_START,
        metadata={
            "help": "weights to start from, as --init takes them, which goes before this; default: "
            "ImageNet's stem where the network has one, random ones elsewhere"
        },
    )
    width: int = number(256, 32, 4096, "network input width, pixels")
    height: int = number(192, 32, 4096, "network input height, pixels")
    min_m: float = number(0.1, 0.001, 1000, "nearest depth that is supervised, metres")
    max_m: float = number(20.0, 0.01, 10000, "farthest depth that is supervised, metres")
    seed: int = number(1, 0, 2**31, "decides the order of the frames and every augmentation")
    minutes: float = number(60, 0, 100000, "length of the run in minutes of wall clock")
    steps: int = number(0, 0, 10**9, "length in optimiser steps; when set, minutes is ignored")
    optimiser: str = field(default="adamw", metadata={"help": "adamw or sgd"})
    momentum: float = number(0.9, 0, 1, "of SGD; AdamW's first beta")
    second_beta: float = number(0.99, 0, 1, "AdamW's decay of the squared gradients")
    learning_rate: float = number(1e-3, 0, 10, "peak learning rate")
    weight_decay: float = number(0.02, 0, 10, "weight decay of matrices and kernels")
    schedule: str = field(default="cosine", metadata={"help": "cosine or poly, after the warm-up"})
    power: float = number(0.9, 0, 10, "exponent of the poly schedule")
    warmup: float = number(0.03, 0, 1, "share of the run in which the rate rises from 0")
    final_rate: float = number(0.01, 0, 1, "last learning rate as a share of the peak")
    layer_decay: float = number(
        1.0, 0.01, 1, "factor of the learning rate from a transformer's block to the one before it"
    )
    accumulate: int = number(1, 1, 4096, "parts that a step's batch is computed in, to save memory")
    grad_clip: float = number(1.0, 0, 1000, "largest gradient norm; 0 for any")
    arithmetic: str = field(
        default="fp32",
        metadata={
            "help": "fp32; bf16: mixed precision, faster on GPUs and some CPUs; fp16: mixed, with "
            "loss scaling, for GPUs without bf16"
        },
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
    tuning: TuningConfig = TuningConfig()
    validate_minutes: float = number(5, 0.01, 100000, "time between validations")
    validate_steps: int = number(0, 0, 10**9, "steps between validations; 0 goes by the time")
    save_minutes: float = number(2, 0.001, 100000, "time between checkpoints")
    save_steps: int = number(0, 0, 10**9, "steps between checkpoints; 0 goes by the time")
    keep_best: str = field(
        default=NO_FIGURE,
        metadata={
            "help": "figure of the validation, such as box_ap50, by which the best model so far is "
            "kept as best.pt, beside the last one; none keeps the last one alone"
        },
    )

    def __post_init__(self) -> None:
        ends = [stage.until for stage in self.stages]
        if not ends or ends != sorted(ends) or ends[-1] != 1.0:
            raise TrainingError(
                f"stages end at {ends} of the run, expected rising shares that end with 1.0"
            )
        for entry, known in (
            ("arithmetic", ARITHMETICS),
            ("optimiser", OPTIMISERS),
            ("schedule", SCHEDULES),
        ):
            if getattr(self, entry) not in known:
                raise TrainingError(
                    f"{entry} is {getattr(self, entry)!r}, expected one of {list(known)}"
                )
        if self.keep_best != NO_FIGURE:
            check_figure(self.keep_best)
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
        data = yaml_file(path, "the training configuration", TrainingError)
        return cls.from_dict(data, str(path))

    @property
    def tasks(self) -> tuple[str, ...]:
        """What is trained: see :func:`~dense_perception.nets.zoo.tasks_of`.

        :raises CardError: if the network cannot be built.
        """
        return tasks_of(self.network)

    @property
    def targets(self) -> tuple[str, ...]:
        """What batches hold of the truth, as
        :func:`~dense_perception.data.targets.further_targets` takes it: the tasks, but lists of
        things for a network that does not find them by their centres.

        :raises CardError: if the network cannot be built.
        """
        if stuff_of(self.network):
            return self.tasks
        return tuple(INSTANCE_ROWS if task == "instances" else task for task in self.tasks)

    def to_dict(self) -> dict[str, object]:
        """Plain data (lists for tuples), ready for YAML and for a checkpoint."""
        return {key: _plain(value) for key, value in asdict(self).items()}

    def stage_at(self, progress: float) -> StageConfig:
        """The stage in force when ``progress`` (0 to 1) of the run is over."""
        return next((stage for stage in self.stages if progress < stage.until), self.stages[-1])


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
