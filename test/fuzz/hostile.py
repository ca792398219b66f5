"""A target that misbehaves, to see that the watcher sees it."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dense_perception.core.errors import InputError

MOODS = ("answered", "refused", "exception", "crash", "hang", "memory", "traceback")
BUSY_S, GREED_MB = 0.4, 120


class Hostile:
    """Nothing is warmed up: that might end it."""

    warm_up = 0

    def make(self, rng: np.random.Generator) -> Callable[[], str]:
        mood = mood_of(rng)
        return lambda: _be(mood)


def mood_of(rng: np.random.Generator) -> str:
    """Mostly good."""
    return MOODS[int(rng.integers(len(MOODS)))] if rng.random() < 0.3 else MOODS[0]


def _be(mood: str) -> str:
    if mood == "refused":
        raise InputError("no")
    if mood == "exception":
        raise ValueError("unexpected")
    if mood == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if mood == "hang":
        end = time.process_time() + BUSY_S
        while time.process_time() < end:
            pass
    if mood == "memory":
        assert np.ones(GREED_MB << 20, np.uint8).any()
    if mood == "traceback":
        try:
            raise KeyError("printed")
        except KeyError:
            traceback.print_exc()
    return "answered"


def target(folder: Path) -> Hostile:
    return Hostile()
