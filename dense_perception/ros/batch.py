"""The worker's side of a node: the model in use, and the newest frames answered by it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic

from dense_perception.core.errors import BackendError
from dense_perception.ros.camera import AnyImage, Camera, CameraFrame, Settings
from dense_perception.ros.outputs import Answer
from dense_perception.runtime.perceiver import Perceiver

PATIENCE_S = 10.0
"""How long a change, or the end, waits for the batch at hand."""


@dataclass(frozen=True, slots=True)
class Received:
    """An image message, and when it came on the clock of ``time.perf_counter``."""

    message: AnyImage
    arrived_s: float


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

    def change(self, new: Perceiver, meanwhile: Callable[[], None]) -> Perceiver | None:
        """Take ``new`` and give back the old one, which the caller closes.

        ``meanwhile`` is called between the two; if it fails the old model stays.

        :raises BackendError: if the worker does not let go.
        """
        with self.between_batches():
            meanwhile()
            old, self.perceiver = self.perceiver, new
        return old


@dataclass(frozen=True, slots=True)
class _Taken(Generic[Settings]):
    camera: Camera[Settings]
    received: Received
    image: CameraFrame
    taken_s: float
    converted_s: float


def answer_batch(
    perceiver: Perceiver,
    batch: Sequence[tuple[Camera[Settings], Received]],
    settings: Settings,
    now_ns: Callable[[], int],
) -> None:
    """Convert, infer and publish.

    A frame that cannot be used is counted and logged and leaves the others alone; one that nobody
    wants is counted. ``now_ns`` gives the node's time. Batches have the sizes 1, 2, 4, ..., because
    runtimes that compile for a size would otherwise compile for every number of cameras.
    """
    taken: list[_Taken[Settings]] = []
    wanted: set[str] = set()
    for camera, received in batch:
        entries = camera.wanted(settings)
        if not entries:
            camera.frame_log.unwanted()
            continue
        start_s = time.perf_counter()
        try:
            image = camera.frame(received.message, settings)
        except Exception as error:
            camera.failed(error)
            continue
        if image is not None:
            taken.append(_Taken(camera, received, image, start_s, time.perf_counter()))
            wanted |= entries
    for part in _powers_of_two(taken):
        try:
            predictions = perceiver.perceive([each.image.frame for each in part], wanted)
        except Exception as error:
            for each in part:
                each.camera.failed(error)
            continue
        for each, prediction in zip(part, predictions, strict=True):
            camera, frame = each.camera, each.image.frame
            begun_s = time.perf_counter()
            try:
                prediction = camera.refined(frame, prediction, settings)
                answer = Answer(frame, prediction, each.image.header, each.image.info)
                camera.publish(answer, settings)
            except Exception as error:
                camera.failed(error)
                continue
            camera.frame_log.answered(
                {
                    "wait": (each.taken_s - each.received.arrived_s) * 1e3,
                    "convert": (each.converted_s - each.taken_s) * 1e3,
                    **prediction.timings_ms,
                    "publish": (time.perf_counter() - begun_s) * 1e3,
                },
                age_ms=(now_ns() - frame.stamp_ns) / 1e6,
            )


def _powers_of_two(taken: Sequence[_Taken[Settings]]) -> list[Sequence[_Taken[Settings]]]:
    """Cut into pieces of which each is the largest power of two that fits."""
    pieces, start = [], 0
    while start < len(taken):
        size = 1 << ((len(taken) - start).bit_length() - 1)
        pieces.append(taken[start : start + size])
        start += size
    return pieces
