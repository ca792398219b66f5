"""The scores of frames in columns, in a fixed order.

Whatever order the scores come in, and from how many workers, the columns are those of the frames
sorted by recording, time and key. So every sum over them is the same to the last digit. Of a long
evaluation one stretch after the other is a table, and of all frames no more than their names, times
and tags are kept.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.evaluation.figures import FrameScore, ThingMatches


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
    values: dict[str, Column] = field(default_factory=dict)
    sums: dict[str, tuple[Column, Column]] = field(default_factory=dict)
    # (row, true, predicted, pixels), one after another.
    confusion: array[int] = field(default_factory=lambda: array("i"))
    labelled: array[int] = field(default_factory=lambda: array("i"))
    things: list[tuple[int, ThingMatches]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Answers:
    """One contestant's scores on all frames, whether it answered them or not.

    ``answered`` bool (frames,); ``values`` and both parts of ``sums`` are float64 (frames,), NaN
    where there is nothing. ``confusion`` is int32 (n, 4) of frame, true class, predicted class
    and pixels; ``labelled`` bool (frames,) says where labels were compared at all. ``things`` are
    frames with what was found in them.
    """

    answered: np.ndarray
    values: Mapping[str, np.ndarray]
    sums: Mapping[str, tuple[np.ndarray, np.ndarray]]
    confusion: np.ndarray
    labelled: np.ndarray
    things: Sequence[tuple[int, ThingMatches]] = ()


@dataclass(frozen=True)
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

    @cached_property
    def _places(self) -> dict[tuple[str, str], int]:
        names = zip(self.recordings, self.keys, strict=True)
        return {name: place for place, name in enumerate(names)}

    def places(self, others: Frames) -> np.ndarray:
        """Where the frames of a stretch are among these, int64, rising."""
        names = zip(others.recordings, others.keys, strict=True)
        return np.array([self._places[name] for name in names], np.int64)

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


class FrameIndex:
    """The frames of scores that come in any order, and who has scored them."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str], int] = {}
        self._recordings: dict[str, str] = {}
        self._stamps = array("q")
        self._tags: dict[str, dict[int, str | float]] = {}
        self._seen: dict[str, bytearray] = {}
        self._sorted: list[int] = []

    def __len__(self) -> int:
        return len(self._stamps)

    @property
    def contestants(self) -> list[str]:
        """In the order of the alphabet."""
        return sorted(self._seen)

    def add(self, score: FrameScore) -> int:
        """The number of its frame, in the order they came.

        :raises InputError: if the contestant has a score for that frame already.
        """
        # One text for the many frames of a recording.
        recording = self._recordings.setdefault(score.recording, score.recording)
        frame = self._numbers.setdefault((recording, score.key), len(self._numbers))
        if frame == len(self._stamps):
            self._stamps.append(score.stamp_ns)
            for name, tag in score.tags.items():
                self._tags.setdefault(name, {})[frame] = tag
        seen = self._seen.setdefault(score.contestant, bytearray())
        if len(seen) <= frame:
            seen.extend(bytes(len(self._stamps) - len(seen)))
        if seen[frame]:
            raise InputError(
                f"{score.contestant} has two scores for frame {score.key} of {score.recording}: "
                "give recordings and frames names of their own"
            )
        seen[frame] = 1
        return frame

    def frames(self) -> Frames:
        """All frames that anybody answered, sorted by recording, time and key."""
        names = list(self._numbers)
        order = self.order()
        recordings = tuple(names[i][0] for i in order)
        return Frames(
            recordings,
            np.unique(np.array(recordings, object), return_inverse=True)[1],
            tuple(names[i][1] for i in order),
            tuple(self._stamps[i] for i in order),
            {name: [tags.get(i) for i in order] for name, tags in sorted(self._tags.items())},
        )

    def order(self) -> list[int]:
        """The numbers of the frames as they are sorted."""
        if len(self._sorted) != len(self._numbers):
            names = list(self._numbers)
            self._sorted = sorted(
                range(len(names)), key=lambda i: (names[i][0], self._stamps[i], names[i][1])
            )
        return self._sorted


class Scores(Protocol):
    """The scores of an evaluation, a stretch of its frames after the other."""

    @property
    def contestants(self) -> list[str]: ...

    def frames(self) -> Frames:
        """All that anybody answered, sorted by recording, time and key."""

    def tables(self) -> Iterator[ScoreTable]:
        """The scores, each frame in one table."""


class ScoreTable:
    """Takes scores in any order.

    :param scores: what to add at once.
    """

    def __init__(self, scores: Iterable[FrameScore] = ()) -> None:
        self._index = FrameIndex()
        self._rows: dict[str, _Rows] = {}
        for score in scores:
            self.add(score)

    @property
    def contestants(self) -> list[str]:
        """In the order of the alphabet."""
        return self._index.contestants

    def frames(self) -> Frames:
        """All frames that anybody answered, sorted by recording, time and key."""
        return self._index.frames()

    def tables(self) -> Iterator[ScoreTable]:
        """This one."""
        yield self

    def add(self, score: FrameScore) -> None:
        """
        :raises InputError: if the contestant has a score for that frame already.
        """
        frame = self._index.add(score)
        rows = self._rows.setdefault(score.contestant, _Rows())
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
        if score.things is not None:
            rows.things.append((row, score.things))

    def answers(self, contestant: str) -> Answers:
        """What it scored, by the frames of :meth:`frames`; nothing for an unknown one."""
        count = len(self._index)
        rows = self._rows.get(contestant, _Rows())
        place = np.empty(count, np.int64)
        place[self._index.order()] = np.arange(count)
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
            [(int(place[row]), things) for row, things in rows.things],
        )
