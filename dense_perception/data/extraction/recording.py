"""One recording, or a span of it, to shards; stopped anywhere, it goes on after the last shard."""

from __future__ import annotations

import base64
import json
import math
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.core.json_text import json_text, parse_json
from dense_perception.core.limits import MAX_JPEG_SCANS, MAX_PIXELS
from dense_perception.core.storage import atomic_write_text
from dense_perception.data.depth_steps import sensor_unit
from dense_perception.data.doubts import median_depth_m, unit_doubts
from dense_perception.data.extraction.matching import Match, Matcher, Transforms
from dense_perception.data.extraction.scene import Cameras, Motions, motions_of
from dense_perception.data.extraction.topics import TopicNames, Topics, choose_topics
from dense_perception.data.shards import encode, write_members
from dense_perception.imaging.messages import ImageReader
from dense_perception.imaging.transforms import TransformBuffer
from dense_perception.media.bag_reader import BagReader
from dense_perception.media.problems import Problems

JOURNALS = ".extract"
_PER_SHARD = 128
# Depth sensors' noise hardly gets smaller by trying harder, and this is where the time goes.
_PNG_LEVEL = 1
JPEG_QUALITY = 90
"""Of images that are not kept as they were recorded: a camera's noise takes the room."""


@dataclass(frozen=True)
class Settings:
    """How frames are taken; all of it must be equal for an extraction to be continued.

    :param still: frames whose image differs by less than this many levels (of 255, mean over a
        small gray copy) from the last one taken are dropped; 0 takes all.
    :param rate_hz: take no more frames a second than this; 0 for all.
    :param size: width and height of the frames; None keeps the images'.
    :param world: frame of /tf that poses are given in; empty for none.
    :param matrix: which one of a calibration describes colour images: ``K``, ``P`` or ``auto``.
    :param bits: how many bits of 16-bit pictures count; 0 for all.
    """

    topics: TopicNames = field(default_factory=TopicNames)
    tolerance_ms: float = 30.0
    still: float = 1.5
    rate_hz: float = 0.0
    size: tuple[int, int] | None = None
    hfov_deg: float | None = None
    world: str = ""
    matrix: str = "auto"
    bits: int = 0
    max_pixels: int = MAX_PIXELS
    max_jpeg_scans: int = MAX_JPEG_SCANS


@dataclass(frozen=True)
class Span:
    """The colour images ``first`` to ``stop`` (excluded; None for the end) of a recording.

    ``name`` is part of the shards' names, so it is unique in the corpus ``out``.
    """

    bag: Path
    name: str
    out: Path
    first: int = 0
    stop: int | None = None


@dataclass
class Progress:
    """What is done of a span: shards written, and where to go on.

    ``seen`` images were dealt with, ``frames`` taken, ``still`` dropped since nothing moved,
    ``partners`` counts by topic how many frames have its messages.
    """

    shards: int = 0
    seen: int = 0
    frames: int = 0
    still: int = 0
    partners: dict[str, int] = field(default_factory=dict)
    without_depth: int = 0
    thumbnail: str = ""
    stamp_ns: int = 0
    width: int = 0
    height: int = 0
    classes: list[str] = field(default_factory=list)
    topics: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    finished: bool = False


def extract_span(
    span: Span,
    settings: Settings,
    threads: int = 1,
    on_seen: Callable[[int], object] = lambda count: None,
) -> Progress:
    """Write the frames of ``span`` as shards of its corpus; those that are there are kept.

    :param on_seen: told how many images were dealt with since the last call.
    :raises InputError: if the recording or its topics cannot be used, or the corpus was begun with
        other settings.
    """
    journal = span.out / JOURNALS / f"{span.name}.json"
    wanted = json.loads(json_text(settings))
    progress = _read(journal, wanted)
    on_seen(progress.seen)
    if progress.finished:
        return progress
    journal.parent.mkdir(parents=True, exist_ok=True)
    with BagReader(span.bag) as bag, ThreadPoolExecutor(max(1, threads)) as pool:
        topics = choose_topics(bag, settings.topics, settings.matrix)
        progress.topics = _named(topics)
        progress.classes = list(topics.classes)
        extraction = _Extraction(span, settings, topics, bag, progress)
        for result in _ahead(pool, extraction.jobs(on_seen), 2 * threads + 2):
            extraction.take(result)
            if len(extraction.pending) == _PER_SHARD:
                extraction.write(journal, wanted)
        extraction.finish()
        extraction.write(journal, wanted)
    return progress


