"""How fast an opened backend answers, how fast others answered, and whether that still holds."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path

import numpy as np

from dense_perception.backends.base import Backend
from dense_perception.core.card import ModelCard
from dense_perception.core.machine import busy_core_s, cpu_name, usable_cores
from dense_perception.core.storage import cache_dir, read_json, write_json

MEASURE_S = 0.25
"""Time spent measuring one candidate, after its load and one warm-up run."""
BUSY_SHARE = 0.25
"""A measurement is provisional if other processes took more than this share of the cores."""
WINDOW = 30
"""Live answers are compared with the remembered time by the median of so many."""

_MIN_RUNS, _MAX_RUNS = 3, 20
_MEMORY = "speeds.json"
_REMEMBERED = 200
# A live median is another one beyond this factor and this difference, for so long.
_OTHER_TIMES, _OTHER_MS, _OTHER_S = 2.0, 2.0, 10.0
# /proc/stat counts in hundredths of a second: a share over less says little.
_MIN_WATCH_S = 0.05
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Speed:
    """Median milliseconds of one image, and what is known about that measurement.

    ``others``: the share of the usable cores that other processes took meanwhile, NaN where that
    is not known. ``doubted``: live answers took clearly another time since.
    """

    median_ms: float
    others: float = math.nan
    doubted: bool = False

    def is_due(self, others_now: float) -> bool:
        """Whether to measure again, on a machine of which others take ``others_now``.

        A provisional measurement waits for a calmer moment than its own: on a robot that is always
        busy, starts are not made longer for nothing.
        """
        if self.doubted:
            return True
        if self.others <= BUSY_SHARE:
            return False
        is_calm = not others_now > BUSY_SHARE
        return is_calm or others_now < self.others - BUSY_SHARE


class OtherWork:
    """What share of the usable cores other processes take from now on."""

    def __init__(self) -> None:
        self._start = _sample()

    def share(self) -> float:
        """0 to 1; NaN where the system does not say.

        After too short a time it is what the last minute's load average says of all processes.
        """
        seconds, busy, own = (now - then for now, then in zip(_sample(), self._start, strict=True))
        if seconds < _MIN_WATCH_S or math.isnan(busy):
            return _recent_share()
        return min(1.0, max(0.0, (busy - own) / (seconds * usable_cores())))


def _recent_share() -> float:
    try:
        return min(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    except (AttributeError, OSError):
        return math.nan


def _sample() -> tuple[float, float, float]:
    used = os.times()
    return time.monotonic(), busy_core_s(), used.user + used.system


def measure_ms(backend: Backend, card: ModelCard, seconds: float = MEASURE_S) -> float:
    """Median milliseconds of one image of the card's size, after one warm-up run.

    What a model gives on request only is left out, as it is of most answers.

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
    wanted = None
    if card.on_request:
        wanted = [spec.name for spec in backend.outputs if spec.name not in card.on_request]
    backend.infer(feeds, wanted)
    # As a perceiver does it, which writes to the runtime's own memory.
    for name, array in feeds.items():
        feeds[name] = backend.input_buffer(name, array.shape)
        feeds[name][...] = array
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < _MIN_RUNS or (len(times) < _MAX_RUNS and time.perf_counter() < end):
        start = time.perf_counter()
        backend.infer(feeds, wanted)
        times.append((time.perf_counter() - start) * 1e3)
    return float(np.median(times))


