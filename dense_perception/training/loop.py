"""The training loop: set up, step, validate, save; read from top to bottom."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from dense_perception.core.errors import TrainingError
from dense_perception.core.json_text import json_text
from dense_perception.nets.weights import LoadReport
from dense_perception.nets.zoo import build, normalisation
from dense_perception.training import run_folder
from dense_perception.training.batch import Batch
from dense_perception.training.batches import Batches, Division, Frames
from dense_perception.training.config import StageConfig, TrainingConfig
from dense_perception.training.curves import PICTURES, Curves
from dense_perception.training.engine import Engine, Placement
from dense_perception.training.faults import explain_not_finite, out_of_memory
from dense_perception.training.feature_mixing import FeatureMixing
from dense_perception.training.figures import NO_FIGURE
from dense_perception.training.frozen import fold_frozen
from dense_perception.training.initialisation import initialise
from dense_perception.training.objective import Learner
from dense_perception.training.optimisation import (
    MovingAverage,
    optimiser_of,
    parameter_groups,
    set_modes,
)
from dense_perception.training.provenance import Provenance
from dense_perception.training.run_state import RunState
from dense_perception.training.schedules import learning_rate
from dense_perception.training.sources import Sources
from dense_perception.training.teacher import Teacher
from dense_perception.training.tuning import trained_share, tune
from dense_perception.training.validation import validate

Record: TypeAlias = Mapping[str, str | int | float]
Report: TypeAlias = Callable[[Record], None]

_LOG_EVERY = 10
# Steps in a row that loss scaling may skip before it is no longer looking for a scale.
_MOST_SKIPPED = 50
# Of a hundred frames, so many may be unreadable.
_MOST_UNREADABLE = 0.01


@dataclass(frozen=True)
class Task:
    """One run: what is trained on what, where it goes, and with what.

    ``workers`` processes prepare batches for each process of the run, 0 for a thread.
    ``augment_on_device`` lets the device make the views of a batch instead of whoever loads it.
    ``tensorboard`` writes curves and pictures beside the log. A ``teacher``, see
    :class:`~dense_perception.training.teacher.Teacher`, takes the place of the training frames'
    truth.
    """

    config: TrainingConfig
    train: Frames
    validation: Frames
    validation_indices: Sequence[int]
    out: Path
    provenance: Provenance
    initial: Path | None = None
    resume: bool = False
    placement: Placement = field(default_factory=Placement)
    workers: int = 0
    augment_on_device: bool = False
    tensorboard: bool = False
    teacher: Path | None = None


def fit(task: Task, report: Report = lambda record: None) -> dict[str, float]:
    """Train until the configured time or step count is over; returns the last validation.

    ``report`` gets a record of the first and every tenth step, of each validation and of each frame
    that cannot be read. A run that was interrupted goes on exactly where its last checkpoint was
    with ``resume``. Of several processes the first one validates, writes and reports; the others
    return no results.

    :raises TrainingError: if there is nothing to resume or it belongs to another run, a loss or a
        gradient is not finite, memory runs out, or frames cannot be read.
    """
    config = task.config
    engine = Engine(task.placement, config.arithmetic)
    division = Division(engine.rank, engine.processes, config.accumulate)
    for stage in config.stages:
        division.size(stage.batch)
    torch.manual_seed(config.seed)
    network = build(config.network)
    learner = Learner(network, config, *normalisation(config.network))

    def tell(loaded: LoadReport | str) -> None:
        if engine.is_first:
            report({"kind": "initialisation", "text": str(loaded)})

    origin = initialise(network, config, task.initial, tell)
    tune(network, config.tuning)
    learner.to(engine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    groups = parameter_groups(network, config)
    if learner.weighting is not None:
        weights = list(learner.weighting.parameters())
        rate = config.learning_rate
        groups.append({"params": weights, "factor": 1.0, "weight_decay": 0.0, "lr": rate})
    optimiser = optimiser_of(groups, config)
    provenance: Provenance = {**task.provenance, "initialisation": origin}
    if config.tuning.method != "all":
        trained, _ = trained_share(network)
        provenance["tuning"] = {"method": config.tuning.method, "parameters": trained}
    average = MovingAverage(network, config.ema_decay)
    state = RunState(config, learner, optimiser, average, engine, provenance)
    if task.resume:
        state.restore(task.out)
    with ExitStack() as stack:
        pinned = engine.device.type == "cuda"
        taught = task.teacher is not None
        batches = Batches(
            task.train,
            config,
            task.workers,
            pinned,
            division,
            taught=taught,
            on_device=task.augment_on_device,
        )
        stack.callback(batches.close)
        mixing = FeatureMixing(network, config.feature_mix, config.feature_mix_p)
        stack.callback(mixing.close)
        curves = Curves(task.out) if task.tensorboard and engine.is_first else None
        if curves is not None:
            stack.callback(curves.close)
        return _Run(task, state, batches, curves, report).until_done()


class _Run:
    def __init__(
        self,
        task: Task,
        state: RunState,
        batches: Batches,
        curves: Curves | None,
        report: Report,
    ) -> None:
        self.task, self.config, self.engine = task, task.config, state.engine
        self.state, self.progress, self.batches = state, state.progress, batches
        self.curves, self.report = curves, report
        averaged = build(task.config.network)
        tune(averaged, task.config.tuning)
        self.averaged = averaged.to(  # type: ignore[call-overload]
            self.engine.device, memory_format=torch.channels_last
        )
        self.teacher: Teacher | None = None
        if task.teacher is not None:
            self.teacher = Teacher(task.teacher, task.config, self.engine.device)
        self.unreadable = self.skipped = 0
        self.has_told_no_best = False

    def until_done(self) -> dict[str, float]:
        config, progress = self.config, self.progress
        set_modes(self.state.network, config)
        fold_frozen(self.state.network)
        self.learner, self.optimiser = self.engine.set_up(self.state.learner, self.state.optimiser)
        now = time.monotonic()
        began = now - progress.elapsed_s
        validated = saved = logged = now
        while self.share() < 1:
            values = self.step()
            now = time.monotonic()
            progress.elapsed_s = self.engine.from_first(now - began)
            if not self.engine.is_first:
                continue
            if progress.step == 1 or progress.step % _LOG_EVERY == 0:
                waited = self.batches.waited_s / max(now - logged, 1e-9)
                numbers = {name: float(value) for name, value in values.items()}
                if progress.step == 1:
                    numbers |= self.size()
                self.log("train", {**numbers, "waiting": min(waited, 1.0)})
                logged, self.batches.waited_s = time.monotonic(), 0.0
            # With a step count the run is a function of its configuration: nothing depends on time.
            if self._due(config.validate_steps, config.validate_minutes, now - validated):
                self.validate()
                validated = time.monotonic()
            if self._due(config.save_steps, config.save_minutes, now - saved):
                self.state.save(self.task.out)
                saved = time.monotonic()
        if self.engine.is_first:
            self.validate()
            self.state.save(self.task.out)
        return progress.results

    def share(self) -> float:
        """How much of the run is over, 0 to 1; the same in all processes."""
        if self.config.steps:
            return self.progress.step / self.config.steps
        return self.progress.elapsed_s / (60 * self.config.minutes)

    def size(self) -> dict[str, float]:
        """How much is trained, and the memory that a step takes: said once."""
        trained, parameters = trained_share(self.state.network)
        if self.engine.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.engine.device)
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"trained": trained, "parameters": parameters, "memory_mb": round(peak / 1e6)}

    def _due(self, steps: int, minutes: float, passed_s: float) -> bool:
        return self.progress.step % steps == 0 if steps else passed_s > minutes * 60

    def step(self) -> dict[str, Tensor | float]:
        """One step of the optimiser; its loss, the loss's parts, the rate and the gradient."""
        config, progress = self.config, self.progress
        share = self.share()
        stage = config.stage_at(share)
        rate = learning_rate(config, share)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimiser.zero_grad(set_to_none=True)
        try:
            values, norm, used = self._gradients(stage)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, TrainingError) or not out_of_memory(error):
                raise
            self.optimiser.zero_grad(set_to_none=True)
            raise self._stopped(
                f"out of memory at step {progress.step}, with "
                f"{self.batches.division.size(stage.batch)} frames of "
                f"{stage.width}x{stage.height} at a time: set accumulate to "
                f"{2 * config.accumulate}, which gives the same batch in smaller parts"
            ) from error
        self._check_gradient(norm, used)
        self.optimiser.step()
        if self.engine.is_first:
            self.state.average.update(self.state.network)
        progress.step += 1
        progress.samples += stage.batch
        return {**values, "rate": rate, "norm": norm}

    def _gradients(
        self, stage: StageConfig
    ) -> tuple[dict[str, Tensor | float], Tensor, list[Batch]]:
        """Gradients of the mean loss over all parts, clipped; the mean values, the norm before."""
        parts = self.batches.division.parts
        totals: dict[str, Tensor | float] = {}
        used = []
        for index, on_host in enumerate(self.batches.of_step(self.progress.samples, stage)):
            if index == 0:
                # By position, so that a resumed run draws what the uninterrupted one would; and
                # after the batch, since to start worker processes draws a number, too.
                seed = self.config.seed * 1_000_003 + self.progress.step
                torch.manual_seed(seed + 7919 * self.engine.rank)
            self._tell_unreadable(on_host)
            batch = on_host.ready(self.engine.device)
            if self.teacher is not None:
                batch = self.teacher.teach(batch)
            with self.engine.fabric.no_backward_sync(self.learner, enabled=index < parts - 1):
                loss, found = self.learner(batch)
                self.engine.fabric.backward(loss / parts)
            for name, value in {"loss": loss.detach(), **found}.items():
                totals[name] = totals.get(name, 0.0) + value / parts
            used.append(batch)
        norm = self.engine.fabric.clip_gradients(
            self.learner,
            self.optimiser,
            max_norm=self.config.grad_clip or math.inf,
            error_if_nonfinite=False,
        )
        assert norm is not None
        return totals, norm, used

    def _check_gradient(self, norm: Tensor, used: Sequence[Batch]) -> None:
        """Stop before what is not finite reaches the weights; all processes have the same norm."""
        if bool(torch.isfinite(norm)):
            self.skipped = 0
            return
        self.skipped += 1
        if self.engine.scales_losses and self.skipped <= _MOST_SKIPPED:
            return  # the scaling skips this step and halves its factor
        self.optimiser.zero_grad(set_to_none=True)
        causes = [
            cause for batch in used for cause in explain_not_finite(self.state.learner, batch)
        ]
        found = [cause for each in self.engine.from_all(causes) for cause in each]
        why = "; ".join(found) or "no single frame's loss explains it"
        raise self._stopped(
            f"the gradient is not finite at step {self.progress.step} ({why}): lower "
            "learning_rate, or take these frames out"
        )

    def _stopped(self, why: str) -> TrainingError:
        """The error to raise, with the state saved that was good before this step."""
        path = self.task.out / run_folder.STATE_FILE
        weights = [*self.state.network.state_dict().values(), *self.state.average.state.values()]
        if all(bool(torch.isfinite(w).all()) for w in weights if w.is_floating_point()):
            if self.engine.is_first:
                self.state.save(self.task.out)
            return TrainingError(f"{why}. {path} holds the state before it")
        kept = f"{path} holds the last checkpoint" if path.exists() else "there is no checkpoint"
        return TrainingError(f"{why}. {kept}")

    def _tell_unreadable(self, batch: Batch | Sources) -> None:
        """Report the frames that were replaced; too many of them end the run."""
        for why in batch.unreadable:
            self.unreadable += 1
            if self.engine.is_first:
                self.log("unreadable", {}, why)
        seen = self.progress.samples + len(batch)
        if self.unreadable > max(10, _MOST_UNREADABLE * seen):
            raise TrainingError(
                f"{self.unreadable} frames of the first {seen} cannot be read, the last one is "
                f"{batch.unreadable[-1]}: mend the corpus, then go on with --resume"
            )

    def validate(self) -> None:
        self.averaged.load_state_dict(self.state.average.state)
        task = self.task
        self.progress.results = validate(
            self.averaged, task.validation, task.validation_indices, self.config, 16
        )
        self.log("validation", self.progress.results)
        self._keep_best()
        if self.curves is not None:
            shown = [task.validation[index] for index in task.validation_indices[:PICTURES]]
            self.curves.pictures(self.averaged, shown, self.config, self.progress.step)

    def _keep_best(self) -> None:
        figure, results = self.config.keep_best, self.progress.results
        if figure == NO_FIGURE:
            return
        if math.isfinite(results.get(figure, math.nan)):
            if warning := self.state.keep_if_best(self.task.out, figure):
                self.report({"kind": "notice", "text": warning})
        elif not self.has_told_no_best:
            self.has_told_no_best = True
            has = ", ".join(k for k, value in results.items() if math.isfinite(value)) or "none"
            text = f"best.pt is not kept: the validation has no {figure} but {has}"
            self.report({"kind": "notice", "text": text})

    def log(self, kind: str, values: Mapping[str, float], text: str = "") -> None:
        progress = self.progress
        record: dict[str, str | int | float] = {
            "kind": kind,
            "step": progress.step,
            "samples": progress.samples,
            "minutes": round(progress.elapsed_s / 60, 3),
            "share": round(min(self.share(), 1.0), 5),
            # A metric of nothing is no number, and JSON has no word for it.
            **{name: round(value, 6) for name, value in values.items() if math.isfinite(value)},
            **({"text": text} if text else {}),
        }
        with (self.task.out / run_folder.LOG_FILE).open("a", encoding="utf-8") as file:
            file.write(json_text(record) + "\n")
        if self.curves is not None:
            self.curves.scalars(kind, values, progress.step)
        self.report(record)
