"""Bootstrap intervals over recordings or blocks of time, and when a difference is certain.

A recording's frames resemble each other, so whole recordings are drawn with replacement, never
frames (a cluster bootstrap, Davison and Hinkley 1997, section 3.8). With fewer than five recordings
that says nothing; then blocks of successive frames are drawn (Kuensch 1989), and the interval
speaks for those recordings alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

LEVEL = 0.95
RESAMPLES = 5000
SEED = 0
FEWEST_RECORDINGS = 5
FEWEST_UNITS = 3
"""With fewer there is no interval."""
ENOUGH_BLOCKS = 10
"""So many blocks of time of :data:`BLOCK_S` or more are taken for independent ones."""
BLOCK_S = 5.0
_MOST_UNITS = 200  # more recordings are drawn in groups, which costs no accuracy
_MOST_BLOCKS = 40
_FEWEST_BLOCKS = 4  # of a recording that has the frames, so that something can be said
_BLOCK_FRAMES = 4
_LONE_FRAMES = 10  # frames a block must have where nobody knows the time


@dataclass(frozen=True, slots=True)
class Units:
    """What is drawn: the unit of each frame, int64 (frames,), and the units' names.

    ``independent`` is how many of them may pass for independent of each other.
    """

    kind: Literal["recordings", "blocks", "none"]
    of_frame: np.ndarray
    names: tuple[str, ...]
    independent: int
    recordings: int

    @property
    def speaks_for(self) -> str:
        """What an interval says something about, as the end of a sentence."""
        if self.kind == "recordings":
            return f"other recordings like these {self.recordings}"
        those = "this recording" if self.recordings == 1 else f"these {self.recordings} recordings"
        if self.kind == "blocks":
            return (
                f"{those} only: fewer than {FEWEST_RECORDINGS} recordings say nothing about other "
                "places, so blocks of time were drawn"
            )
        return f"the frames of {those} only: there are too few for an interval"


def units_of(recordings: Sequence[str], stamps_ns: Sequence[int]) -> Units:
    """The units of frames that are sorted by recording and time.

    :param stamps_ns: 0 where nobody knows the time.
    """
    names, of_recording = np.unique(np.asarray(recordings, object), return_inverse=True)
    count = len(names)
    if count >= FEWEST_RECORDINGS:
        if count <= _MOST_UNITS:
            return Units("recordings", of_recording, tuple(names), count, count)
        groups = of_recording * _MOST_UNITS // count
        texts = tuple(f"group {number}" for number in range(_MOST_UNITS))
        return Units("recordings", groups, texts, _MOST_UNITS, count)
    of_frame = np.zeros(len(of_recording), np.int64)
    texts_list: list[str] = []
    independent = 0
    stamps = np.asarray(stamps_ns, np.int64)
    for number, name in enumerate(names):
        frames = np.flatnonzero(of_recording == number)
        blocks, apart = _blocks(stamps[frames])
        of_frame[frames] = len(texts_list) + np.arange(len(frames)) * blocks // len(frames)
        texts_list += [f"{name} {block + 1}/{blocks}" for block in range(blocks)]
        independent += apart
    kind: Literal["blocks", "none"] = "blocks" if len(texts_list) >= FEWEST_UNITS else "none"
    return Units(kind, of_frame, tuple(texts_list), independent, count)


def _blocks(stamps_ns: np.ndarray) -> tuple[int, int]:
    """Into how many blocks a recording is cut, and how many of them may pass for independent."""
    frames = len(stamps_ns)
    seconds = math.nan
    if frames > 1 and (stamps_ns > 0).all():
        seconds = (stamps_ns[-1] - stamps_ns[0]) / 1e9 * frames / (frames - 1)
    long = frames // _LONE_FRAMES if math.isnan(seconds) else int(seconds / BLOCK_S + 1e-6)
    apart = min(long, frames // _BLOCK_FRAMES, _MOST_BLOCKS)
    return max(apart, min(frames // _BLOCK_FRAMES, _FEWEST_BLOCKS), 1), apart


def drawn_weights(units: int, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """How often each unit is drawn: float64 (resamples, units) of whole numbers."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(units, np.full(units, 1 / units), size=resamples).astype(np.float64)


