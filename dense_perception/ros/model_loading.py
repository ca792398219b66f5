"""A model is loaded in a thread of its own, beside the one that answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic

import numpy as np

from dense_perception.backends.selection import Broken
from dense_perception.core.camera import Frame
from dense_perception.core.errors import DensePerceptionError
from dense_perception.core.machine import return_freed_memory
from dense_perception.ros.parameter_table import Parameters, model_changes
from dense_perception.ros.params import PerceptionParameters
from dense_perception.runtime.perceiver import Perceiver


@dataclass(frozen=True, slots=True)
class Loaded(Generic[Parameters]):
    """What came of a request: a model, or the ``problem`` in words.

    ``begun_s``: when its load began, on the monotonic clock.
    """

    settings: Parameters
    perceiver: Perceiver | None
    problem: str = ""
    begun_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class _Request(Generic[Parameters]):
    settings: Parameters
    begun_s: float
    due_s: float


class ModelLoader(Generic[Parameters]):
    """Loads one model at a time; only the newest request counts.

    A request that comes while another is waiting replaces it, so that parameters set one after the
    other load one model. One that comes while another model is being loaded waits for that, as two
    loads at once would need the memory of both; what the first one brings is thrown away. Nothing
    can break off a load: a runtime that builds an engine is deaf. The thread is a daemon, which
    holds no process back.

    ``load`` is called in the thread, and so is ``wake`` when the newest request is done; then
    :meth:`take` has the outcome. The other methods may be called from any thread and do not wait.
    """

    def __init__(
        self, load: Callable[[Parameters], Perceiver], wake: Callable[[], None] = lambda: None
    ) -> None:
        self._load = load
        self._wake = wake
        self._changed = threading.Condition()
        self._request: _Request[Parameters] | None = None
        self._outcome: Loaded[Parameters] | None = None
        self._unused: list[Perceiver] = []
        self._is_busy = False
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def request(self, settings: Parameters, *, settle_s: float = 0.0) -> None:
        """Load the model of ``settings``, unless another request comes within ``settle_s``."""
        now = time.monotonic()
        self._replace(_Request(settings, now, now + settle_s))

    def cancel(self) -> None:
        """Forget the request; what it brings is thrown away."""
        self._replace(None)

    def cancel_change(self, current: Parameters) -> None:
        """Forget the request, unless it is for the model of the ``current`` settings.

        Such a one brings that model in another backend, or with the engine that was built for it.
        """
        wanted = self.wanted
        if wanted is not None and model_changes(current, wanted):
            self.cancel()

    def discard(self, perceiver: Perceiver | None) -> None:
        """Close a model in the thread, which may take long for a large one."""
        if perceiver is not None:
            with self._changed:
                self._unused.append(perceiver)
                self._start()

    @property
    def wanted(self) -> Parameters | None:
        """The settings of the newest request, until its outcome is taken."""
        with self._changed:
            if self._outcome is not None:
                return self._outcome.settings
            return self._request.settings if self._request is not None else None

    @property
    def is_done(self) -> bool:
        """Whether there is an outcome to take."""
        with self._changed:
            return self._outcome is not None

    @property
    def seconds(self) -> float:
        """How long the newest request has been waiting; 0 without one."""
        with self._changed:
            return time.monotonic() - self._request.begun_s if self._request is not None else 0.0

    def take(self) -> Loaded[Parameters] | None:
        """The outcome of the newest request, once, as soon as it is there."""
        with self._changed:
            outcome, self._outcome = self._outcome, None
            return outcome

    def wait(self, timeout_s: float) -> None:
        """Until there is an outcome to take, or the time is up."""
        with self._changed:
            self._changed.wait_for(lambda: self._outcome is not None, timeout_s)

    def close(self, patience_s: float = 0.0) -> bool:
        """End the thread; whether it has ended, which it has not while a model is being loaded."""
        self.cancel()
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            thread = self._thread
            is_busy = self._is_busy
        if thread is not None and not is_busy:
            thread.join(patience_s)
        return thread is None or not thread.is_alive()

    def _replace(self, request: _Request[Parameters] | None) -> None:
        with self._changed:
            outcome, self._outcome = self._outcome, None
            if outcome is not None and outcome.perceiver is not None:
                self._unused.append(outcome.perceiver)
            self._request = request
            if request is not None or self._unused:
                self._start()

    def _start(self) -> None:
        if self._thread is None and not self._is_closed:
            self._thread = threading.Thread(target=self._run, name="model loader", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._unused or self._is_closed or self._is_due()):
                    self._changed.wait(self._rest_s())
                unused, self._unused = self._unused, []
                request = self._request if self._is_due() else None
                self._is_busy = request is not None
                if self._is_closed and not unused:
                    return
            if unused:
                while unused:
                    with suppress(Exception):  # a model that is gone anyway must not end the thread
                        unused.pop().close()
                return_freed_memory()
            if request is not None:
                self._finish(request, self._outcome_of(request.settings))

    def _is_due(self) -> bool:
        return self._request is not None and time.monotonic() >= self._request.due_s

    def _rest_s(self) -> float | None:
        return None if self._request is None else max(0.0, self._request.due_s - time.monotonic())

    def _outcome_of(self, settings: Parameters) -> Loaded[Parameters]:
        begun_s = time.monotonic()
        try:
            return Loaded(settings, self._load(settings), begun_s=begun_s)
        except DensePerceptionError as error:
            return Loaded(settings, None, str(error))
        except Exception as error:
            return Loaded(settings, None, f"{type(error).__name__}: {error}")

    def _finish(self, request: _Request[Parameters], outcome: Loaded[Parameters]) -> None:
        with self._changed:
            self._is_busy = False
            if self._request is request:
                self._request, self._outcome = None, outcome
                self._changed.notify_all()
                if not self._is_closed:
                    self._wake()
            elif outcome.perceiver is not None:
                self._unused.append(outcome.perceiver)


class Failures:
    """Backends that fail frame after frame while they run, as after the loss of their device.

    What is loaded next does without them. ``reasons`` are by backend and device.
    """

    MANY = 5

    def __init__(self) -> None:
        self.reasons: dict[tuple[str, str], str] = {}
        self._patience: dict[tuple[str, str], int] = {}

    def forget(self) -> None:
        """All of them may be loaded again."""
        self.reasons.clear()
        self._patience.clear()

    def found_in(self, perceiver: Perceiver | None) -> str:
        """A sentence where that one has to be replaced; else nothing.

        It is said again only after twice as many failures: a replacement may not load, or be
        superseded, and the next one may not load either.
        """
        if perceiver is None:
            return ""
        place = (perceiver.selection.backend, perceiver.selection.device)
        if perceiver.failures < self.MANY:
            self._patience.pop(place, None)
            return ""
        if perceiver.failures < self._patience.get(place, self.MANY):
            return ""
        self._patience[place] = 2 * perceiver.failures
        self.reasons[place] = perceiver.last_failure
        return (
            f"{place[0]} on {place[1]} failed {perceiver.failures} times in a row: "
            f"{perceiver.last_failure}; loading {perceiver.card.name} without it"
        )


def load_model(
    settings: PerceptionParameters, log: Callable[[str], None], broken: Broken
) -> Perceiver:
    """The model that the settings ask for, in none of the ``broken`` backends.

    :raises DensePerceptionError: if it does not load.
    """
    started = time.monotonic()
    perceiver = Perceiver.load(
        settings.model,
        backend=settings.backend,
        precision=settings.precision,
        device=settings.device,
        threads=settings.threads,
        trust_engine=settings.trust_engine,
        engine_build=settings.engine_build,
        batch=1 << (max(len(settings.cameras), 1).bit_length() - 1),
        broken=broken,
        default_hfov_deg=settings.default_hfov_deg,
        output_size=settings.output_size,
        max_output_side=settings.max_output_side,
    )
    try:
        _warm_up(perceiver, len(settings.cameras))
    except BaseException:
        perceiver.close()
        raise
    log(
        f"{perceiver.card.name} ready in {time.monotonic() - started:.2f} s, "
        f"{perceiver.selection.summary()}"
    )
    return perceiver


def _warm_up(perceiver: Perceiver, cameras: int) -> None:
    """Run each batch size that so many cameras bring, as a runtime may compile for it (seconds)."""
    size = 2
    while size <= cameras:
        perceiver.perceive([Frame(np.zeros((16, 16, 3), np.uint8))] * size)
        size *= 2
