"""One part of a source through its contestants: each frame is decoded once, answered and scored."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypedDict

from dense_perception.core.errors import DensePerceptionError, InputError
from dense_perception.core.json_text import json_text, parse_json
from dense_perception.evaluation.ahead import ahead
from dense_perception.evaluation.contestants import (
    TIMED,
    Answer,
    Contestant,
    Entry,
    open_contestant,
)
from dense_perception.evaluation.figures import FrameScore
from dense_perception.evaluation.judge import Judge
from dense_perception.evaluation.scoring import FrameScorer
from dense_perception.evaluation.sources import SourceName, open_source
from dense_perception.evaluation.truth import Part, TruthFrame, TruthOptions, TruthSource
from dense_perception.media.problems import Problems
from dense_perception.metrics.protocols import Protocol

UNANSWERED = "it has no answer to this frame"
_END = '{"part":'


@dataclass(frozen=True)
class Job:
    """A part of a source and who answers it; any process can do it.

    ``workers``: how many do so at the same time, on this machine or a cluster. ``overlaps``:
    frames are read, answered and scored at the same time, each step in a thread.
    """

    source: SourceName
    truth: TruthOptions
    part: Part
    entries: tuple[Entry, ...]
    protocol: Protocol
    workers: int = 1
    overlaps: bool = False


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
    ``ms`` is its time a frame beside ``workers`` that shared the machine, of frames that were
    answered while this worker did nothing else; ``memory_mb`` what it took when it was opened, None
    where it was open already.
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
        self._timed: Counter[Entry] = Counter()

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

    def untimed(self, entries: Iterable[Entry]) -> int:
        """How many frames more all of ``entries`` answer with nothing beside them, to be timed."""
        return max(TIMED - min(self._timed[entry] for entry in entries), 0)

    def count_timed(self, entry: Entry) -> None:
        self._timed[entry] += 1

    def close_source(self) -> None:
        if self._source is not None:
            self._source[1].close()
            self._source = None

    def close(self) -> None:
        self.close_source()
        for contestant in self._contestants.values():
            contestant.close()
        self._contestants.clear()


@dataclass(frozen=True, slots=True)
class _Answered:
    """What one contestant said of a frame, or why it said nothing."""

    answer: Answer | None = None
    error: DensePerceptionError | None = None
    memory_mb: float | None = None


class _Scoring:
    """The scores of all contestants of a job, frame by frame."""

    def __init__(self, job: Job, opened: Opened) -> None:
        self._job, self._opened = job, opened
        self.scores = {entry: PartScores(workers=job.workers) for entry in job.entries}
        self.failed = {entry: Problems() for entry in job.entries}
        self.scorers = {entry: FrameScorer(entry) for entry in job.entries}
        self.frames = 0
        self._judge: Judge | None = None

    def answered(
        self, truths: Iterator[TruthFrame]
    ) -> Generator[tuple[TruthFrame, dict[Entry, _Answered]]]:
        """Each frame with what every contestant says of it."""
        for truth in truths:
            yield truth, {entry: self._ask(entry, truth) for entry in self._job.entries}

    def _ask(self, entry: Entry, truth: TruthFrame) -> _Answered:
        is_new = self._opened.is_new(entry)
        before_mb = resident_mb() if is_new else 0.0
        contestant = self._opened.contestant(entry)
        try:
            answer = contestant.answer(truth)
        except DensePerceptionError as error:
            return _Answered(error=error)
        if answer is None or not is_new:
            return _Answered(answer)
        return _Answered(answer, memory_mb=round(self._opened.memory_mb(entry, before_mb), 1))

    def add(self, truth: TruthFrame, answers: dict[Entry, _Answered], *, is_timed: bool) -> None:
        """:param is_timed: whether the contestants had the machine to themselves."""
        self.frames += 1
        self._judge = Judge(truth, self._job.protocol, self._judge)
        for entry, said in answers.items():
            scores, failed = self.scores[entry], self.failed[entry]
            if said.memory_mb is not None:
                scores.memory_mb = said.memory_mb
            if said.error is not None:
                failed.at(truth.key, said.error)
                continue
            if said.answer is None:
                failed.at(truth.key, UNANSWERED)
                continue
            try:
                score = self.scorers[entry].score(self._judge, said.answer)
            except DensePerceptionError as error:
                failed.at(truth.key, error)
                continue
            if is_timed:
                scores.ms.append(said.answer.ms)
            scores.intrinsics_assumed += said.answer.intrinsics_assumed
            if score is not None:
                scores.lines.append(score.to_line())


def answer_part(job: Job, opened: Opened) -> dict[str, str]:
    """The scores of each contestant as text, by its name.

    :raises DensePerceptionError: if the source or a contestant cannot be opened.
    """
    source = opened.open(job.source, job.truth)
    scoring = _Scoring(job, opened)
    truths = source.frames(job.part)
    alone = opened.untimed(job.entries) if job.overlaps else None
    for truth, answers in scoring.answered(islice(truths, alone)):
        scoring.add(truth, answers, is_timed=True)
        for entry in job.entries:
            opened.count_timed(entry)
    if alone is not None:
        with closing(ahead(scoring.answered(ahead(truths)))) as rest:
            for truth, answers in rest:
                scoring.add(truth, answers, is_timed=False)
    for entry, scores in scoring.scores.items():
        scores.frames = scoring.frames
        scores.unmatched, scores.empty = source.unmatched, source.empty
        scores.problems = source.problems.counted
        scores.failed = scoring.failed[entry].counted
        skipped = scoring.scorers[entry].skipped
        skipped.extend(scoring.scorers[entry].unit_doubts)
        scores.skipped = skipped.counted
    return {entry.name: scores.text() for entry, scores in scoring.scores.items()}


def resident_mb() -> float:
    """What this process has in memory; NaN where the system does not say (not Linux)."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * 4096 / 1e6
    return math.nan
