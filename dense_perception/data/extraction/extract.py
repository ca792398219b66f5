"""Many recordings to a corpus, and to another one of what is held out, on all cores."""

from __future__ import annotations

import multiprocessing
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing.managers import SyncManager
from pathlib import Path
from queue import Queue
from typing import Any

from tqdm import tqdm

from dense_perception.core.errors import InputError, TrainingError
from dense_perception.core.machine import end_with_parent, keep_freed_memory
from dense_perception.core.storage import real_path
from dense_perception.data.description import DESCRIPTION_FILE, write_description
from dense_perception.data.extraction.recording import (
    JOURNALS,
    JPEG_QUALITY,
    Progress,
    Settings,
    Span,
    extract_span,
)
from dense_perception.data.extraction.topics import choose_topics, read_classes
from dense_perception.media.bag_reader import BagReader


@dataclass(frozen=True)
class ExtractOptions:
    """What to extract from where to where.

    ``held_out`` is the share of the data that goes to the corpus ``validation``: whole recordings
    where there are enough, else the end of each, after a gap of ``gap`` images. ``classes`` is a
    file with the names of the labels. ``workers`` is the number of cores to use.
    """

    bags: tuple[Path, ...]
    out: Path
    settings: Settings
    validation: Path | None = None
    held_out: float = 0.15
    gap: int = 30
    classes: Path | None = None
    licence: str = "unknown"
    workers: int = 1
    command: str = ""


@dataclass(frozen=True)
class Row:
    """What came of one recording, or of its part in one of the corpora."""

    recording: str
    corpus: str
    images: int
    still: int
    frames: int
    partners: dict[str, int]
    problems: list[str]


@dataclass(frozen=True)
class Extracted:
    """What came of all recordings."""

    rows: list[Row]


def extract(options: ExtractOptions) -> Extracted:
    """Extract all recordings, with a progress bar; a recording that cannot be read is left out.

    :raises InputError: if an option cannot be used, a corpus holds something else, or no recording
        gives a frame.
    """
    _check(options)
    keep_freed_memory()
    names = read_classes(options.classes) if options.classes else ()
    planned, broken = _plan(options)
    done: dict[int, Progress] = {}
    rows: list[Row] = [Row(name, "", 0, 0, 0, {}, [problem]) for name, problem in broken]
    total = sum(count for _, count in planned)
    with tqdm(total=total, unit="image", disable=None, file=sys.stderr) as bar:
        for index, found in _run([span for span, _ in planned], options, bar.update):
            done[index] = found
    for index, (span, _) in enumerate(planned):
        progress = done[index]
        rows.append(
            Row(
                span.bag.name,
                span.out.name,
                progress.seen,
                progress.still,
                progress.frames,
                progress.partners,
                progress.problems,
            )
        )
    if not any(row.frames for row in rows):
        reasons = "; ".join(problem for row in rows for problem in row.problems)
        raise InputError(f"no recording gives a frame: {reasons or 'no image was recorded'}")
    for out in dict.fromkeys(span.out for span, _ in planned):
        parts = [(span, done[k]) for k, (span, _) in enumerate(planned) if span.out == out]
        _describe(out, parts, names, options)
    return Extracted(rows)


def _check(options: ExtractOptions) -> None:
    if options.validation is not None and not 0 < options.held_out < 1:
        raise InputError(f"--held-out is {options.held_out}, expected a share above 0 and below 1")
    if options.settings.tolerance_ms < 0 or options.settings.rate_hz < 0:
        raise InputError("--tolerance-ms and --rate are expected to be 0 or more")
    if options.validation is not None and real_path(options.validation) == real_path(options.out):
        raise InputError(f"--out and --validation are both {options.out}: choose two folders")
    for out in (options.out, options.validation):
        begun = out is None or not out.exists() or (out / JOURNALS).exists()
        if out is not None and not begun and (not out.is_dir() or any(out.iterdir())):
            raise InputError(f"{out} is not empty: choose another folder for the corpus")