def weighted(weights: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """(resamples, units) times (units, n), the same to the last digit however many threads run."""
    return np.einsum("ru,un->rn", weights, sums, optimize=False)


def interval(drawn: np.ndarray, units: int) -> tuple[float | None, float | None]:
    """Both ends of the interval at :data:`LEVEL` from the figure of every resample, (resamples,).

    Percentiles, widened for few units as Hesterberg (2015, section 5.3.2) does it: plain ones are
    too narrow by sqrt((n - 1) / n) and know no Student's t. None with fewer than
    :data:`FEWEST_UNITS`. NaN (a resample in which nothing was counted) is left out.

    :param units: how many units contribute.
    """
    known = drawn[np.isfinite(drawn)]
    if units < FEWEST_UNITS or not len(known):
        return None, None
    t = student_quantile((1 + LEVEL) / 2, units - 1)
    tail = NormalDist().cdf(-t * math.sqrt(units / (units - 1)))
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


def student_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t, to 0.1 % from four degrees of freedom on.

    Exact for one and two; else the expansion of Abramowitz and Stegun 26.7.5.
    """
    if freedom == 1:
        return math.tan(math.pi * (probability - 0.5))
    if freedom == 2:
        centred = 2 * probability - 1
        return centred * math.sqrt(2 / (1 - centred * centred))
    x = NormalDist().inv_cdf(probability)
    terms = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return x + sum(term / freedom**power for power, term in enumerate(terms, 1))


def judged(
    low: float | None, high: float | None, first: np.ndarray, second: np.ndarray, units: Units
) -> tuple[bool, str]:
    """Whether one may rely on a difference having its sign, and why in a sentence.

    Over recordings, where the interval excludes 0. Over blocks of time, where besides
    :data:`ENOUGH_BLOCKS` of them may pass for independent, or the difference is overwhelming: in
    every block the same one is ahead, by half of the smaller figure or more.

    :param low: with ``high`` the interval of the difference.
    :param first: with ``second`` both figures in each unit that has them, (n,).
    """
    apart, count = first - second, len(first)
    if low is None or high is None:
        are = "is" if count == 1 else "are"
        return False, f"not certain: {count} {_named(units.kind, count)} {are} too few to tell"
    if not apart.any():
        return False, "no difference: every part of the data gives the same figure"
    if low <= 0 <= high:
        return False, "not certain: the interval includes 0"
    over = f"the interval over {count} {_named(units.kind, count)} leaves out 0"
    if units.kind == "recordings":
        return True, f"certain: {over}"
    one_sided = bool((apart > 0).all() or (apart < 0).all())
    large = bool((np.abs(apart) >= 0.5 * np.minimum(np.abs(first), np.abs(second))).all())
    if one_sided and large and count >= _FEWEST_BLOCKS:
        return True, f"certain for {_these(units)} only: {over}, and it is half or more in each"
    if units.independent < ENOUGH_BLOCKS:
        return False, (
            f"not certain: {over}, but {ENOUGH_BLOCKS} blocks of {BLOCK_S:g} s would be needed, "
            f"or better {FEWEST_RECORDINGS} recordings"
        )
    return True, f"certain for {_these(units)} only: {over}"


def known_together(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The figures of the units that have both."""
    both = np.isfinite(first) & np.isfinite(second)
    return first[both], second[both]


def _named(kind: str, count: int) -> str:
    name = "recording" if kind == "recordings" else "block of time"
    return (
        name
        if count == 1
        else name.replace("recording", "recordings").replace("block of", "blocks of")
    )


def _these(units: Units) -> str:
    return "this recording" if units.recordings == 1 else f"these {units.recordings} recordings"
