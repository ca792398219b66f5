"""A run of a tiny network in a process of its own: ``python -m test.training.small_run``.

Arguments: the corpus, the run folder, the number of processes and of steps. Everything that is
random within a batch is off, so that dividing it changes nothing.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from dense_perception.data.corpus import Corpus
from dense_perception.training import loop
from dense_perception.training.config import StageConfig, TrainingConfig
from dense_perception.training.engine import Placement
from dense_perception.training.loop import Task, fit
from test.support.models import default_network

SMALL = {"features": 16, "head_features": [8, 8], "dim": 32, "depth": 1, "heads": 2}
CONFIG = TrainingConfig(
    name="tiny_test",
    summary="A test.",
    network={**default_network(), **SMALL, "width": 64, "height": 32},
    width=64,
    height=32,
    optimiser="sgd",
    learning_rate=3e-3,
    weight_decay=0.0,
    ema_decay=0.9,
    rates={"stem": 0},
    fixed_statistics=("stem",),
    stages=(StageConfig(1.0, 64, 32, 4),),
    save_steps=1,
)


def task(corpus: Path, out: Path, steps: int, processes: int = 1, *, resume: bool = False) -> Task:
    """The run; every step is logged."""
    loop._LOG_EVERY = 1
    out.mkdir(exist_ok=True)
    frames = Corpus(corpus)
    return Task(
        replace(CONFIG, steps=steps),
        frames,
        frames,
        [0],
        out,
        {"data": "test"},
        resume=resume,
        placement=Placement("cpu", processes),
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    corpus, out, processes, steps = sys.argv[1:]
    fit(task(Path(corpus), Path(out), int(steps), int(processes)))
