"""Open a model in a backend; ``auto`` measures what is installed and says what it chose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dense_perception.backends.base import Backend
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import BackendError
from dense_perception.core.registry import Model

BACKENDS: dict[str, tuple[str, str, str]] = {
    "onnxruntime": ("dense_perception.backends.onnxruntime", "OnnxRuntimeBackend", "onnxruntime"),
}
"""Name: our module, its class, and the runtime package it needs."""


@dataclass(frozen=True)
class Outcome:
    """One candidate: its median time, or why it was passed over."""

    backend: str
    precision: str
    median_ms: float | None = None
    note: str = ""

    def __str__(self) -> str:
        time = "" if self.median_ms is None else f" {self.median_ms:.1f} ms"
        return f"{self.backend}/{self.precision}{time}{f' ({self.note})' if self.note else ''}"


@dataclass(frozen=True)
class Selection:
    """What runs, and why."""

    backend: str
    precision: str
    device: str
    reason: str
    considered: tuple[Outcome, ...] = ()

    def summary(self) -> str:
        """One line for a log: the choice, the reason, and what was passed over."""
        others = [
            str(outcome)
            for outcome in self.considered
            if (outcome.backend, outcome.precision) != (self.backend, self.precision)
        ]
        passed = f"; passed over: {', '.join(others)}" if others else ""
        return f"{self.backend}/{self.precision} on {self.device}: {self.reason}{passed}"


def installed_backends() -> tuple[str, ...]:
    """Names of the backends whose runtime package is importable here."""
    return tuple(name for name, (_, _, package) in BACKENDS.items() if find_spec(package))


def open_backend(name: str, path: Path, *, device: str = "cpu", threads: int = 0) -> Backend:
    """Load an ONNX file in the named backend.

    :raises BackendError: for an unknown or missing backend, or a refused device or graph.
    """
    if name not in BACKENDS:
        raise BackendError(f"backend is {name!r}, expected 'auto' or one of {list(BACKENDS)}")
    module, cls, _ = BACKENDS[name]
    constructor: Callable[..., Any] = getattr(import_module(module), cls)
    backend: Backend = constructor(path, device=device, threads=threads)
    return backend


def select_backend(
    model: Model,
    *,
    backend: str = "auto",
    precision: str = "auto",
    device: str = "cpu",
    threads: int = 0,
) -> tuple[Backend, ModelCard, Selection]:
    """Open ``model`` in the wished or the fastest backend and precision.

    :raises BackendError: if nothing can run it; the message says why for each candidate.
    :raises ArtefactError: if the chosen file is missing or damaged.
    :raises CardError: if it has no such precision or its card contradicts itself.
    """
    names = installed_backends() if backend == "auto" else (backend,)
    precisions = model.precisions if precision == "auto" else (precision,)
    path, card = model.artefact(precisions[0])
    opened = open_backend(names[0], path, device=device, threads=threads)
    return opened, card, Selection(names[0], precisions[0], device, "as asked")
