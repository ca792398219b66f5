"""How fast an opened backend answers, and how fast others answered at earlier starts."""

from __future__ import annotations

import time
from importlib import metadata
from pathlib import Path

import numpy as np

from dense_perception.backends.base import Backend
from dense_perception.core.card import ModelCard
from dense_perception.core.machine import cpu_name
from dense_perception.core.storage import cache_dir, read_json, write_json

MEASURE_S = 0.25
"""Time spent measuring one candidate, after its load and one warm-up run."""
_MIN_RUNS, _MAX_RUNS = 3, 20
_MEMORY = "speeds.json"
_REMEMBERED = 200


def measure_ms(backend: Backend, card: ModelCard, seconds: float = MEASURE_S) -> float:
    """Median milliseconds of one image of the card's size, after one warm-up run.

    :raises BackendError: if the runtime fails.
    """
    generator = np.random.default_rng(0)
    feeds = {}
    for spec in backend.inputs:
        usual = (1, card.input.height, card.input.width, 3)[: len(spec.shape)]
        shape = tuple(
            one if side is None else side for side, one in zip(spec.shape, usual, strict=True)
        )
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


class SpeedMemory:
    """Median milliseconds by :func:`speed_key`, kept in the cache directory.

    ``measured`` is what was added since; a damaged or missing file is an empty memory.
    """

    def __init__(self) -> None:
        self._path = cache_dir() / _MEMORY
        self._known = _read(self._path)
        self.measured: dict[str, float] = {}

    def get(self, key: str) -> float | None:
        """What an earlier start measured."""
        return self._known.get(key)

    def add(self, key: str, median_ms: float) -> float:
        """The measurement, or the earlier one: other work only ever slows one down."""
        self.measured[key] = min(median_ms, self._known.get(key, median_ms))
        return self.measured[key]

    def save(self) -> None:
        """Write what was measured; a cache that cannot be written does no harm."""
        if self.measured:
            # Read again: another process may have measured meanwhile.
            speeds = {**_read(self._path), **self.measured}
            write_json(self._path, dict(list(speeds.items())[-_REMEMBERED:]))


def speed_key(name: str, package: str, sha256: str, *, device: str, threads: int) -> str:
    """All that a speed depends on: backend, runtime's version, device, threads, CPU, file."""
    parts = (name, _version(package), device, str(threads), cpu_name(), sha256)
    return "|".join(parts)


def _read(path: Path) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in read_json(path).items()
        if isinstance(value, (int, float)) and 0 < value < 1e6
    }


def _version(package: str) -> str:
    for distribution in (package, f"{package}-gpu"):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"