class _Extraction:
    def __init__(
        self, span: Span, settings: Settings, topics: Topics, bag: BagReader, progress: Progress
    ) -> None:
        self.progress = progress
        self.pending: list[tuple[str, dict[str, bytes]]] = []
        self._span, self._settings = span, settings
        self._reader = ImageReader(settings.bits, settings.max_pixels, settings.max_jpeg_scans)
        self._cameras = Cameras(topics, settings.size, settings.hfov_deg, self._reader)
        self._before, self._problems = progress.problems, Problems()
        self._buffer = TransformBuffer()
        partners = [name for name in (topics.depth, *topics.points, topics.labels) if name]
        self._matcher = Matcher(
            bag,
            topics.colour,
            partners,
            round(settings.tolerance_ms * 1e6),
            topics.transforms,
            max(span.first, progress.seen + span.first),
            span.stop,
            reader=self._reader,
            problems=self._problems,
        )
        self._matcher.on_transforms = self._on_transforms  # type: ignore[method-assign]
        if topics.doubt:
            self._problems.note(topics.doubt)
        self._medians_m: dict[str, float] = {}
        self._last: np.ndarray | None = None
        if progress.thumbnail:
            stored = np.frombuffer(base64.b64decode(progress.thumbnail), np.uint8)
            decoded = cv2.imdecode(stored, cv2.IMREAD_UNCHANGED)
            self._last = None if decoded is None else decoded.astype(np.float32)
        self._last_ns = progress.stamp_ns
        self._last_time_ns: int | None = None
        self._seen, self._still = progress.seen, progress.still

    def jobs(self, on_seen: Callable[[int], object]) -> Iterator[Callable[[], _Result]]:
        """What is to be computed for each frame that is taken, in order."""
        settings = self._settings
        interval_ns = 1e9 / settings.rate_hz if settings.rate_hz else 0
        for match in self._matcher:
            on_seen(1)
            seen = self._seen = match.number - self._span.first + 1
            still = False
            if 0 <= self._since_last_ns(match) < 0.9 * interval_ns:
                continue
            try:
                small = self._cameras.thumbnail(match) if settings.still else None
            except InputError as error:
                self._problems.at(f"{self._cameras.topics.colour} at {match.stamp_ns} ns", error)
                continue
            if small is not None and self._last is not None:
                still = float(np.abs(small - self._last).mean()) < settings.still
            if still:
                self._still += 1
                continue
            try:
                motions, problems = motions_of(match, self._cameras, self._buffer, settings.world)
            except InputError as error:
                self._problems.note(str(error))
                continue
            self._problems.extend(problems)
            self._last, self._last_ns = small, match.stamp_ns
            self._last_time_ns = match.time_ns
            yield _Job(self._cameras, self._span.name, match, motions, seen, self._still, small)

    def _since_last_ns(self, match: Match) -> float:
        """By stamps; where they are 0 or repeat, by the time of recording."""
        if match.stamp_ns not in (0, self._last_ns):
            return match.stamp_ns - self._last_ns if self._last_ns else math.inf
        return math.inf if self._last_time_ns is None else match.time_ns - self._last_time_ns

    def take(self, result: _Result) -> None:
        """Keep a frame that was computed, or say why it was not."""
        if result.problem:
            where = f"{self._cameras.topics.colour} at {result.stamp_ns} ns"
            self._problems.at(where, result.problem)
            return
        progress = self.progress
        self.pending.append((result.key, result.members))
        progress.seen, progress.stamp_ns = result.seen, result.stamp_ns
        progress.still = result.still
        progress.frames += 1
        self._medians_m[result.key] = result.median_m
        progress.width, progress.height = result.size
        if result.thumbnail is not None:
            packed = cv2.imencode(".png", np.rint(result.thumbnail).astype(np.uint8))[1]
            progress.thumbnail = base64.b64encode(packed.tobytes()).decode()
        progress.without_depth += result.is_empty
        counts = Counter(progress.partners)
        counts.update(result.partners)
        progress.partners = dict(counts)

    def finish(self) -> None:
        """All images were dealt with, those that were dropped at the end too."""
        self.progress.seen, self.progress.still = self._seen, self._still
        self.progress.finished = True
        for doubt in unit_doubts([*self._medians_m.values()], [*self._medians_m]):
            self._problems.note(doubt)
        if self._cameras.doubt:
            self._problems.note(self._cameras.doubt)
        depth, progress = self._cameras.topics.depth, self.progress
        if progress.without_depth:
            self._problems.note(
                f"{progress.without_depth} of {progress.partners[depth]} images of {depth} have no "
                "depth where the picture looks (0 or not finite everywhere): check the sensor and "
                "its calibration, or leave the topic out with --depth-topic none"
            )
        self._problems.extend(self._reader.doubts)

    def write(self, journal: Path, settings: dict[str, Any]) -> None:
        """Write what is pending as a shard, then remember how far it goes."""
        progress = self.progress
        if self.pending:
            name = f"{self._span.name}-{progress.shards:05d}.tar"
            write_members(self._span.out / name, iter(self.pending))
            self.pending = []
            progress.shards += 1
        problems = [*self._before, *self._problems.lines]
        progress.problems = list(dict.fromkeys(problems))
        atomic_write_text(journal, json_text({"settings": settings, **asdict(progress)}, indent=1))

    def _on_transforms(self, topic: str, content: Transforms) -> None:
        for transform in content.transforms:
            self._buffer.add(transform, static=topic.endswith("_static"))


