"""What ``auto`` tries, what it chose, and what it passed over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_EMULATED = "fp8 is only emulated there, for comparing: it runs in tensorrt on an NVIDIA GPU"


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

    def summary(self) -> str:
        """One line for a log: the choice, the reason, and what was passed over."""
        others = [
            str(outcome)
            for outcome in self.considered
            if (outcome.backend, outcome.precision) != (self.backend, self.precision)
        ]
        passed = f"; passed over: {', '.join(others)}" if others else ""
        warned = f"; WARNING: {'; '.join(self.warnings)}" if self.warnings else ""
        return f"{self.backend}/{self.precision} on {self.device}: {self.reason}{passed}{warned}"


def candidates(
    names: Sequence[str], precisions: Sequence[str]
) -> tuple[list[tuple[str, str]], list[Outcome]]:
    """What to open and measure, and what not: emulated fp8, where there is anything else."""
    every = [(name, kind) for kind in precisions for name in names]
    kept = [pair for pair in every if pair[1] != "fp8" or pair[0] == "tensorrt"] or every
    return kept, [Outcome(*pair, note=_EMULATED) for pair in every if pair not in kept]
