"""A whole evaluation: data and contestants in, scores of every frame in files, in any order.

Recordings are cut into parts. Each part is read once and answered by every contestant, and its
scores become one file of JSON lines for each contestant, whole or not there. So a run that was
stopped goes on, and neither the number of workers nor their machines change a digit.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypedDict

from tqdm import tqdm

from dense_perception import __version__
from dense_perception.core.errors import DensePerceptionError, InputError
from dense_perception.core.json_text import json_text
from dense_perception.core.storage import atomic_write_text
from dense_perception.evaluation.baselines import PriorFit, most_of_a_source
from dense_perception.evaluation.contestants import Entry, baselines
from dense_perception.evaluation.figures import FrameScore
from dense_perception.evaluation.parts import Job, PartScores
from dense_perception.evaluation.score_table import FrameIndex, Frames, ScoreTable
from dense_perception.evaluation.sources import SourceName, fingerprint, open_source
from dense_perception.evaluation.truth import PARTS, Part, TruthOptions
from dense_perception.evaluation.workers import Lost, Workers, run_jobs
from dense_perception.metrics.protocols import KITTI, NYU, Protocol

DEFAULT_MAX_M = 20.0
# Goes up where the same frame gets other scores, or parts are cut otherwise, in the same version.
_REVISION = 5


@dataclass(frozen=True)
class SourceData:
    """A source that could be opened: its parts, which pixels of it count, and what is doubtful
    about all of it."""

    source: SourceName
    path: str
    kind: str
    classes: tuple[str, ...]
    parts: tuple[Part, ...]
    fingerprint: str
    protocol: Protocol
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What is to be run; ``broken`` are sources that cannot be used, with the reason."""

    sources: tuple[SourceData, ...]
    broken: tuple[tuple[SourceName, str], ...]
    entries: tuple[Entry, ...]
    truth: TruthOptions


class StoredScores:
    """The scores of an outcome as the statistics read them: a part of the data after the other.

    :raises InputError: if a contestant has two scores for a frame.
    """

    def __init__(self, outcome: Outcome) -> None:
        index = FrameIndex()
        for score in outcome.all_scores():
            index.add(score)
        self._files, self._frames = outcome.files, index.frames()
        self.contestants = index.contestants

    def frames(self) -> Frames:
        """All that anybody answered, sorted by recording, time and key."""
        return self._frames

    def tables(self) -> Iterator[ScoreTable]:
        """A table for each part, read from disk each time."""
        for paths in zip(*self._files.values(), strict=True):
            yield ScoreTable(score for path in paths for score in PartScores.read_scores(path))


@dataclass(frozen=True)
class LostPart:
    """A part that nobody could score, with the name of its source."""

    source: str
    part: Part
    why: str


@dataclass
class Outcome:
    """Where the scores are, and what came of each source and contestant.

    ``plan`` is what was done of what was planned; ``lost`` are the parts that were not, ``foreign``
    the folders of scores beside these, of other settings.
    """

    plan: Plan
    files: dict[str, list[Path]] = field(default_factory=dict)
    lost: list[LostPart] = field(default_factory=list)
    foreign: list[Path] = field(default_factory=list)

    def scores(self, name: str) -> Iterator[FrameScore]:
        """The scores of a contestant, in the order of the data; read from disk each time."""
        for path in self.files[name]:
            yield from PartScores.read_scores(path)

    def all_scores(self) -> Iterator[FrameScore]:
        """Those of every contestant."""
        for entry in self.plan.entries:
            yield from self.scores(entry.name)

    def classes(self) -> tuple[str, ...]:
        """The names of the labels' classes from 0: of the data, else of a contestant."""
        given = [source.classes for source in self.plan.sources]
        given += [entry.classes for entry in self.plan.entries]
        known = next((classes for classes in given if classes), ())
        if known:
            return known
        counts = (score.confusion or {} for score in self.all_scores())
        most = max((max(pair) for each in counts for pair in each), default=-1)
        return tuple(f"class {number}" for number in range(most + 1))

    def parts(self, name: str) -> Iterator[tuple[SourceData, PartScores]]:
        """What came of each part besides scores, for a contestant."""
        paths = iter(self.files[name])
        for source in self.plan.sources:
            for _ in source.parts:
                yield source, PartScores.read(next(paths))


class GivenProtocol(TypedDict, total=False):
    """Fields of a :class:`Protocol` that the user states."""

    crop: str | None
    max_m: float