@dataclass(frozen=True)
class _Result:
    key: str = ""
    members: dict[str, bytes] = field(default_factory=dict)
    seen: int = 0
    still: int = 0
    stamp_ns: int = 0
    size: tuple[int, int] = (0, 0)
    partners: tuple[str, ...] = ()
    thumbnail: np.ndarray | None = None
    median_m: float = 0.0
    is_empty: bool = False
    problem: str = ""


@dataclass(frozen=True)
class _Job:
    """The work on one frame; runs in any thread."""

    cameras: Cameras
    name: str
    match: Match
    motions: Motions
    seen: int
    still: int
    thumbnail: np.ndarray | None

    def __call__(self) -> _Result:
        match = self.match
        key = f"{self.name}_{match.number:06d}"
        try:
            sample = self.cameras.sample(match, self.motions, key, self.name)
            members = encode(
                sample,
                unit_m=sensor_unit(sample.depth_m),
                png_level=_PNG_LEVEL,
                jpeg_quality=JPEG_QUALITY,
            )
        except InputError as error:
            return _Result(stamp_ns=match.stamp_ns, problem=str(error))
        size = (sample.intrinsics.width, sample.intrinsics.height)
        # What lacks a transform has its own line.
        has_place = match.partners.get(self.cameras.topics.depth) is not None and (
            self.motions.depth is not None or self.cameras.is_aligned(match)
        )
        partners = tuple(name for name, found in match.partners.items() if found is not None)
        return _Result(
            key,
            members,
            self.seen,
            self.still,
            match.stamp_ns,
            size,
            partners,
            self.thumbnail,
            median_depth_m(sample.depth_m),
            has_place and not sample.depth_m.any(),
        )


def _ahead(
    pool: ThreadPoolExecutor, jobs: Iterator[Callable[[], _Result]], most: int
) -> Iterator[_Result]:
    """The results in order, while up to ``most`` jobs are under way."""
    running: deque[Future[_Result]] = deque()
    for job in jobs:
        running.append(pool.submit(job))
        if len(running) == most:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


def _named(topics: Topics) -> dict[str, Any]:
    named = {
        "colour": topics.colour,
        "depth": topics.depth,
        "points": list(topics.points),
        "labels": topics.labels,
    }
    return {use: name for use, name in named.items() if name}


def _read(journal: Path, settings: dict[str, Any]) -> Progress:
    """
    :raises InputError: if it was begun with other settings.
    """
    try:
        found = parse_json(journal.read_text(encoding="utf-8"))
        before = found.pop("settings")
        progress = Progress(**found)
        # What a begun extraction does not know yet was the default then.
        before = {**json.loads(json_text(Settings())), **before}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Progress()
    if before != settings:
        different = ", ".join(sorted(k for k in settings if before.get(k) != settings[k]))
        raise InputError(
            f"{journal.parent.parent} was begun with other settings ({different}): give the same "
            "again to go on, or choose another --out"
        )
    return progress
