"""``dense-perception benchmark plan``: what a model will cost on a device that is not here."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dense_perception.core.card import ModelCard
    from dense_perception.export.roofline import Device

HELP = "Predict latency and memory on a device from its published peak rates (roofline)."
EXAMPLES = """\
examples:
  dense-perception benchmark plan dpt_tiny_indoor
  dense-perception benchmark plan depth_anything_v2_small --device orin-nano orin-nx
  dense-perception benchmark plan --device orin-nano --fps 30
  dense-perception benchmark plan dpt_large_midas --device cpu --json

No weights are needed. `bound` is the roofline (see docs/planning.md); `planned` divides it by
--efficiency. `measured` is this machine, where the model's files are here. With --fps, the given
model (or every known one) at its own and smaller sizes, and whether `planned` keeps that rate.
"""
_SCALES = (1.0, 0.75, 0.5)
_STEP = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = "orin-nano, orin-nx, agx-orin, thor, rtx4090, h100, cpu"
    parser.add_argument("model", nargs="?", help="a model's name, card or file (default: all)")
    parser.add_argument(
        "--device", nargs="+", metavar="D", help=f"some of {names} (default: all of them)"
    )
    parser.add_argument(
        "--fps", type=float, metavar="N", help="which sizes keep N frames a second?"
    )
    parser.add_argument(
        "--efficiency", type=float, help="share of the roofline to plan with (default 0.4)"
    )
    parser.add_argument("--no-measure", action="store_true", help="measure nothing here")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def main(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from dense_perception.core.errors import DensePerceptionError, InputError
    from dense_perception.core.registry import list_models
    from dense_perception.export.roofline import ASSUMED_EFFICIENCY, predict

    efficiency = ASSUMED_EFFICIENCY if options.efficiency is None else options.efficiency
    if not 0 < efficiency <= 1:
        raise InputError(f"--efficiency is {efficiency}, expected above 0 and at most 1")
    if options.fps is not None and not options.fps > 0:
        raise InputError(f"--fps is {options.fps}, expected more than 0")
    devices = _devices(options.device)
    names = [options.model] if options.model else sorted(list_models())
    scales = _SCALES if options.fps is not None else (1.0,)
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    for name in tqdm(names, unit="model", disable=None, file=sys.stderr):
        try:
            card = _card(name)
            measured = {} if options.no_measure else _measured(name, devices)
            for width, height in _sizes(card, scales):
                operations, parameters = _traced(card, width, height)
                for device in devices:
                    for precision in device.tera:
                        found = predict(operations, parameters, device, precision, efficiency)
                        row: dict[str, Any] = {
                            "model": card.name,
                            "size": f"{width}x{height}",
                            "device": device.name,
                            "precision": precision,
                            "gflop": round(sum(o.flops for o in operations) / 1e9, 2),
                            "bound_ms": round(found.bound_ms, 3),
                            "planned_ms": round(found.planned_ms, 2),
                            "fps": round(1e3 / found.planned_ms, 1),
                            "memory_mb": round(found.memory_mb, 1),
                        }
                        here = (width, height) == (card.input.width, card.input.height)
                        if device.name == "cpu" and here and precision in measured:
                            row["measured_ms"] = measured[precision]
                        if options.fps is not None:
                            fits = found.memory_mb / 1e3 < device.memory_gb
                            row["fits"] = bool(row["fps"] >= options.fps and fits)
                        rows.append(row)
        except DensePerceptionError as error:
            if options.model:
                raise
            problems.append(f"{name}: {error}")
    summary = {
        "efficiency": efficiency,
        "devices": {device.name: device.source for device in devices},
        "rows": rows,
        "passed_over": problems,
    }
    print(json.dumps(summary) if options.json else table(summary, options.fps))
    return 1 if problems else 0


def _devices(names: list[str] | None) -> list[Device]:
    from dense_perception.core.errors import InputError
    from dense_perception.export.roofline import DEVICES, this_cpu

    known = [*DEVICES, "cpu"]
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise InputError(f"--device is {', '.join(unknown)}, expected some of {', '.join(known)}")
    return [this_cpu() if name == "cpu" else DEVICES[name] for name in names or known]


def _card(name: str) -> ModelCard:
    from dense_perception.core.registry import find_card, find_model, list_models

    return find_card(name) if name in list_models() else find_model(name).card


def _sizes(card: ModelCard, scales: tuple[float, ...]) -> list[tuple[int, int]]:
    """The card's size as it is, smaller ones in whole steps."""
    from math import gcd

    own = (card.input.width, card.input.height)
    step = 14 if gcd(*own) % 14 == 0 else _STEP
    smaller = [
        (max(step, round(own[0] * s / step) * step), max(step, round(own[1] * s / step) * step))
        for s in scales
        if s < 1
    ]
    return list(dict.fromkeys([own, *smaller]))


