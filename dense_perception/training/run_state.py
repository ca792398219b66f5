"""Where a run is, on disk: saved so that a resumed run goes on to the digit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict, cast

import torch
from torch import Tensor, nn

from dense_perception.core.errors import TrainingError
from dense_perception.core.json_text import parse_json
from dense_perception.core.storage import atomic_write_text
from dense_perception.nets.checkpoint import Checkpoint
from dense_perception.nets.zoo import is_same
from dense_perception.training import run_folder
from dense_perception.training.config import LENGTHS, TrainingConfig
from dense_perception.training.engine import Engine
from dense_perception.training.figures import is_better
from dense_perception.training.objective import Learner
from dense_perception.training.optimisation import MovingAverage
from dense_perception.training.provenance import Provenance, Training, card_of
from dense_perception.training.tuning import merged


@dataclass
class Progress:
    """How far a run is; everything here is in the run folder.

    ``best`` is the best value of the figure that ``best.pt`` is kept by.
    """

    step: int = 0
    samples: int = 0
    elapsed_s: float = 0.0
    results: dict[str, float] = field(default_factory=dict)
    best: float | None = None
    resumed: bool = False


class Resume(TypedDict, total=False):
    """What ``state.pt`` holds beside the delivery, under ``resume``."""

    weights: dict[str, Tensor]
    optimiser: dict[str, object]
    average: dict[str, Tensor]
    updates: int
    elapsed_s: float
    weighting: dict[str, Tensor]
    scaling: Mapping[str, float]


@dataclass
class RunState:
    """Everything of a run that changes with its steps, and the record it is saved with.

    ``network`` is the learner's, ``average`` that of its weights.
    """

    config: TrainingConfig
    learner: Learner
    optimiser: torch.optim.Optimizer
    average: MovingAverage
    engine: Engine
    provenance: Provenance
    progress: Progress = field(default_factory=Progress)

    @property
    def network(self) -> nn.Module:
        return self.learner.network

    def save(self, out: Path) -> None:
        """Write ``state.pt`` and ``model.pt``.

        :raises TrainingError: if they cannot be written.
        """
        progress, delivery = self.progress, self._delivery()
        resume: Resume = {
            "weights": _on_cpu(self.network.state_dict()),
            "optimiser": self.optimiser.state_dict(),
            "updates": self.average.updates,
            "elapsed_s": progress.elapsed_s,
            "scaling": self.engine.scaling_state(),
        }
        if self.config.tuning.method == "lora":  # what was merged cannot be taken apart
            resume["average"] = _on_cpu(self.average.state)
        if self.learner.weighting is not None:
            resume["weighting"] = dict(self.learner.weighting.state_dict())
        run_folder.save(out / run_folder.STATE_FILE, {**delivery, "resume": resume})
        run_folder.save(out / run_folder.MODEL_FILE, delivery)

    def keep_if_best(self, out: Path, figure: str) -> str:
        """Write ``best.pt`` if no validation before was as good by ``figure``, which this one has.

        Returns what is wrong with the file that was there, which is replaced then; "" for nothing.

        :raises TrainingError: if it cannot be written.
        """
        path = out / run_folder.BEST_FILE
        best, warning = self.progress.best, ""
        # A run that goes on compares with what was kept before.
        if best is None and self.progress.resumed and path.exists():
            try:
                best = run_folder.read(path).content["training"].get("results", {}).get(figure)
            except TrainingError as error:
                warning = f"{error}; the model of this validation takes its place"
        value = self.progress.results[figure]
        if best is None or not math.isfinite(best) or is_better(figure, value, best):
            best = value
            run_folder.save(path, self._delivery())
        self.progress.best = best
        return warning

    def _delivery(self) -> dict[str, object]:
        progress = self.progress
        own: Training = {
            "step": progress.step,
            "samples": progress.samples,
            "minutes": round(progress.elapsed_s / 60, 2),
            "results": progress.results,
            "config": self.config.to_dict(),
        }
        training = cast(Training, {**self.provenance, **own})
        return {
            "model": merged(_on_cpu(self.average.state), self.config.tuning),
            "card": card_of(self.config, training, self.network).to_dict(),
            "training": training,
        }

    def restore(self, out: Path) -> None:
        """Go on from :meth:`save`; forgets what was logged after it.

        :raises TrainingError: if there is nothing to resume, or it belongs to another run.
        """
        path = out / run_folder.STATE_FILE
        state = run_folder.read(path, ("model", "training", "resume"))
        training, resume = state.content["training"], state.content["resume"]
        # Entries that are newer than the run have their defaults.
        before = TrainingConfig.from_dict(training["config"], f"the configuration in {path}")
        was, now = before.to_dict(), self.config.to_dict()
        changed = sorted(key for key in now if key not in LENGTHS and was[key] != now[key])
        if "network" in changed and is_same(before.network, self.config.network):
            changed.remove("network")
        if changed or training.get("data") != self.provenance.get("data"):
            raise TrainingError(
                f"{path} belongs to a run with other {changed or 'data'}: resume with the same "
                "configuration and corpora, or start a new run from its weights with --init"
            )
        run_folder.fill(self.network, Checkpoint(path, resume["weights"]))
        self.optimiser.load_state_dict(resume["optimiser"])
        for key, value in resume.get("average", state.weights).items():
            self.average.state[key].copy_(value)
        self.average.updates = resume["updates"]
        if self.learner.weighting is not None:
            self.learner.weighting.load_state_dict(resume["weighting"])
        self.engine.restore_scaling(resume.get("scaling", {}))
        progress = self.progress
        progress.step, progress.samples = training["step"], training["samples"]
        progress.elapsed_s, progress.results = resume["elapsed_s"], training["results"]
        progress.resumed = True
        kept = {key: training[key] for key in self.provenance if key in training}
        self.provenance = {**self.provenance, **kept}  # type: ignore[typeddict-item]
        if self.engine.is_first:
            _forget_later(out / run_folder.LOG_FILE, progress.step)


def _on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in state.items()}


def _forget_later(log: Path, step: int) -> None:
    """Cut the records after ``step`` from a log: the resumed run writes them again."""
    if not log.exists():
        return
    kept = []
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            record = parse_json(line)
        except ValueError:  # the run was killed while it wrote
            continue
        if isinstance(record, dict) and record.get("step", 0) <= step:
            kept.append(line + "\n")
    atomic_write_text(log, "".join(kept))
