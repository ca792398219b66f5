"""Where the time goes: rolling medians by stage, and rates."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class StageSummary:
    """Milliseconds of one stage over the window."""

    median_ms: float
    p95_ms: float
    count: int


class StageTimer:
    """Rolling window of durations by stage and of event times by name. Thread-safe.

    ``window`` bounds the durations kept per stage; rates count the last ``rate_window_s`` seconds.
    """

    def __init__(
        self,
        window: int = 300,
        rate_window_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._window = window
        self._rate_window_s = rate_window_s
        self._clock = clock
        self._lock = threading.Lock()
        self._stages: dict[str, deque[float]] = {}
        self._events: dict[str, deque[float]] = {}
        self._start = clock()

    def add(self, stage: str, milliseconds: float) -> None:
        """Record one duration."""
        with self._lock:
            self._stages.setdefault(stage, deque(maxlen=self._window)).append(milliseconds)

    def add_all(self, timings_ms: Mapping[str, float]) -> None:
        """Record several stages at once, such as ``Prediction.timings_ms``."""
        for stage, milliseconds in timings_ms.items():
            self.add(stage, milliseconds)

    def tick(self, event: str) -> None:
        """Count one event now, such as a frame ``in`` or ``out``."""
        with self._lock:
            now = self._clock()
            events = self._events.setdefault(event, deque())
            events.append(now)
            self._forget(events, now)

    def rate_hz(self, event: str) -> float:
        """Events per second over the rate window, or since the start where that is shorter."""
        with self._lock:
            events = self._events.get(event)
            if not events:
                return 0.0
            now = self._clock()
            self._forget(events, now)
            elapsed = min(self._rate_window_s, now - self._start)
            return len(events) / elapsed if elapsed > 0 else 0.0

    def summary(self) -> dict[str, StageSummary]:
        """Median and 95th percentile of every stage, in the order they first appeared."""
        with self._lock:
            copies = {stage: np.array(values) for stage, values in self._stages.items()}
        return {
            stage: StageSummary(
                float(np.median(values)), float(np.percentile(values, 95)), len(values)
            )
            for stage, values in copies.items()
        }

    def reset(self) -> None:
        with self._lock:
            self._stages.clear()
            self._events.clear()
            self._start = self._clock()

    def _forget(self, events: deque[float], now: float) -> None:
        while events and events[0] <= now - self._rate_window_s:
            events.popleft()
