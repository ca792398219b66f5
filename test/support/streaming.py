"""A camera at a steady rate, and the gaps in what is answered."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from sensor_msgs.msg import Image

from dense_perception.ros.convert import image_message
from test.support.ros_probe import Probe, header, random_rgb

RATE_HZ = 15.0
STAMPS = itertools.count(100)


@contextmanager
def streaming(probe: Probe) -> Iterator[list[float]]:
    """Images at 15 Hz from a thread of their own; gives the times at which they were sent."""
    publisher = probe.publisher(Image, "/image")
    sent: list[float] = []
    stopped = threading.Event()

    def stream() -> None:
        due = time.monotonic()
        while not stopped.wait(max(0.0, due - time.monotonic())):
            publisher.publish(image_message(random_rgb(), header(next(STAMPS)), "rgb8"))
            sent.append(time.monotonic())
            due += 1 / RATE_HZ

    thread = threading.Thread(target=stream, daemon=True)
    thread.start()
    try:
        yield sent
    finally:
        stopped.set()
        thread.join()


def longest_gap_s(times: list[float], begin: float, end: float) -> float:
    """Between two arrivals, the ends of the span counted as arrivals."""
    inside = [begin, *(each for each in times if begin < each < end), end]
    return float(np.diff(inside).max())
