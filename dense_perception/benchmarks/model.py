"""Latency of a model end to end: uint8 image in memory to metric depth of the image's size."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from dense_perception.backends.device import choose_device
from dense_perception.backends.opening import installed_backends
from dense_perception.benchmarks.tegrastats import Jetson, watched
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import BackendError, DensePerceptionError, InputError
from dense_perception.core.machine import cpu_name
from dense_perception.core.registry import find_model
from dense_perception.imaging.resize import prepare, restore
from dense_perception.runtime.perceiver import Perceiver

_Call = Callable[[], object]


@dataclass(frozen=True)
class Contestant:
    """One way to run the model; ``ratio`` is its median over that of our fastest."""

    name: str
    ours: bool
    median_ms: float
    p95_ms: float
    fps: float
    runs: int
    ratio: float


@dataclass(frozen=True)
class ModelResult:
    """``threads`` 0 is all cores; ``passed_over`` says what could not be loaded and why.

    ``jetson`` is what tegrastats said meanwhile, None on other machines.
    """

    model: str
    image: str
    network: str
    cpu: str
    threads: int
    rows: list[Contestant]
    passed_over: list[str]
    jetson: Jetson | None = None


@dataclass(frozen=True)
class ModelRun:
    """Which model, and where it runs; ``auto`` measures every backend and every precision."""

    model: str
    backend: str = "auto"
    precision: str = "auto"
    device: str = "auto"
    threads: int = 0


def measure_model(
    run: ModelRun,
    *,
    width: int = 640,
    height: int = 480,
    runs: int = 60,
    transformers: bool = False,
) -> ModelResult:
    """Time every contestant ``runs`` times on one image of ``width`` x ``height``.

    :param transformers: let DPT of the ``transformers`` library take its turns too.
    :raises InputError: if ``runs`` is below 1.
    :raises DensePerceptionError: if there is no such model, or nothing can run it.
    """
    if runs < 1:
        raise InputError(f"--runs is {runs}, expected at least 1")
    card = find_model(run.model).card
    rgb_hwc = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    contestants, passed_over = _ours(run, rgb_hwc)
    ours = list(contestants)
    if transformers:
        contestants |= _transformers(card, run.threads, rgb_hwc)
    with watched() as watch:
        times_ms = take_turns(contestants, runs)
    best_ms = min(round(float(np.median(times_ms[name])), 2) for name in ours)
    return ModelResult(
        model=card.name,
        image=f"{width}x{height}",
        network=f"{card.input.width}x{card.input.height}",
        cpu=cpu_name(),
        threads=run.threads,
        rows=[_contestant(name, v, name in ours, best_ms) for name, v in times_ms.items()],
        passed_over=passed_over,
        jetson=watch.result(),
    )


def take_turns(contestants: dict[str, _Call], runs: int) -> dict[str, list[float]]:
    """Milliseconds of ``runs`` timed calls each, in alternating short rounds after a warm-up.

    A contestant that needs over a second a call gets fewer rounds, at least five calls.
    """
    burst = max(1, min(5, runs))
    times_ms: dict[str, list[float]] = {name: [] for name in contestants}
    limit: dict[str, int] = {}
    for name, call in contestants.items():
        call()
        start = time.perf_counter()
        call()
        slow = time.perf_counter() - start > 1.0
        limit[name] = min(runs, 5) if slow else runs
    bar = tqdm(total=sum(limit.values()), unit="run", disable=None, file=sys.stderr)
    while any(len(times_ms[name]) < limit[name] for name in contestants):
        for name, call in contestants.items():
            for _ in range(min(burst, limit[name] - len(times_ms[name]))):
                start = time.perf_counter()
                call()
                times_ms[name].append((time.perf_counter() - start) * 1e3)
                bar.update()
    bar.close()
    return times_ms


def _ours(run: ModelRun, rgb_hwc: np.ndarray) -> tuple[dict[str, _Call], list[str]]:
    """One perceiver per installed backend and precision; notes say which could not be loaded."""
    model = find_model(run.model)
    device, _ = choose_device(run.device, run.backend)
    backends = installed_backends(device) if run.backend == "auto" else (run.backend,)
    precisions = model.precisions if run.precision == "auto" else (run.precision,)
    contestants: dict[str, _Call] = {}
    notes: list[str] = []
    for backend in backends:
        for precision in precisions:
            name = f"{backend}/{precision}"
            try:
                perceiver = Perceiver.load(
                    run.model,
                    backend=backend,
                    precision=precision,
                    device=run.device,
                    threads=run.threads,
                )
            except DensePerceptionError as error:
                notes.append(f"{name}: {error}")
                continue
            contestants[name] = lambda perceiver=perceiver: perceiver(rgb_hwc)  # type: ignore[misc]
    if run.backend == run.precision == "auto" and len(contestants) > 1:
        chosen = _chosen(run)
        selection = chosen.selection
        name = f"auto ({selection.backend}/{selection.precision})"
        contestants[name] = lambda: chosen(rgb_hwc)
    if not contestants:
        raise BackendError(f"nothing can run {run.model}: {'; '.join(notes)}")
    return contestants, notes


def _chosen(run: ModelRun) -> Perceiver:
    """What ``auto`` settles for: started again while it leaves candidates for a later start."""
    for _ in range(8):
        chosen = Perceiver.load(run.model, device=run.device, threads=run.threads)
        if not any("later start" in outcome.note for outcome in chosen.selection.considered):
            break
        chosen.close()
    else:
        chosen = Perceiver.load(run.model, device=run.device, threads=run.threads)
    return chosen


def _transformers(card: ModelCard, threads: int, rgb_hwc: np.ndarray) -> dict[str, _Call]:
    from dense_perception.nets.transformers_reference import hybrid_dpt, plain_dpt

    height, width = rgb_hwc.shape[:2]

    def end_to_end(network: Callable[[np.ndarray], np.ndarray], side: int) -> _Call:
        return lambda: restore(network(prepare(rgb_hwc, side, side)), width, height)

    network = card.network
    if card.family == "dpt" and card.variant in ("base", "large"):
        side = 16 * max(1, round((card.input.width * card.input.height) ** 0.5 / 16))
        large = card.variant == "large"
        name = f"transformers DPT-{card.variant.title()} {side}x{side} fp32"
        return {name: end_to_end(plain_dpt(side, threads, large=large), side)}
    dim = int(network.get("dim", 192))
    depth = int(network.get("depth", 4))
    heads = int(network.get("heads", 4))
    features = int(network.get("features", 40))
    side = 32 * max(1, round((card.input.width * card.input.height) ** 0.5 / 32))
    return {
        f"transformers DPT-Hybrid {side}x{side} fp32": end_to_end(hybrid_dpt(side, threads), side),
        f"the same, {depth} layers of {dim}, {features} features": end_to_end(
            hybrid_dpt(side, threads, dim=dim, layers=depth, heads=heads, features=features), side
        ),
    }


def _contestant(name: str, values_ms: list[float], ours: bool, best_ms: float) -> Contestant:
    median = float(np.median(values_ms))
    return Contestant(
        name=name,
        ours=ours,
        median_ms=round(median, 2),
        p95_ms=round(float(np.percentile(values_ms, 95)), 2),
        fps=round(1e3 / median, 1),
        runs=len(values_ms),
        ratio=round(round(median, 2) / best_ms, 2),
    )
