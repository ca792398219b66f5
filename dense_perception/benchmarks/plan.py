"""What a model will cost on a device that is not here, by the roofline of its peak rates."""

from __future__ import annotations

import sys
from collections import Counter
from math import gcd
from typing import TypedDict

from tqdm import tqdm

from dense_perception.backends.nvidia.tensorrt8_graph import problems_after, version_of
from dense_perception.backends.nvidia.tensorrt8_rules import problems, said
from dense_perception.backends.opening import installed_backends, open_backend
from dense_perception.backends.select import candidates
from dense_perception.backends.speed import measure_ms
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import (
    BackendError,
    DensePerceptionError,
    InputError,
    ModelNotFoundError,
)
from dense_perception.core.registry import find_card, find_model, list_models
from dense_perception.export.roofline import (
    ASSUMED_EFFICIENCY,
    DEVICES,
    Device,
    predict,
    this_cpu,
    traced,
)

_SCALES = (1.0, 0.75, 0.5)
_STEP = 32


class _Planned(TypedDict):
    model: str
    size: str
    device: str
    precision: str
    gflop: float
    bound_ms: float
    planned_ms: float
    fps: float
    memory_mb: float


class PlanRow(_Planned, total=False):
    """One model on one device; ``measured_ms`` on this machine's processor where it was measured,
    ``fits`` where a rate was asked for.
    """

    measured_ms: float
    fits: bool


class PlanResult(TypedDict):
    """``devices``: where each one's peak rates come from; ``passed_over``: models and why;
    ``tensorrt``: what the version that was named takes of each file.
    """

    efficiency: float
    devices: dict[str, str]
    rows: list[PlanRow]
    passed_over: list[str]
    tensorrt: list[str]


def plan_models(
    name: str | None = None,
    *,
    devices: list[str] | None = None,
    fps: float | None = None,
    efficiency: float = ASSUMED_EFFICIENCY,
    measure: bool = True,
    tensorrt: str = "",
) -> PlanResult:
    """Predict latency and memory of a model, or of every known one, on each device.

    :param fps: predict smaller sizes too, and say which of them keep this rate.
    :param efficiency: the share of the roofline to plan with, above 0 and at most 1.
    :param measure: run what is here on this machine's processor.
    :param tensorrt: "8.5" or "8.6" says what this version takes of the model's files.
    :raises InputError: if an argument is out of range or a device unknown.
    :raises DensePerceptionError: if there is no model ``name``, or it cannot be traced.
    """
    if not 0 < efficiency <= 1:
        raise InputError(f"--efficiency is {efficiency}, expected above 0 and at most 1")
    if fps is not None and not fps > 0:
        raise InputError(f"--fps is {fps}, expected more than 0")
    chosen = _devices(devices)
    rows: list[PlanRow] = []
    passed_over: list[str] = []
    taken: list[str] = []
    names = [name] if name else sorted(list_models())
    for each in tqdm(names, unit="model", disable=None, file=sys.stderr):
        try:
            rows += _rows(each, chosen, fps, efficiency, measure)
            taken += _taken(each, tensorrt) if tensorrt else []
        except DensePerceptionError as error:
            if name:
                raise
            passed_over.append(f"{each}: {error}")
    sources = {device.name: device.source for device in chosen}
    return PlanResult(
        efficiency=efficiency, devices=sources, rows=rows, passed_over=passed_over, tensorrt=taken
    )


def _taken(name: str, text: str) -> list[str]:
    """What TensorRT 8.5 or 8.6 takes of each file of a model, as it is and rewritten."""
    import onnx

    version = version_of(text)
    assert version is not None
    try:
        model = find_model(name)
    except ModelNotFoundError:
        return [f"{name}: no ONNX file here, export it to see"]
    lines = []
    for precision in model.precisions:
        file, _ = model.artefact(precision)
        with file.open() as stream:
            graph = onnx.load(stream)
        before = Counter(problem.rule for problem in problems(graph, version))
        after = problems_after(graph, version)
        rewritten = ", ".join(f"{count} {rule}" for rule, count in before.items())
        if after:
            lines.append(f"{name} {precision}: refused: {said(after)}")
        elif before:
            lines.append(
                f"{name} {precision}: read after rewriting, as `compile` does ({rewritten})"
            )
        else:
            lines.append(f"{name} {precision}: read as it is")
    return lines


def _rows(
    name: str, devices: list[Device], fps: float | None, efficiency: float, measure: bool
) -> list[PlanRow]:
    card = _card(name)
    measured = _measured(name, devices) if measure else {}
    rows: list[PlanRow] = []
    for width, height in _sizes(card, (1.0,) if fps is None else _SCALES):
        operations, parameters = traced(card, width, height)
        for device in devices:
            for precision in device.tera:
                found = predict(operations, parameters, device, precision, efficiency)
                row = PlanRow(
                    model=card.name,
                    size=f"{width}x{height}",
                    device=device.name,
                    precision=precision,
                    gflop=round(sum(o.flops for o in operations) / 1e9, 2),
                    bound_ms=round(found.bound_ms, 3),
                    planned_ms=round(found.planned_ms, 2),
                    fps=round(1e3 / found.planned_ms, 1),
                    memory_mb=round(found.memory_mb, 1),
                )
                here = (width, height) == (card.input.width, card.input.height)
                if device.name == "cpu" and here and precision in measured:
                    row["measured_ms"] = measured[precision]
                if fps is not None:
                    fits = found.memory_mb / 1e3 < device.memory_gb
                    row["fits"] = bool(row["fps"] >= fps and fits)
                rows.append(row)
    return rows


def _devices(names: list[str] | None) -> list[Device]:
    known = [*DEVICES, "cpu"]
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise InputError(f"--device is {', '.join(unknown)}, expected some of {', '.join(known)}")
    return [this_cpu() if name == "cpu" else DEVICES[name] for name in names or known]


def _card(name: str) -> ModelCard:
    return find_card(name) if name in list_models() else find_model(name).card


def _sizes(card: ModelCard, scales: tuple[float, ...]) -> list[tuple[int, int]]:
    """The card's size as it is, smaller ones in whole steps."""
    own = (card.input.width, card.input.height)
    step = 14 if gcd(*own) % 14 == 0 else _STEP
    smaller = [
        (max(step, round(own[0] * s / step) * step), max(step, round(own[1] * s / step) * step))
        for s in scales
        if s < 1
    ]
    return list(dict.fromkeys([own, *smaller]))


def _measured(name: str, devices: list[Device]) -> dict[str, float]:
    """Median ms of the fastest installed backend by precision, where the files are here."""
    if not any(device.name == "cpu" for device in devices):
        return {}
    try:
        model = find_model(name)
    except ModelNotFoundError:
        return {}
    found: dict[str, float] = {}
    tried, _ = candidates(installed_backends(), model.precisions)
    for backend_name, precision in tried:
        file, card = model.artefact(precision)
        try:
            backend = open_backend(backend_name, file)
        except BackendError:
            continue
        try:
            median = round(measure_ms(backend, card, seconds=1.0), 2)
        finally:
            backend.close()
        found[precision] = min(median, found.get(precision, median))
    return found
