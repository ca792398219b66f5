"""``dense-perception benchmark model``: a uint8 image in memory to metric depth, by backend."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from dense_perception.core.card import ModelCard
    from dense_perception.runtime.perceiver import Perceiver

HELP = "Measure a model end to end: uint8 image in memory to metric depth of the image's size."
EXAMPLES = """\
examples:
  dense-perception benchmark model dpt_tiny_indoor
  dense-perception export dpt/base --random --size 384x384 --output /tmp/base --precision fp32 int8
  dense-perception benchmark model /tmp/base/dpt_base_untrained.yaml --against transformers
  dense-perception benchmark model dpt_tiny_indoor --image-size 1280x720 --threads 1 --json
  dense-perception benchmark model dpt_tiny_indoor --against transformers

Contestants take turns, so that a busy machine troubles all of them alike. `auto` is what a node
chooses once it has measured everything, which may take a big model several starts. With --against
transformers, DPT of the `transformers` library with random weights in fp32 PyTorch runs in the same
turns, prepared and restored by this package's own code: for a DPT-Base or DPT-Large the same
network; for other models DPT-Hybrid, once with its standard widths, once with this model's
transformer and decoder widths. It takes square inputs only: those whose area is nearest to the
model's.
"""

_Call = Callable[[], object]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a model's name (see `dense-perception models`) or file")
    parser.add_argument("--backend", default="auto", help="only this one (default: every one)")
    parser.add_argument("--precision", default="auto", help="only this one (default: every one)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, gpu, ... (default: cpu)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default 0: all cores)")
    parser.add_argument("--image-size", default="640x480", metavar="WxH", help="of the image")
    parser.add_argument("--runs", type=int, default=60, help="timed runs of each contestant")
    parser.add_argument("--against", choices=("transformers",), help="compare with this library")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def main(options: argparse.Namespace) -> int:
    from dense_perception.core.errors import InputError
    from dense_perception.core.registry import find_model

    width, height = _image_size(options.image_size)
    if options.runs < 1:
        raise InputError(f"--runs is {options.runs}, expected at least 1")
    model = find_model(options.model)
    rgb_hwc = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    contestants, notes = _ours(options, rgb_hwc)
    ours = list(contestants)
    if options.against == "transformers":
        contestants |= _transformers(model.card, options.threads, rgb_hwc)
    times_ms = take_turns(contestants, options.runs)
    rows = [_row(name, values, name in ours) for name, values in times_ms.items()]
    best = min((row for row in rows if row["ours"]), key=lambda row: row["median_ms"])
    for row in rows:
        row["ratio"] = round(row["median_ms"] / best["median_ms"], 2)
    summary = {
        "model": model.card.name,
        "image": f"{width}x{height}",
        "network": f"{model.card.input.width}x{model.card.input.height}",
        "cpu": _machine(),
        "threads": options.threads,
        "rows": rows,
        "passed_over": notes,
    }
    print(json.dumps(summary) if options.json else _table(summary))
    return 0


def take_turns(contestants: dict[str, _Call], runs: int) -> dict[str, list[float]]:
    """Milliseconds of ``runs`` timed calls each, in alternating short rounds after a warm-up.

    A contestant that needs over a second a call gets fewer rounds, at least five calls.
    """
    from tqdm import tqdm

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


def _ours(options: argparse.Namespace, rgb_hwc: np.ndarray) -> tuple[dict[str, _Call], list[str]]:
    """One perceiver per installed backend and precision; notes say which could not be loaded."""
    from dense_perception.backends.select import installed_backends
    from dense_perception.core.errors import BackendError, DensePerceptionError
    from dense_perception.core.registry import find_model
    from dense_perception.runtime.perceiver import Perceiver

    model = find_model(options.model)
    backends = installed_backends() if options.backend == "auto" else (options.backend,)
    precisions = model.precisions if options.precision == "auto" else (options.precision,)
    contestants: dict[str, _Call] = {}
    notes: list[str] = []
    for backend in backends:
        for precision in precisions:
            name = f"{backend}/{precision}"
            try:
                perceiver = Perceiver.load(
                    options.model,
                    backend=backend,
                    precision=precision,
                    device=options.device,
                    threads=options.threads,
                )
            except DensePerceptionError as error:
                notes.append(f"{name}: {error}")
                continue
            contestants[name] = lambda perceiver=perceiver: perceiver(rgb_hwc)  # type: ignore[misc]
    if options.backend == options.precision == "auto" and len(contestants) > 1:
        chosen = _chosen(options)
        selection = chosen.selection
        name = f"auto ({selection.backend}/{selection.precision})"
        contestants[name] = lambda: chosen(rgb_hwc)
    if not contestants:
        raise BackendError(f"nothing can run {options.model}: {'; '.join(notes)}")
    return contestants, notes


def _chosen(options: argparse.Namespace) -> Perceiver:
    """What ``auto`` settles for: started again while it leaves candidates for a later start."""
    from dense_perception.runtime.perceiver import Perceiver

    for _ in range(8):
        chosen = Perceiver.load(options.model, device=options.device, threads=options.threads)
        if not any("later start" in outcome.note for outcome in chosen.selection.considered):
            break
        chosen.close()
    else:
        chosen = Perceiver.load(options.model, device=options.device, threads=options.threads)
    return chosen


def _transformers(card: ModelCard, threads: int, rgb_hwc: np.ndarray) -> dict[str, _Call]:
    from dense_perception.imaging.resize import prepare, restore
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


def _image_size(text: str) -> tuple[int, int]:
    from dense_perception.core.errors import InputError

    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise InputError(f"--image-size is {text!r}, expected WIDTHxHEIGHT such as 640x480")
    return int(width), int(height)


def _row(name: str, values_ms: list[float], ours: bool) -> dict[str, Any]:
    median = float(np.median(values_ms))
    return {
        "name": name,
        "ours": ours,
        "median_ms": round(median, 2),
        "p95_ms": round(float(np.percentile(values_ms, 95)), 2),
        "fps": round(1e3 / median, 1),
        "runs": len(values_ms),
    }


def _machine() -> str:
    from dense_perception.core.machine import cpu_name

    return cpu_name()


def _table(summary: dict[str, Any]) -> str:
    threads = summary["threads"] or "all"
    wide = max(len(row["name"]) for row in summary["rows"])
    lines = [
        f"{summary['model']}: {summary['image']} image, network {summary['network']}, "
        f"{summary['cpu']}, {threads} threads",
        f"{'':{wide}} {'median':>10} {'95 %':>10} {'per s':>8} {'ratio':>7}",
    ]
    for row in summary["rows"]:
        lines.append(
            f"{row['name']:{wide}} {row['median_ms']:7.1f} ms {row['p95_ms']:7.1f} ms "
            f"{row['fps']:8.1f} {row['ratio']:7.2f}"
        )
    lines += [f"passed over: {note}" for note in summary["passed_over"]]
    return "\n".join(lines)
