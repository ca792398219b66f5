"""How fast training is: ``python -m test.support.training_speed CONFIG CORPUS [STEPS]``.

Prints samples per second of loading and augmenting alone, of the loop, and of the same network and
losses in a plain PyTorch loop on batches that are there already; and what part of the loop's time
its steps wait for data. Seconds of the wall, and of the processor for a machine that others use.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from dense_perception.data.corpus import Corpus
from dense_perception.nets.zoo import build, load_pretrained_stem, normalisation
from dense_perception.training.batches import Batches
from dense_perception.training.config import TrainingConfig
from dense_perception.training.engine import Placement
from dense_perception.training.loop import Task, fit
from dense_perception.training.objective import Learner
from dense_perception.training.optimisation import parameter_groups, set_modes


def main(config_file: str, corpus: str, steps: str = "10") -> None:
    """Measure, and print one line each."""
    frames = Corpus(Path(corpus))
    config = TrainingConfig.from_yaml(Path(config_file))
    stage = config.stages[-1]
    count = int(steps)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = replace(config, steps=count, stages=(stage,), save_minutes=1e4, validate_minutes=1e4)
    loader = Batches(frames, config)
    taken = [loader.views.batch(k * stage.batch, stage, stage.batch) for k in range(2)]
    say(
        "loading and augmenting",
        2 * stage.batch,
        lambda: [loader.views.batch(k * stage.batch, stage, stage.batch) for k in range(2, 4)],
    )
    loader.close()

    learner = Learner(build(config.network), config, *normalisation(config.network))
    load_pretrained_stem(learner.network)
    learner.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    groups = parameter_groups(learner.network, config)
    set_modes(learner.network, config)
    optimiser = torch.optim.AdamW([dict(group) for group in groups], fused=True)

    def plain() -> None:
        for step in range(count):
            batch = taken[step % 2].to(torch.device(device))
            with torch.autocast(device, torch.bfloat16, enabled=config.arithmetic == "bf16"):
                loss, _ = learner(batch)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
            optimiser.step()

    say("plain PyTorch loop, data there", count * stage.batch, plain)
    waiting: list[float] = []

    def loop() -> None:
        with tempfile.TemporaryDirectory() as out:
            task = Task(config, frames, frames, [0], Path(out), {}, placement=Placement(device))
            fit(task, lambda record: waiting.append(float(record.get("waiting", 0))))

    say("the loop, with data", count * stage.batch, loop)
    print(f"waiting for data: {max(waiting[1:], default=0):.1%}")


def say(what: str, samples: int, work: Callable[[], object]) -> None:
    """Time ``work`` and print what it did per second."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{what}: {samples / wall:.1f} samples/s, {1000 * cpu / samples:.2f} ms of CPU a sample")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
