"""How fast an opened backend answers."""

from __future__ import annotations

import time

import numpy as np

from dense_perception.backends.base import Backend

MEASURE_S = 0.25
"""Time spent measuring one candidate, after its load and one warm-up run."""
_MIN_RUNS, _MAX_RUNS = 3, 20


def measure_ms(backend: Backend, seconds: float = MEASURE_S) -> float:
    """Median milliseconds of one image through a backend, after one warm-up run.

    :raises BackendError: if the runtime fails.
    """
    generator = np.random.default_rng(0)
    feeds = {}
    for spec in backend.inputs:
        shape = tuple(1 if side is None else side for side in spec.shape)
        if spec.dtype == np.uint8:
            feeds[spec.name] = generator.integers(0, 256, shape, np.uint8)
        else:
            feeds[spec.name] = np.full(shape, 200, spec.dtype)
    backend.infer(feeds)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < _MIN_RUNS or (len(times) < _MAX_RUNS and time.perf_counter() < end):
        start = time.perf_counter()
        backend.infer(feeds)
        times.append((time.perf_counter() - start) * 1e3)
    return float(np.median(times))