def _traced(card: ModelCard, width: int, height: int) -> tuple[list[Any], int]:
    """Operations of one frame (of every window where the card says so) and parameters.

    :raises CardError: if the network cannot be built or take the size.
    """
    import torch

    from dense_perception.core.errors import CardError
    from dense_perception.nets import zoo
    from dense_perception.nets.sliding_window import SlidingWindow
    from dense_perception.nets.trace import trace

    network = dict(card.network)
    entry = card.segmentation
    windowed = entry is not None and entry.window and (width, height) != (entry.window,) * 2
    if not windowed and {"height", "width"} <= set(network):
        network |= {"height": height, "width": width}
    module: Any = zoo.build(network).eval().to("meta")
    parameters = sum(parameter.numel() for parameter in module.parameters())
    if windowed and entry is not None:
        module = SlidingWindow(module, height, width, entry.window, entry.stride).to("meta")
    try:
        with torch.device("meta"):
            return trace(module, height, width), parameters
    except (RuntimeError, ValueError, AssertionError) as error:
        raise CardError(f"{card.name} cannot take {width}x{height}: {error}") from error


def _measured(name: str, devices: list[Device]) -> dict[str, float]:
    """Median ms of the fastest installed backend by precision, where the files are here."""
    from dense_perception.backends.select import candidates, installed_backends, open_backend
    from dense_perception.backends.speed import measure_ms
    from dense_perception.core.errors import BackendError, ModelNotFoundError
    from dense_perception.core.registry import find_model

    if not any(device.name == "cpu" for device in devices):
        return {}
    try:
        model = find_model(name)
    except ModelNotFoundError:
        return {}
    found: dict[str, float] = {}
    tried, _ = candidates(installed_backends(), model.precisions)
    for backend_name, precision in tried:
        file, _ = model.artefact(precision)
        try:
            backend = open_backend(backend_name, file)
        except BackendError:
            continue
        try:
            median = round(measure_ms(backend, seconds=1.0), 2)
        finally:
            backend.close()
        found[precision] = min(median, found.get(precision, median))
    return found


def table(summary: dict[str, Any], fps: float | None) -> str:
    head = (
        f"{'model':36}{'size':>10} {'device':<10}{'':6}{'GFLOP':>8}{'bound ms':>10}"
        f"{'planned':>9}{'per s':>8}{'MB':>8}{'measured':>10}"
    )
    lines = [head + (f"  {fps:g}/s?" if fps is not None else "")]
    for row in summary["rows"]:
        measured = f"{row['measured_ms']:.2f}" if "measured_ms" in row else "-"
        line = (
            f"{row['model']:36}{row['size']:>10} {row['device']:<10}{row['precision']:6}"
            f"{row['gflop']:>8.1f}{row['bound_ms']:>10.2f}{row['planned_ms']:>9.1f}"
            f"{row['fps']:>8.1f}{row['memory_mb']:>8.0f}{measured:>10}"
        )
        lines.append(line + ("  yes" if row.get("fits") else ""))
    lines.append(f"planned at {summary['efficiency']:g} of the roofline; peak rates:")
    lines += [f"  {name}: {source}" for name, source in summary["devices"].items()]
    lines += [f"passed over: {problem}" for problem in summary["passed_over"]]
    return "\n".join(lines)
