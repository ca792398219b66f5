"""One part of a source through its contestants: each frame is decoded once, answered and scored."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from dense_perception.core.errors import DensePerceptionError, InputError
from dense_perception.core.json_text import json_text, parse_json
from dense_perception.evaluation.contestants import Contestant, Entry, open_contestant
from dense_perception.evaluation.figures import FrameScore
from dense_perception.evaluation.judge import Judge
from dense_perception.evaluation.scoring import FrameScorer
from dense_perception.evaluation.sources import SourceName, open_source
from dense_perception.evaluation.truth import Part, TruthOptions, TruthSource
from dense_perception.media.problems import Problems
from dense_perception.metrics.protocols import Protocol

UNANSWERED = "it has no answer to this frame"
_END = '{"part":'


@dataclass(frozen=True)
class Job:
    """A part of a source and who answers it; any process can do it.

    ``workers``: how many do so at the same time, on this machine or a cluster.
    """

    source: SourceName
    truth: TruthOptions
    part: Part
    entries: tuple[Entry, ...]
    protocol: Protocol
    workers: int = 1


class _Notes(TypedDict):
    frames: int
    scored: int
    unmatched: int
    empty: int
    problems: list[tuple[str, int]]
    failed: list[tuple[str, int]]
    skipped: list[tuple[str, int]]
    ms: list[float]
    memory_mb: float | None
    intrinsics_assumed: int
    workers: int


@dataclass
class PartScores:
    """One contestant's scores of one part as lines, and what else came of it.

    ``frames`` had truth, ``scored`` were compared; ``unmatched`` and ``empty`` had none, as
    :class:`~dense_perception.evaluation.truth.TruthSource` counts them. ``problems`` are of the
    data, ``failed`` of the contestant, ``skipped`` what of its answers could not be compared.
    ``ms`` is its time a frame beside ``workers`` that shared the machine, ``memory_mb`` what it
    took when it was opened, None where it was open already.
    """

    lines: list[str] = field(default_factory=list)
    frames: int = 0
    scored: int = 0
    unmatched: int = 0
    empty: int = 0
    problems: list[tuple[str, int]] = field(default_factory=list)
    failed: list[tuple[str, int]] = field(default_factory=list)
    skipped: list[tuple[str, int]] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)
    memory_mb: float | None = None
    intrinsics_assumed: int = 0
    workers: int = 1

    def text(self) -> str:
        """The scores, a line each, and the rest as the last line."""
        notes = _Notes(
            frames=self.frames,
            scored=len(self.lines),
            unmatched=self.unmatched,
            empty=self.empty,
            problems=self.problems,
            failed=self.failed,
            skipped=self.skipped,
            ms=[round(ms, 3) for ms in self.ms if math.isfinite(ms)],
            memory_mb=self.memory_mb,
            intrinsics_assumed=self.intrinsics_assumed,
            workers=self.workers,
        )
        return "".join(f"{line}\n" for line in [*self.lines, json_text({"part": notes})])

    @staticmethod
    def read_scores(path: Path) -> Iterator[FrameScore]:
        """
        :raises InputError: if the file cannot be read or is damaged.
        """
        for line in _lines(path):
            if not line.startswith(_END):
                yield FrameScore.from_line(line)

    @classmethod
    def read(cls, path: Path) -> PartScores:
        """All but the scores.

        :raises InputError: if the file cannot be read or is damaged.
        """
        last = ""
        for line in _lines(path):
            last = line
        try:
            return cls([], **parse_json(last)["part"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged: delete it and run again") from error


def _lines(path: Path) -> Iterator[str]:
    try:
        with open(path, encoding="utf-8") as stream:
            yield from stream
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}; delete it and run again") from error


class Opened:
    """What one process has open: the source it reads and the contestants that answer it."""

    def __init__(self) -> None:
        self._source: tuple[tuple[SourceName, TruthOptions], TruthSource] | None = None
        self._contestants: dict[Entry, Contestant] = {}
        self._memory_mb: dict[Entry, float] = {}

    def open(self, source: SourceName, options: TruthOptions) -> TruthSource:
        """Only one is open at a time: bags hold buffers."""
        key = (source, options)
        if self._source is None or self._source[0] != key:
            self.close_source()
            self._source = (key, open_source(*key))
        return self._source[1]

    def contestant(self, entry: Entry) -> Contestant:
        if entry not in self._contestants:
            self._contestants[entry] = open_contestant(entry)
        return self._contestants[entry]

    def memory_mb(self, entry: Entry, before_mb: float) -> float:
        """What a contestant takes, told once, when it has answered for the first time."""
        if entry not in self._memory_mb:
            self._memory_mb[entry] = max(0.0, resident_mb() - before_mb)
        return self._memory_mb[entry]

    def is_new(self, entry: Entry) -> bool:
        return entry not in self._memory_mb

    def close_source(self) -> None:
        if self._source is not None:
            self._source[1].close()
            self._source = None

    def close(self) -> None:
        self.close_source()
        for contestant in self._contestants.values():
            contestant.close()
        self._contestants.clear()


def answer_part(job: Job, opened: Opened) -> dict[str, str]:
    """The scores of each contestant as text, by its name.

    :raises DensePerceptionError: if the source or a contestant cannot be opened.
    """
    source = opened.open(job.source, job.truth)
    found = {entry: PartScores(workers=job.workers) for entry in job.entries}
    failed = {entry: Problems() for entry in job.entries}
    scorers = {entry: FrameScorer(entry) for entry in job.entries}
    frames = 0
    judge: Judge | None = None
    for truth in source.frames(job.part):
        frames += 1
        judge = Judge(truth, job.protocol, judge)
        for entry, scores in found.items():
            before_mb = resident_mb() if opened.is_new(entry) else 0.0
            contestant = opened.contestant(entry)
            try:
                answer = contestant.answer(truth)
                if answer is None:
                    failed[entry].at(truth.key, UNANSWERED)
                    continue
                score = scorers[entry].score(judge, answer)
            except DensePerceptionError as error:
                failed[entry].at(truth.key, error)
                continue
            if opened.is_new(entry):
                scores.memory_mb = round(opened.memory_mb(entry, before_mb), 1)
            scores.ms.append(answer.ms)
            scores.intrinsics_assumed += answer.intrinsics_assumed
            if score is not None:
                scores.lines.append(score.to_line())
    for entry, scores in found.items():
        scores.frames = frames
        scores.unmatched, scores.empty = source.unmatched, source.empty
        scores.problems = source.problems.counted
        scores.failed = failed[entry].counted
        scorers[entry].skipped.extend(scorers[entry].unit_doubts)
        scores.skipped = scorers[entry].skipped.counted
    return {entry.name: scores.text() for entry, scores in found.items()}


def resident_mb() -> float:
    """What this process has in memory; NaN where the system does not say (not Linux)."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * 4096 / 1e6
    return math.nan
