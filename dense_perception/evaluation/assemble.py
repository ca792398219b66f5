"""What a report says besides figures: data, contestants and what they cost, machine, versions."""

from __future__ import annotations

import csv
import io
import os
import platform
import re
from collections import Counter
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import numpy as np

from dense_perception import __version__
from dense_perception.core.machine import cpu_model, usable_cores
from dense_perception.core.printable import counted
from dense_perception.core.storage import atomic_write
from dense_perception.evaluation.document import (
    ContestantData,
    Latency,
    Machine,
    RecordingData,
    Skipped,
)
from dense_perception.evaluation.figures import in_order
from dense_perception.evaluation.parts import UNANSWERED
from dense_perception.evaluation.run import Outcome
from dense_perception.media.problems import Problems

FRAMES_FILE = "frames.csv"
_PACKAGES = ("numpy", "opencv-python-headless", "onnxruntime", "openvino", "torch", "ray")


def data_rows(outcome: Outcome) -> list[RecordingData]:
    """One for each source, those that could not be used at the end."""
    frames: Counter[str] = Counter()
    unmatched: Counter[str] = Counter()
    empty: Counter[str] = Counter()
    problems: dict[str, Problems] = {}
    for source, part in outcome.parts(outcome.plan.entries[0].name):
        name = source.source.name
        frames[name] += part.frames
        unmatched[name] += part.unmatched
        empty[name] += part.empty
        for line, count in part.problems:
            problems.setdefault(name, Problems()).add(line, count)
    scored: Counter[str] = Counter()
    for entry in outcome.plan.entries:
        own = Counter[str]()
        for source, part in outcome.parts(entry.name):
            own[source.source.name] += part.scored
        scored |= own if entry.kind != "baseline" else Counter()
    rows = []
    for source in outcome.plan.sources:
        name = source.source.name
        found = [("frames", line, count) for line, count in _counted(problems.get(name))]
        found += [("all of it", note, 1) for note in source.notes]
        found += [
            ("frames", f"{each.part.text} is not scored: {each.why}", each.part.frames)
            for each in outcome.lost
            if each.source == name
        ]
        if unmatched[name]:
            why = "no truth within the tolerance of the stamps (--tolerance-ms)"
            found.append(("frames", why, unmatched[name]))
        if empty[name]:
            why = "neither depth nor labels nor numbers of things"
            if source.kind == "bag":
                why = "what was recorded beside the image holds no truth where it looks"
            found.append(("frames", why, empty[name]))
        if frames[name] and not scored[name]:
            found.append(("all of it", "no contestant answers what it has the truth of", 1))
        rows.append(
            RecordingData(
                name=name,
                path=source.path,
                kind=source.kind,
                frames=frames[name] + unmatched[name] + empty[name],
                scored=scored[name],
                skipped=_skipped(found),
            )
        )
    for given, why in outcome.plan.broken:
        rows.append(
            RecordingData(
                name=given.name,
                path=given.text,
                kind="unreadable",
                frames=0,
                scored=0,
                skipped=_skipped([("all of it", why, 1)]),
            )
        )
    return rows


def contestant_rows(outcome: Outcome) -> list[ContestantData]:
    """One for each contestant, with what its answers cost on this machine."""
    rows = []
    for entry in outcome.plan.entries:
        failed, skipped = Problems(), Problems()
        ms: dict[int, list[float]] = {}
        memory: list[float] = []
        assumed = frames = 0
        for _, part in outcome.parts(entry.name):
            ms.setdefault(part.workers, []).extend(part.ms)
            memory += [] if part.memory_mb is None else [part.memory_mb]
            assumed += part.intrinsics_assumed
            frames += part.frames - sum(count for _, count in part.failed)
            for line, count in part.failed:
                failed.add(line, count)
            for line, count in part.skipped:
                skipped.add(line, count)
        is_model = entry.kind in ("artefact", "checkpoint")
        latency = None
        beside = min((workers for workers, times in ms.items() if times), default=0)
        if beside:
            low, high = np.percentile(ms[beside], [50, 95])
            latency = Latency(
                median=round(float(low), 3), p95=round(float(high), 3), workers=beside
            )
        rows.append(
            ContestantData(
                name=entry.name,
                kind=entry.kind,
                file=entry.file,
                sha256=entry.sha256,
                precision=entry.precision,
                backend=entry.backend,
                device=entry.device,
                latency_ms=latency,
                memory_mb=max(memory) if memory and is_model else None,
                intrinsics_assumed=assumed,
                frames=frames,
                failed=_skipped(
                    [("frames", line, count) for line, count in failed.counted]
                    + [("outputs", line, count) for line, count in skipped.counted]
                ),
            )
        )
    return rows


