"""What a live stream needs: a mailbox where the newest wins, its worker, a limit, stage times."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Holds at most one item of each sender; a newer one replaces it. Thread-safe.

    ``received`` counts every item put, ``dropped`` those replaced before anyone took them.

    :raises KeyError: from every method that is given a sender it was not made for.
    """

    def __init__(self, senders: Sequence[str] = ("",)) -> None:
        self._changed = threading.Condition()
        self._items: dict[str, T] = {}
        self._closed = False
        self._received = dict.fromkeys(senders, 0)
        self._dropped = dict.fromkeys(senders, 0)

    def received(self, sender: str = "") -> int:
        with self._changed:
            return self._received[sender]

    def dropped(self, sender: str = "") -> int:
        with self._changed:
            return self._dropped[sender]

    @property
    def closed(self) -> bool:
        with self._changed:
            return self._closed

    def put(self, item: T, sender: str = "") -> bool:
        """Leave an item; ``False`` if it replaced one that nobody had taken. Never waits."""
        with self._changed:
            if self._closed:
                return False
            self._received[sender] += 1
            replaced = self._items.pop(sender, None) is not None
            self._dropped[sender] += replaced
            self._items[sender] = item
            self._changed.notify()
            return not replaced

    def take(self, timeout_s: float | None = None) -> dict[str, T]:
        """What is waiting, by sender; empty when the time is up or the mailbox is closed.

        Waits for one item, never for one of each.
        """
        with self._changed:
            self._changed.wait_for(lambda: bool(self._items) or self._closed, timeout_s)
            items, self._items = self._items, {}
            return items

    def clear(self) -> None:
        """Throw away what is waiting, counting it as dropped."""
        with self._changed:
            for sender in self._items:
                self._dropped[sender] += 1
            self._items = {}

    def close(self) -> None:
        """Wake every waiter; what was waiting is gone and nothing is accepted any more."""
        with self._changed:
            self._closed = True
            self._items = {}
            self._changed.notify_all()


class Worker(Generic[T]):
    """A thread that handles the newest item of each sender, all that are there at a time.

    An exception in ``handle`` goes to ``on_error`` and the worker takes what comes next; so does an
    exception in ``on_error`` itself, silently.
    """

    def __init__(
        self,
        handle: Callable[[dict[str, T]], None],
        on_error: Callable[[Exception], None],
        *,
        senders: Sequence[str] = ("",),
        name: str = "perception",
    ) -> None:
        self.mailbox: Mailbox[T] = Mailbox(senders)
        self._handle = handle
        self._on_error = on_error
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)

    def start(self) -> Worker[T]:
        self._thread.start()
        return self

    def put(self, item: T, sender: str = "") -> bool:
        """Hand over an item; see :meth:`Mailbox.put`."""
        return self.mailbox.put(item, sender)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self, timeout_s: float | None = 10.0) -> bool:
        """Finish the items at hand and end; ``True`` once the thread is gone. Safe to repeat."""
        self.mailbox.close()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _loop(self) -> None:
        while not self.mailbox.closed:
            items = self.mailbox.take()
            if not items:
                continue
            try:
                self._handle(items)
            except Exception as error:
                self._report(error)
            del items  # an idle worker must not keep the last frame's memory

    def _report(self, error: Exception) -> None:
        try:
            self._on_error(error)
        except Exception:
            return


class RateLimit:
    """Admits so many events a second, evenly and on average; for one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due_s = -math.inf

    def admits(self, rate_hz: float) -> bool:
        """Whether an event now is within ``rate_hz``, which may change; 0 admits all."""
        if rate_hz <= 0:
            return True
        now_s, period_s = self._clock(), 1 / rate_hz
        self._due_s = min(self._due_s, now_s + period_s)  # the rate may have been lower
        if now_s < self._due_s:
            return False
        # Counted from when it was due: a camera's jitter must not cost every second image. After a
        # rest nothing is made up for.
        self._due_s += period_s
        if self._due_s < now_s:
            self._due_s = now_s + period_s
        return True


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
