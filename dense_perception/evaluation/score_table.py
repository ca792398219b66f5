"""The scores of many frames in columns: 10,000 frames in tens of megabytes, in a fixed order.

Whatever order the scores come in, and from how many workers, the columns are those of the frames
sorted by recording, time and key. So every sum over them is the same to the last digit.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.evaluation.figures import FrameScore


class Column:
    """Numbers of rows that come one after another; NaN where a row had none."""

    def __init__(self) -> None:
        self._numbers = array("d")

    def put(self, row: int, value: float) -> None:
        missing = row - len(self._numbers)
        if missing:
            self._numbers.extend([math.nan] * missing)
        self._numbers.append(value)

    def at(self, place: np.ndarray, count: int) -> np.ndarray:
        """float64 (count,): row i's number at ``place[i]``, else NaN."""
        result = np.full(count, np.nan)
        result[place[: len(self._numbers)]] = np.frombuffer(self._numbers)
        return result


@dataclass
class _Rows:
    """What one contestant scored, a row for each frame."""

    frames: array[int] = field(default_factory=lambda: array("i"))
    seen: bytearray = field(default_factory=bytearray)
    values: dict[str, Column] = field(default_factory=dict)
    sums: dict[str, tuple[Column, Column]] = field(default_factory=dict)
    # (row, true, predicted, pixels), one after another.
    confusion: array[int] = field(default_factory=lambda: array("i"))
    labelled: array[int] = field(default_factory=lambda: array("i"))


@dataclass(frozen=True, slots=True)
class Answers:
    """One contestant's scores on all frames, whether it answered them or not.

    ``answered`` bool (frames,); ``values`` and both parts of ``sums`` are float64 (frames,), NaN
    where there is nothing. ``confusion`` is int32 (n, 4) of frame, true class, predicted class
    and pixels; ``labelled`` bool (frames,) says where labels were compared at all.
    """

    answered: np.ndarray
    values: Mapping[str, np.ndarray]
    sums: Mapping[str, tuple[np.ndarray, np.ndarray]]
    confusion: np.ndarray
    labelled: np.ndarray


@dataclass(frozen=True, slots=True)
class Frames:
    """The frames in their order, with their tags by name (None where a frame has none).

    ``recording_numbers`` int64 (frames,): equal numbers are equal ``recordings``.
    """

    recordings: tuple[str, ...]
    recording_numbers: np.ndarray
    keys: tuple[str, ...]
    stamps_ns: tuple[int, ...]
    tags: Mapping[str, list[str | float | None]]

    def __len__(self) -> int:
        return len(self.keys)

    def digests(self, of_frame: np.ndarray, answered: np.ndarray) -> list[str]:
        """Of each unit a text that is equal where the same frames were answered.

        :param of_frame: the unit of each frame, rising, int64 (frames,).
        :param answered: bool (frames,).
        """
        states = [hashlib.sha256() for _ in range(int(of_frame[-1]) + 1)]
        for frame in np.flatnonzero(answered):
            name = f"{self.recordings[frame]}\0{self.keys[frame]}\0"
            states[of_frame[frame]].update(name.encode())
        return [state.hexdigest()[:16] for state in states]


class ScoreTable:
    """Takes scores in any order.

    :param scores: what to add at once.
    """

    def __init__(self, scores: Iterable[FrameScore] = ()) -> None:
        self._frames: dict[tuple[str, str], int] = {}
        self._stamps = array("q")
        self._tags: dict[str, dict[int, str | float]] = {}
        self._rows: dict[str, _Rows] = {}
        self._sorted: list[int] = []
        for score in scores:
            self.add(score)

    @property
    def contestants(self) -> list[str]:
        """In the order of the alphabet."""
        return sorted(self._rows)

    def add(self, score: FrameScore) -> None:
        """
        :raises InputError: if the contestant has a score for that frame already.
        """
        frame = self._frames.setdefault((score.recording, score.key), len(self._frames))
        if frame == len(self._stamps):
            self._stamps.append(score.stamp_ns)
            for name, tag in score.tags.items():
                self._tags.setdefault(name, {})[frame] = tag
        rows = self._rows.setdefault(score.contestant, _Rows())
        if len(rows.seen) <= frame:
            rows.seen.extend(bytes(len(self._stamps) - len(rows.seen)))
        if rows.seen[frame]:
            raise InputError(
                f"{score.contestant} has two scores for frame {score.key} of {score.recording}: "
                "give recordings and frames names of their own"
            )
        rows.seen[frame] = 1
        row = len(rows.frames)
        rows.frames.append(frame)
        for name, value in score.values.items():
            rows.values.setdefault(name, Column()).put(row, value)
        for name, (above, below) in score.sums.items():
            pair = rows.sums.setdefault(name, (Column(), Column()))
            pair[0].put(row, above)
            pair[1].put(row, below)
        if score.confusion is not None:
            rows.labelled.append(row)
            for (true, predicted), pixels in score.confusion.items():
                rows.confusion.extend((row, true, predicted, pixels))

    def frames(self) -> Frames:
        """All frames that anybody answered, sorted by recording, time and key."""
        names = list(self._frames)
        order = self._order()
        recordings = tuple(names[i][0] for i in order)
        return Frames(
            recordings,
            np.unique(np.array(recordings, object), return_inverse=True)[1],
            tuple(names[i][1] for i in order),
            tuple(self._stamps[i] for i in order),
            {name: [tags.get(i) for i in order] for name, tags in sorted(self._tags.items())},
        )

    def answers(self, contestant: str) -> Answers:
        """What it scored, by the frames of :meth:`frames`; nothing for an unknown one."""
        count = len(self._frames)
        rows = self._rows.get(contestant, _Rows())
        place = np.empty(count, np.int64)
        place[self._order()] = np.arange(count)
        place = place[np.asarray(rows.frames, np.int64)]
        answered, labelled = np.zeros((2, count), bool)
        answered[place] = True
        labelled[place[np.asarray(rows.labelled, np.int64)]] = True
        confusion = np.array(rows.confusion, np.int32).reshape(-1, 4)
        confusion[:, 0] = place[confusion[:, 0]]
        return Answers(
            answered,
            {name: column.at(place, count) for name, column in sorted(rows.values.items())},
            {
                name: (above.at(place, count), below.at(place, count))
                for name, (above, below) in sorted(rows.sums.items())
            },
            confusion,
            labelled,
        )

    def _order(self) -> list[int]:
        if len(self._sorted) != len(self._frames):
            names = list(self._frames)
            self._sorted = sorted(
                range(len(names)), key=lambda i: (names[i][0], self._stamps[i], names[i][1])
            )
        return self._sorted