def problems_of(data: Iterable[RecordingData], contestants: Iterable[ContestantData]) -> list[str]:
    """What a user should look at, a line each."""
    lines = []
    for row in data:
        lines += [_line(row["name"], each) for each in row["skipped"]]
    for answerer in contestants:
        # A live node takes the newest image and skips others: that is no fault of the evaluation.
        skips = answerer["kind"] == "topic" and answerer["frames"] > 0
        lines += [
            _line(answerer["name"], each)
            for each in answerer["failed"]
            if not (skips and UNANSWERED in each["why"])
        ]
        if answerer["intrinsics_assumed"] and answerer["kind"] == "artefact":
            lines.append(
                f"{answerer['name']}: {counted(answerer['intrinsics_assumed'], 'frame')} had no "
                "calibration: metres are a guess (--hfov)"
            )
    return lines


def machine() -> Machine:
    """This machine."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (ValueError, OSError, AttributeError):
        memory = None
    cards = Path("/proc/driver/nvidia/gpus")
    found = []
    if cards.is_dir():
        for card in sorted(cards.iterdir()):
            text = (card / "information").read_text(errors="replace")
            match = re.search(r"Model:\s*(.+)", text)
            found.append(match[1].strip() if match else card.name)
    return Machine(
        system=platform.platform(terse=True),
        processor=cpu_model(),
        cores=usable_cores(),
        memory_gb=None if memory is None else round(memory, 1),
        accelerators=found,
    )


def versions() -> dict[str, str]:
    """Of this package, Python and what does the arithmetic, as far as installed."""
    found = {"dense_perception": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write_frames(outcome: Outcome, folder: Path) -> None:
    """``frames.csv``: a row for each frame and contestant, a column for each figure of frames.

    :raises OSError: if it cannot be written.
    """
    names: set[str] = set()
    tags: set[str] = set()
    for entry in outcome.plan.entries:
        for score in outcome.scores(entry.name):
            names |= score.values.keys()
            tags |= score.tags.keys()
    columns, looks = in_order(names), sorted(tags)
    with atomic_write(folder / FRAMES_FILE) as stream:
        text = io.TextIOWrapper(stream, "utf-8", newline="")
        rows = csv.writer(text)
        rows.writerow(["contestant", "recording", "key", "stamp_ns", *looks, *columns])
        for entry in outcome.plan.entries:
            for score in outcome.scores(entry.name):
                named = (score.contestant, score.recording, score.key, score.stamp_ns)
                told = (score.tags.get(name, "") for name in looks)
                rows.writerow([*named, *told, *(score.values.get(name, "") for name in columns)])
        text.flush()
        text.detach()


def _counted(problems: Problems | None) -> list[tuple[str, int]]:
    return [] if problems is None else problems.counted


def _skipped(found: Iterable[tuple[str, str, int]]) -> list[Skipped]:
    return [Skipped(what=what, why=why, count=count) for what, why, count in found]


def _line(name: str, skipped: Skipped) -> str:
    more = f" ({skipped['count']} {skipped['what']})" if skipped["count"] > 1 else ""
    prefix = "" if skipped["why"].startswith(f"{name} ") else f"{name}: "
    return f"{prefix}{skipped['why']}{more}"
