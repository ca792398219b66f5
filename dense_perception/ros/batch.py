"""The newest frames of a node's cameras, answered together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dense_perception.ros.camera import Camera
from dense_perception.ros.camera_input import CameraFrame
from dense_perception.ros.outputs import Answer
from dense_perception.runtime.perceiver import Perceiver


@dataclass(frozen=True, slots=True)
class Received:
    """An image message, and when it came on the clock of ``time.perf_counter``."""

    message: Any
    arrived_s: float


@dataclass(frozen=True, slots=True)
class _Taken:
    camera: Camera
    received: Received
    image: CameraFrame
    taken_s: float
    converted_s: float


def answer_batch(
    perceiver: Perceiver, batch: Sequence[tuple[Camera, Received]], now_ns: Any
) -> None:
    """Convert, infer and publish.

    A frame that cannot be used is counted and logged and leaves the others alone; one that nobody
    wants is counted. ``now_ns`` gives the node's time. Batches have the sizes 1, 2, 4, ..., because
    runtimes that compile for a size would otherwise compile for every number of cameras.
    """
    taken: list[_Taken] = []
    wanted: set[str] = set()
    for camera, received in batch:
        entries = camera.wanted()
        if not entries:
            camera.log.unwanted()
            continue
        start_s = time.perf_counter()
        try:
            image = camera.frame(received.message)
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
            begun_s = time.perf_counter()
            header = each.received.message.header
            try:
                prediction = each.camera.refined(each.image.frame, prediction)
                each.camera.publish(Answer(each.image.frame, prediction, header, each.image.info))
            except Exception as error:
                each.camera.failed(error)
                continue
            each.camera.log.answered(
                {
                    "wait": (each.taken_s - each.received.arrived_s) * 1e3,
                    "convert": (each.converted_s - each.taken_s) * 1e3,
                    **prediction.timings_ms,
                    "publish": (time.perf_counter() - begun_s) * 1e3,
                },
                age_ms=(now_ns() - each.image.frame.stamp_ns) / 1e6,
            )


def _powers_of_two(taken: Sequence[_Taken]) -> list[Sequence[_Taken]]:
    """Cut into pieces of which each is the largest power of two that fits."""
    pieces, start = [], 0
    while start < len(taken):
        size = 1 << ((len(taken) - start).bit_length() - 1)
        pieces.append(taken[start : start + size])
        start += size
    return pieces