def make_plan(
    sources: Sequence[SourceName],
    entries: Sequence[Entry],
    truth: TruthOptions,
    given: GivenProtocol,
) -> Plan:
    """Open every source once, and add the baselines of all data together.

    :param given: fields of the protocol that the user states; the others are those of each data
        set, and up to 20 m elsewhere.
    :raises InputError: if none can be used; with several, one that cannot is left out by name.
    """
    opened: list[SourceData] = []
    broken: list[tuple[SourceName, str]] = []
    prior = PriorFit()
    for source in sources:
        try:
            opened.append(_look_at(source, truth, given, prior))
        except DensePerceptionError as error:
            broken.append((source, str(error)))
    if not opened:
        raise InputError("; ".join(reason for _, reason in broken))
    named = [*entries, *baselines(prior.prior())]
    names = [entry.name for entry in named]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"the contestant {name} is given twice: each is compared once")
    return Plan(tuple(opened), tuple(broken), tuple(named), truth)


def _look_at(
    source: SourceName, options: TruthOptions, given: GivenProtocol, prior: PriorFit
) -> SourceData:
    """A source; frames spread over it go into ``prior``."""
    protocol = replace(usual_protocol(source.text), **given)
    opened = open_source(source, options)
    try:
        parts = opened.parts()
        taken, each = most_of_a_source(len(parts))
        seen = 0
        for index in range(taken):
            for truth in opened.frames(parts[index * len(parts) // taken]):
                prior.add(truth, protocol)
                seen += 1
                if seen >= (index + 1) * each:
                    break
        if not seen and len(parts) == taken:
            reasons = "; ".join(opened.problems.lines) or opened.why_none()
            raise InputError(f"no frame of {opened.name} could be compared: {reasons}")
        return SourceData(
            source,
            opened.path,
            opened.kind,
            opened.classes,
            tuple(parts),
            fingerprint(source),
            protocol,
            tuple(opened.notes),
        )
    finally:
        opened.close()


def usual_protocol(text: str) -> Protocol:
    """Which true depth of a source counts where nobody says: as the data set's papers do."""
    word, colon, _ = text.partition(":")  # without one it is a folder of that name
    if colon and word == "kitti":
        return KITTI
    return NYU if colon and word.startswith("nyu") else Protocol(max_m=DEFAULT_MAX_M)


def run(plan: Plan, folder: Path, workers: Workers, *, progress: bool = False) -> Outcome:
    """Score every part that is not scored yet.

    Parts that end their workers are lost; the others are scored.

    :raises DensePerceptionError: if a source or a contestant cannot be opened any more, or the
        disk does not take the scores.
    """
    jobs: list[tuple[Job, dict[str, Path]]] = []
    done = 0
    for source in plan.sources:
        for part in source.parts:
            paths = {e.name: _part_path(folder, plan, source, part, e) for e in plan.entries}
            missing = {name: path for name, path in paths.items() if not path.exists()}
            done += 0 if missing else part.frames
            if missing:
                entries = tuple(entry for entry in plan.entries if entry.name in missing)
                job = Job(source.source, plan.truth, part, entries, source.protocol)
                jobs.append((job, missing))
    total = sum(part.frames for source in plan.sources for part in source.parts)
    disable = None if progress else True
    lost: list[LostPart] = []
    with tqdm(total=total, initial=done, unit="frame", disable=disable, file=sys.stderr) as bar:
        for index, came in run_jobs([job for job, _ in jobs], workers):
            job, paths = jobs[index]
            if isinstance(came, Lost):
                lost.append(LostPart(job.source.name, job.part, came.why))
            else:
                for name, path in paths.items():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    atomic_write_text(path, came[name])
            bar.update(job.part.frames)
    return _outcome(plan, folder, lost)


def _outcome(plan: Plan, folder: Path, lost: list[LostPart]) -> Outcome:
    """Where everything is, of the parts that are not lost."""
    gone = {(each.source, each.part.number) for each in lost}
    sources = tuple(
        replace(
            source,
            parts=tuple(p for p in source.parts if (source.source.name, p.number) not in gone),
        )
        for source in plan.sources
    )
    plan = replace(plan, sources=sources)
    files = {
        entry.name: [
            _part_path(folder, plan, source, part, entry)
            for source in sources
            for part in source.parts
        ]
        for entry in plan.entries
    }
    own = {path.parent for paths in files.values() for path in paths}
    beside = folder / PARTS
    foreign = [path for path in sorted(beside.iterdir()) if path not in own] if own else []
    return Outcome(plan, files, sorted(lost, key=_place), foreign)


def _place(lost: LostPart) -> tuple[str, int]:
    return lost.source, lost.part.number


def _part_path(folder: Path, plan: Plan, source: SourceData, part: Part, entry: Entry) -> Path:
    """Of what the scores depend on, so that other settings never take each other's."""
    depends = {
        "version": __version__,
        "revision": _REVISION,
        "entry": entry.identity(),
        "truth": asdict(plan.truth),
        "protocol": asdict(source.protocol),
        "source": source.fingerprint,
    }
    digest = hashlib.sha256(json_text(depends, sort_keys=True).encode()).hexdigest()
    return folder / PARTS / digest[:16] / f"{source.source.name}-{part.number:05d}.jsonl"