def _plan(options: ExtractOptions) -> tuple[list[tuple[Span, int]], list[tuple[str, str]]]:
    """Spans with their number of images, and recordings that cannot be used with the reason."""
    counted: list[tuple[Path, str, int]] = []
    broken: list[tuple[str, str]] = []
    names = _unique([real_path(bag) for bag in options.bags])
    for bag, name in zip(options.bags, names, strict=True):
        try:
            with BagReader(bag) as reader:
                topics = choose_topics(reader, options.settings.topics)
                counts = {topic.name: topic.count or 0 for topic in reader.topics}
        except InputError as error:
            if len(options.bags) == 1:
                raise
            broken.append((bag.name, str(error)))
            continue
        counted.append((bag, name, counts[topics.colour]))
    if not counted:
        raise InputError("; ".join(problem for _, problem in broken))
    spans: list[tuple[Span, int]] = []
    share = options.held_out if options.validation is not None else 0.0
    whole = min(round(share * len(counted)), len(counted) - 1)
    for index, (bag, name, count) in enumerate(counted):
        if options.validation is None:
            spans.append((Span(bag, name, options.out), count))
        elif whole:
            # The last ones as they were given: nothing of a held-out room or day is trained on.
            out = options.validation if index >= len(counted) - whole else options.out
            spans.append((Span(bag, name, out), count))
        else:
            cut = round(count * (1 - options.held_out))
            last = min(cut + options.gap, count)
            spans.append((Span(bag, name, options.out, 0, cut), cut))
            spans.append((Span(bag, name, options.validation, last), count - last))
    return spans, broken


def _run(
    spans: Sequence[Span], options: ExtractOptions, on_seen: Callable[[int], object]
) -> Iterator[tuple[int, Progress]]:
    """Each span's result as it comes: processes for the recordings, threads within each."""
    workers = max(1, options.workers)
    processes = min(workers, len(spans))
    threads = max(1, workers // processes)
    if processes == 1:
        for index, span in enumerate(spans):
            yield index, _failing(span, options.settings, threads, on_seen)
        return
    context = multiprocessing.get_context("spawn")
    manager = SyncManager(ctx=context)
    manager.start(end_with_parent)
    with (
        manager,
        ProcessPoolExecutor(processes, context, end_with_parent) as pool,
    ):
        seen: Queue[int | None] = manager.Queue()
        jobs: dict[Future[Progress], int] = {
            pool.submit(_failing, span, options.settings, threads, seen.put): index
            for index, span in enumerate(spans)
        }
        counting = threading.Thread(target=_count, args=(seen, on_seen), daemon=True)
        counting.start()
        try:
            left = set(jobs)
            while left:
                ended, left = wait(left, timeout=1.0)
                for job in ended:
                    yield jobs[job], job.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            seen.put(None)
            counting.join(1.0)


def _failing(
    span: Span, settings: Settings, threads: int, on_seen: Callable[[int], object]
) -> Progress:
    """A recording that cannot be read becomes a problem, and the others go on."""
    keep_freed_memory()
    try:
        return extract_span(span, settings, threads, on_seen)
    except InputError as error:
        if "other settings" in str(error):
            raise
        return Progress(problems=[str(error)])


def _count(seen: Queue[int | None], on_seen: Callable[[int], object]) -> None:
    while (count := seen.get()) is not None:
        on_seen(count)


def _describe(
    out: Path,
    parts: Sequence[tuple[Span, Progress]],
    names: tuple[str, ...],
    options: ExtractOptions,
) -> None:
    found = [progress for _, progress in parts if progress.frames]
    if not found:
        return
    sizes = {(progress.width, progress.height) for progress in found}
    lists = {tuple(progress.classes) for progress in found if progress.classes}
    if names:
        lists = {names}
    if len(lists) > 1:
        raise TrainingError(
            f"the recordings of {out.name} have different lists of classes: extract them into "
            "corpora of their own, or give one list with --classes"
        )
    description: dict[str, Any] = {
        "name": out.name,
        "generator": "recording",
        "licence": options.licence,
        "command": options.command,
        "storage": (
            "depth in steps of 1 mm, or of up to twice its noise (depth_unit_m of each frame); "
            f"images as recorded, or where they were changed JPEG of quality {JPEG_QUALITY}"
        ),
        "recordings": [
            {
                "name": span.bag.name,
                "frames": progress.frames,
                "images": progress.seen,
                "topics": progress.topics,
            }
            for span, progress in parts
        ],
    }
    if len(sizes) == 1:
        description["width"], description["height"] = next(iter(sizes))
    if lists:
        description["classes"] = ["none", *next(iter(lists))]
    (out / DESCRIPTION_FILE).unlink(missing_ok=True)
    write_description(out, description)


def _unique(paths: Sequence[Path]) -> list[str]:
    """A short name for each recording, of letters, digits, _ and -."""
    names: list[str] = []
    for path in paths:
        name = base = re.sub(r"[^A-Za-z0-9_-]+", "_", path.name.partition(".")[0])[:60] or "bag"
        number = 2
        while name in names:
            name, number = f"{base}_{number}", number + 1
        names.append(name)
    return names
