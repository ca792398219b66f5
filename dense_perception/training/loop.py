"""The training loop: set up, step, validate, save; read from top to bottom."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dense_perception.core.errors import TrainingError
from dense_perception.nets.checkpoint import Checkpoint
from dense_perception.nets.weights import LoadReport
from dense_perception.nets.zoo import build, normalisation
from dense_perception.training import run_folder
from dense_perception.training.batches import Batch, Batches, Frames
from dense_perception.training.config import TrainingConfig
from dense_perception.training.feature_mixing import FeatureMixing
from dense_perception.training.frozen import fold_frozen
from dense_perception.training.initialisation import initialise
from dense_perception.training.losses import multitask_loss, total_loss
from dense_perception.training.optimisation import (
    MovingAverage,
    learning_rate,
    parameter_groups,
    set_modes,
)
from dense_perception.training.provenance import card_of
from dense_perception.training.validation import validate

Report = Callable[[dict[str, Any]], None]


@dataclass
class Progress:
    """Where a run is; everything here is in the run_folder."""

    step: int = 0
    samples: int = 0
    elapsed_s: float = 0.0
    results: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """One run: what is trained on what, where it goes, and with what.

    ``device`` is what PyTorch calls it; ``workers`` processes prepare batches, 0 for a thread.
    """

    config: TrainingConfig
    train: Frames
    validation: Frames
    validation_indices: Sequence[int]
    out: Path
    provenance: dict[str, Any]
    initial: Path | None = None
    resume: bool = False
    device: str = "cpu"
    workers: int = 0


def fit(task: Task, report: Report = lambda record: None) -> dict[str, float]:
    """Train until the configured time or step count is over; returns the last validation.

    ``report`` gets a record of the first and every tenth step and of each validation. A run that
    was interrupted goes on exactly where its last checkpoint was with ``resume``.

    :raises TrainingError: if there is nothing to resume or it belongs to another run, or the loss
        is not finite.
    """
    config = task.config
    torch.manual_seed(config.seed)
    network = build(config.network)
    if not hasattr(network, "maps"):
        raise TrainingError(
            f"{config.network.get('family')}/{config.network.get('variant')} cannot be trained "
            "here: the losses need metric depth or the maps of a multitask network; take dpt/"
            "hybrid_lite0, depth_anything with max_depth_m, or a network of the family mult"
        )

    def tell(loaded: LoadReport) -> None:
        report({"kind": "initialisation", "text": str(loaded)})

    origin = initialise(network, config, task.initial, tell)
    provenance = {**task.provenance, "initialisation": origin}
    device = torch.device(task.device)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(parameter_groups(network, config), betas=(0.9, 0.99), fused=True)
    average = MovingAverage(network, config.ema_decay)
    progress = Progress()
    if task.resume:
        provenance = _restore(task, network, optimiser, average, progress, provenance)
    run = _Run(task, network, optimiser, average, progress, provenance, report)
    batches = Batches(task.train, config, task.workers, pinned=device.type == "cuda")
    mixing = FeatureMixing(network, config.feature_mix, config.feature_mix_p)
    try:
        return run.until_done(batches)
    finally:
        mixing.close()
        batches.close()


class _Run:
    def __init__(
        self,
        task: Task,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        average: MovingAverage,
        progress: Progress,
        provenance: dict[str, Any],
        report: Report,
    ) -> None:
        self.task, self.config = task, task.config
        self.network, self.optimiser, self.average = network, optimiser, average
        self.progress, self.provenance, self.report = progress, provenance, report
        self.needs_focal = bool(getattr(network, "needs_focal", False))
        self.mean, self.std = normalisation(task.config.network)
        self.trained = [p for group in optimiser.param_groups for p in group["params"]]
        self.device = torch.device(task.device)
        self.averaged = build(task.config.network).to(  # type: ignore[call-overload]
            self.device, memory_format=torch.channels_last
        )

    def until_done(self, batches: Batches) -> dict[str, float]:
        config, progress = self.config, self.progress
        set_modes(self.network, config)
        fold_frozen(self.network)
        now = time.monotonic()
        began = now - progress.elapsed_s
        validated = saved = logged = now
        while self.share() < 1:
            parts = self.step(batches)
            now = time.monotonic()
            progress.elapsed_s = now - began
            if progress.step == 1 or progress.step % 10 == 0:
                waited = batches.waited_s / max(now - logged, 1e-9)
                self.log("train", {**parts, "waiting": min(waited, 1.0)})
                logged, batches.waited_s = time.monotonic(), 0.0
            # With a step count the run is a function of its configuration: nothing depends on time.
            if now - validated > config.validate_minutes * 60:
                self.validate()
                validated = time.monotonic()
            if now - saved > config.save_minutes * 60:
                self.save()
                saved = time.monotonic()
        self.validate()
        self.save()
        return progress.results

    def share(self) -> float:
        """How much of the run is over, 0 to 1."""
        if self.config.steps:
            return self.progress.step / self.config.steps
        return self.progress.elapsed_s / (60 * self.config.minutes)

    def step(self, batches: Batches) -> dict[str, float]:
        config, progress = self.config, self.progress
        share = self.share()
        batch = batches.take(progress.samples, config.stage_at(share)).to(self.device)
        # Seeded by position, so that a resumed run draws what the uninterrupted one would.
        torch.manual_seed(config.seed * 1_000_003 + progress.step)
        rate = learning_rate(config, share)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        loss, parts = self.loss(batch)
        if not math.isfinite(float(loss.detach())):
            raise TrainingError(
                f"the loss is {float(loss.detach())} at step {progress.step}: lower learning_rate; "
                f"the last good state is {self.task.out / run_folder.STATE_FILE}"
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.trained, config.grad_clip or math.inf)
        self.optimiser.step()
        self.average.update(self.network)
        progress.step += 1
        progress.samples += len(batch.focal_px)
        values = {name: float(part) for name, part in parts.items()}
        return {"loss": float(loss.detach()), **values, "rate": rate, "norm": float(norm)}

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum and its parts. Depth is unclamped: pixels out of range still teach."""
        image_nchw = batch.image_nchw(self.mean, self.std)
        with torch.autocast(
            image_nchw.device.type, torch.bfloat16, enabled=self.config.arithmetic == "bf16"
        ):
            maps = self.network.maps(image_nchw)  # type: ignore[operator]
        # The losses are taken in fp32: bf16 resolves 0.4 %.
        maps = {task: found.float() for task, found in maps.items()}
        if "depth" not in maps:
            return multitask_loss(maps, batch.targets, self.config.losses)
        log_nhw = maps.pop("depth").reshape(batch.depth_m.shape)
        if self.needs_focal:
            log_nhw = log_nhw + (batch.focal_px / image_nchw.shape[-1]).log()[:, None, None]
        valid = (batch.depth_m >= self.config.min_m) & (batch.depth_m <= self.config.max_m)
        loss, parts = total_loss(log_nhw, batch.depth_m, valid, self.config.losses, batch.focal_px)
        further, more = multitask_loss(maps, batch.targets, self.config.losses)
        return loss + further, {**parts, **more}

    def validate(self) -> None:
        self.averaged.load_state_dict(self.average.state)
        self.progress.results = validate(
            self.averaged, self.task.validation, self.task.validation_indices, self.config, 16
        )
        self.log("validation", self.progress.results)

    def log(self, kind: str, values: dict[str, float]) -> None:
        progress = self.progress
        record = {
            "kind": kind,
            "step": progress.step,
            "samples": progress.samples,
            "minutes": round(progress.elapsed_s / 60, 3),
            "share": round(min(self.share(), 1.0), 5),
            **{name: round(value, 6) for name, value in values.items()},
        }
        with (self.task.out / run_folder.LOG_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.report(record)

    def save(self) -> None:
        progress = self.progress
        training = {
            **self.provenance,
            "step": progress.step,
            "samples": progress.samples,
            "minutes": round(progress.elapsed_s / 60, 2),
            "results": progress.results,
            "config": self.config.to_dict(),
        }
        delivery = {
            "model": {name: value.cpu() for name, value in self.average.state.items()},
            "card": card_of(self.config, training, self.needs_focal).to_dict(),
            "training": training,
        }
        resume = {
            "weights": {name: value.cpu() for name, value in self.network.state_dict().items()},
            "optimiser": self.optimiser.state_dict(),
            "updates": self.average.updates,
            "elapsed_s": progress.elapsed_s,
        }
        run_folder.save(self.task.out / run_folder.STATE_FILE, {**delivery, "resume": resume})
        run_folder.save(self.task.out / run_folder.MODEL_FILE, delivery)


def _restore(
    task: Task,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: MovingAverage,
    progress: Progress,
    provenance: dict[str, Any],
) -> dict[str, Any]:
    path = task.out / run_folder.STATE_FILE
    state = run_folder.read(path, ("model", "training", "resume"))
    training, resume = state.content["training"], state.content["resume"]
    # The length may change; anything else would make it another run.
    lengths = ("minutes", "steps", "validate_minutes", "save_minutes")
    before = {k: v for k, v in training["config"].items() if k not in lengths}
    now = {k: v for k, v in task.config.to_dict().items() if k not in lengths}
    changed = sorted(key for key in now if before.get(key) != now[key])
    if changed or training.get("data") != provenance.get("data"):
        raise TrainingError(
            f"{path} belongs to a run with other {changed or 'data'}: resume with the same "
            "configuration and corpora, or start a new run from its weights with --init"
        )
    run_folder.fill(network, Checkpoint(path, resume["weights"]))
    optimiser.load_state_dict(resume["optimiser"])
    for key, value in state.weights.items():
        average.state[key].copy_(value)
    average.updates = resume["updates"]
    progress.step, progress.samples = training["step"], training["samples"]
    progress.elapsed_s, progress.results = resume["elapsed_s"], training["results"]
    return {**provenance, **{key: training[key] for key in provenance if key in training}}
