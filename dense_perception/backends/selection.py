"""What runs, and why: the answer of :func:`~dense_perception.backends.select.select_backend`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dense_perception.backends.engine_cache import EngineKey
from dense_perception.backends.speed import SpeedWatch

Broken = Mapping[tuple[str, str], str]
"""Backends that failed while they ran, each with its device, and the reason in words."""


@dataclass(frozen=True)
class MissingEngine:
    """An engine to build: of a candidate that was left out for want of it, or a better one.

    It is for 1 to ``batch`` images; ``reason`` says why no stored one is used.
    """

    backend: str
    precision: str
    device: str
    key: EngineKey
    batch: int = 1
    reason: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.backend}/{self.precision}"


@dataclass(frozen=True)
class Outcome:
    """One candidate: its median time, or why it was passed over."""

    backend: str
    precision: str
    median_ms: float | None = None
    note: str = ""

    def __str__(self) -> str:
        time_ms = "" if self.median_ms is None else f" {self.median_ms:.1f} ms"
        return f"{self.backend}/{self.precision}{time_ms}{f' ({self.note})' if self.note else ''}"


@dataclass(frozen=True)
class Selection:
    """What runs, and why."""

    backend: str
    precision: str
    device: str
    reason: str
    considered: tuple[Outcome, ...] = ()
    warnings: tuple[str, ...] = ()
    """What somebody should look at: an engine that was refused, a check that was skipped."""
    watch: SpeedWatch | None = None
    """Told of live times, where measured ones decided."""
    device_reason: str = ""
    """Why that device, where ``auto`` left it open."""
    missing: tuple[MissingEngine, ...] = ()
    """Candidates that were left out for want of an engine."""
    note: str = ""
    """What makes it, or its next start, slower: the backend's ``problem`` and ``unstored``."""

    def summary(self) -> str:
        """One line for a log: the choice, the reason, and what was passed over."""
        others = [
            str(outcome)
            for outcome in self.considered
            if (outcome.backend, outcome.precision) != (self.backend, self.precision)
        ]
        passed = f"; passed over: {', '.join(others)}" if others else ""
        warned = f"; WARNING: {'; '.join(self.warnings)}" if self.warnings else ""
        device = f"{self.device} ({self.device_reason})" if self.device_reason else self.device
        note = f"; slower than it could be: {self.note}" if self.note else ""
        return f"{self.backend}/{self.precision} on {device}: {self.reason}{note}{passed}{warned}"
