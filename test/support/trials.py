"""What the trials of training share: a small run, results that outlast a stop, their spread."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from dense_perception.data.corpus import Corpus
from dense_perception.training.config import StageConfig, TrainingConfig
from dense_perception.training.loop import Task, fit
from dense_perception.training.run_folder import MODEL_FILE, STATE_FILE

Figures = Mapping[str, float]


def trial_parser(text: str | None) -> argparse.ArgumentParser:
    """Options of every trial: held-out frames, where results are kept, seeds, size, threads."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--held-out", type=Path, required=True, help="frames to judge by")
    parser.add_argument("--out", type=Path, required=True, help="where runs and results are kept")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, nargs=2, default=(128, 96), help="width and height")
    parser.add_argument("--threads", type=int, default=1)
    return parser


def trial_config(
    network: Mapping[str, object],
    options: argparse.Namespace,
    seed: int,
    steps: int,
    rates: Mapping[str, float] | None = None,
    fixed_statistics: Sequence[str] = (),
) -> TrainingConfig:
    """A short run at one size that is validated once, at its end."""
    width, height = options.size
    return TrainingConfig(
        name="trial",
        summary="A trial.",
        network=network,
        width=width,
        height=height,
        seed=seed,
        steps=steps,
        learning_rate=1e-3,
        second_beta=0.999,
        weight_decay=0.01,
        ema_decay=0.99,
        rates=dict(rates or {}),
        fixed_statistics=tuple(fixed_statistics),
        stages=(StageConfig(1.0, width, height, options.batch),),
        validate_minutes=1e4,
        save_minutes=1.0,
    )


def trained(
    config: TrainingConfig, data: Path, held_out: Path, out: Path, initial: Path | None = None
) -> tuple[Path, Figures]:
    """The ``model.pt`` of that run and what all held-out frames say of it.

    A run that was stopped goes on where its last checkpoint was.
    """
    validation = Corpus(held_out)
    task = Task(
        config=config,
        train=Corpus(data),
        validation=validation,
        validation_indices=range(len(validation)),
        out=out,
        provenance={},
        initial=initial,
        resume=(out / STATE_FILE).exists(),
    )
    out.mkdir(parents=True, exist_ok=True)
    return out / MODEL_FILE, fit(task)


class Results:
    """Figures of runs by design and seed, in a file of JSON lines that each run adds to.

    :raises ValueError: if the file holds results of other settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        self.path = folder / "results.jsonl"
        self.found: dict[tuple[str, int], Figures] = {}
        said = json.dumps(settings, default=str, sort_keys=True)
        if not self.path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            self.path.write_text(said + "\n", encoding="utf-8")
        before, *lines = self.path.read_text(encoding="utf-8").splitlines()
        if before != said:
            raise ValueError(f"{self.path} holds results of {before}, not {said}: another --out")
        for line in lines:
            record = json.loads(line)
            self.found[record["design"], record["seed"]] = record["figures"]

    def add(self, design: str, seed: int, figures: Figures) -> None:
        """Keep the figures of a run."""
        self.found[design, seed] = dict(figures)
        line = json.dumps({"design": design, "seed": seed, "figures": dict(figures)})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)

    def of(self, design: str) -> dict[int, Figures]:
        """The figures of a design by seed."""
        return {seed: found for (name, seed), found in self.found.items() if name == design}


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean and standard deviation."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {statistics.stdev(values):.{digits}f}"