class SpeedMemory:
    """:class:`Speed` by :func:`speed_key`, kept in the cache directory.

    ``measured`` is what was added since; a damaged or missing file is an empty memory. Plain
    numbers, as earlier versions wrote them, are speeds of unknown load.
    """

    def __init__(self) -> None:
        self._path = cache_dir() / _MEMORY
        self._known = _read(self._path)
        self.measured: dict[str, Speed] = {}

    def get(self, key: str) -> Speed | None:
        """What an earlier start measured."""
        return self._known.get(key)

    def add(self, key: str, median_ms: float, others: float) -> float:
        """Remember a measurement, and return what counts from now on.

        That is the faster one of this and an earlier one, as other work only ever slows one down;
        but this one where live answers contradicted the earlier.
        """
        speed, known = Speed(median_ms, others), self._known.get(key)
        if known is not None and not known.doubted:
            least = known.others if not others <= known.others else others
            speed = Speed(min(median_ms, known.median_ms), least)
        self.measured[key] = speed
        return speed.median_ms

    def doubt(self, keys: Iterable[str]) -> None:
        """Have these measured again at the next start."""
        known = {**self._known, **self.measured}
        self.measured |= {key: replace(known[key], doubted=True) for key in keys if key in known}
        self.save()

    def save(self) -> None:
        """Write what was measured; a cache that cannot be written costs time, and is said."""
        if self.measured:
            # Read again: another process may have measured meanwhile.
            speeds = {**_read(self._path), **self.measured}
            newest = list(speeds.items())[-_REMEMBERED:]
            if not write_json(self._path, {key: _entry(speed) for key, speed in newest}):
                _log.warning(
                    "the speeds of the backends were not kept in %s: each start measures them "
                    "again; free space there or make it writable for you alone",
                    self._path.parent,
                )


class SpeedWatch:
    """Compares live answers with what made the backend the fastest.

    If they take clearly longer or shorter for a while, what is remembered of all the candidates is
    measured again at the next start, as they were measured in the same circumstances. Longer times
    count only while other processes do not explain them.

    :param chosen: the candidate that runs, as it is called in messages.
    :param keys: of all candidates whose speeds were compared.
    """

    def __init__(
        self,
        chosen: str,
        median_ms: float,
        keys: Sequence[str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._chosen = chosen
        self._median_ms = median_ms
        self._keys = tuple(keys)
        self._clock = clock
        self._work = OtherWork()
        self._side = 0
        self._since_s = 0.0
        self.is_done = False

    def judge(self, times_ms: Sequence[float], *, complete: bool = True) -> str:
        """A sentence if :data:`WINDOW` or more live times contradict the memory, once; else empty.

        ``complete``: whether all outputs were computed, as when it was measured. Fewer may take
        less time and prove nothing.
        """
        live_ms, expected_ms = float(np.median(times_ms)), self._median_ms
        others, self._work = self._work.share(), OtherWork()
        side = 0
        if abs(live_ms - expected_ms) > _OTHER_MS:
            if live_ms > expected_ms * _OTHER_TIMES and not others > BUSY_SHARE:
                side = 1
            elif live_ms < expected_ms / _OTHER_TIMES and complete:
                side = -1
        now_s = self._clock()
        if side != self._side:
            self._side, self._since_s = side, now_s
        if side == 0 or self.is_done or now_s - self._since_s < _OTHER_S:
            return ""
        self.is_done = True
        SpeedMemory().doubt(self._keys)
        sentence = (
            f"{self._chosen} takes {live_ms:.1f} ms where {expected_ms:.1f} ms were measured: the "
            "next start measures the backends again"
        )
        _log.warning("%s", sentence)
        return sentence


def speed_key(name: str, package: str, sha256: str, *, device: str, threads: int) -> str:
    """All that a speed depends on: backend, runtime's version, device, threads, CPU, file."""
    parts = (name, _version(package), device, str(threads), cpu_name(), sha256)
    return "|".join(parts)


def _read(path: Path) -> dict[str, Speed]:
    speeds = {key: _speed(value) for key, value in read_json(path).items()}
    return {key: speed for key, speed in speeds.items() if speed is not None}


def _speed(value: object) -> Speed | None:
    """``None`` for what is none."""
    entry = value if isinstance(value, dict) else {"median_ms": value}
    median_ms, others = entry.get("median_ms"), entry.get("others")
    if not isinstance(median_ms, (int, float)) or not 0 < median_ms < 1e6:
        return None
    if not isinstance(others, (int, float)):
        others = math.nan
    return Speed(float(median_ms), float(others), entry.get("doubted") is True)


def _entry(speed: Speed) -> dict[str, float | bool | None]:
    """``others`` is null where it is not known: NaN is no JSON."""
    return {**asdict(speed), "others": None if math.isnan(speed.others) else speed.others}


def _version(package: str) -> str:
    for distribution in (package, f"{package}-gpu"):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"
