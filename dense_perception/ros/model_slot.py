"""The model in use: loaded for a node's parameters, changed only between two batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from dense_perception.core.camera import Frame
from dense_perception.core.errors import BackendError
from dense_perception.core.machine import return_freed_memory
from dense_perception.ros.parameter_table import Changes, table
from dense_perception.runtime.perceiver import Perceiver

PATIENCE_S = 10.0
"""How long a change, or the end, waits for the batch at hand."""


class ModelSlot:
    """Holds one :class:`Perceiver` or none; the worker uses it inside :meth:`answering`."""

    def __init__(self) -> None:
        self.perceiver: Perceiver | None = None
        self._answering = threading.Lock()
        self._may_answer = threading.Event()
        self._may_answer.set()

    @contextmanager
    def answering(self) -> Iterator[Perceiver | None]:
        """Keeps the model from being changed; for the worker thread."""
        self._may_answer.wait()
        with self._answering:
            yield self.perceiver

    @contextmanager
    def between_batches(self) -> Iterator[None]:
        """The worker answers nothing inside.

        :raises BackendError: if it is busy with one batch for too long.
        """
        self._may_answer.clear()  # or a busy worker would hardly ever let go of the lock
        try:
            if not self._answering.acquire(timeout=PATIENCE_S):
                raise BackendError(
                    f"the worker is still busy with a frame after {PATIENCE_S:g} s: try again"
                )
            try:
                yield
            finally:
                self._answering.release()
        finally:
            self._may_answer.set()

    def change(self, new: Perceiver, meanwhile: Callable[[], None]) -> None:
        """Take ``new`` and free the old one; ``meanwhile`` is called between the two.

        If it fails the old one stays and ``new`` is freed.

        :raises BackendError: if the worker does not let go.
        """
        old = self.perceiver
        try:
            with self.between_batches():
                meanwhile()
                self.perceiver = new
        except BaseException:
            new.close()
            raise
        if old is not None:
            old.close()
            return_freed_memory()

    def empty(self, *, free: bool) -> None:
        """Let go of the model; ``free`` is false where a frame still runs in it."""
        if self.perceiver is not None:
            if free:
                self.perceiver.close()
            self.perceiver = None
            return_freed_memory()


def load_model(wish: Any, log: Callable[[str], Any]) -> Perceiver:
    """The model that the parameters ask for.

    :raises DensePerceptionError: if it does not load.
    """
    started = time.monotonic()
    perceiver = Perceiver.load(
        wish.model,
        backend=wish.backend,
        precision=wish.precision,
        device=wish.device,
        threads=wish.threads,
        trust_engine=wish.trust_engine,
        default_hfov_deg=wish.default_hfov_deg,
        output_size=wish.output_size,
        max_output_side=wish.max_output_side,
    )
    try:
        _warm_up(perceiver, len(wish.cameras))
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


def needs_reload(old: Any, new: Any) -> bool:
    """Whether a parameter differs whose change loads the model anew."""
    return any(
        getattr(old, spec.name) != getattr(new, spec.name)
        for spec in table(type(new))
        if spec.changes is Changes.RELOADS
    )
