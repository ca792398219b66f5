"""Bag in, report out: from what a user asks for to the files of a report."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from dense_perception.core.errors import InputError
from dense_perception.core.json_text import json_text
from dense_perception.core.printable import counted
from dense_perception.core.storage import atomic_write_text
from dense_perception.evaluation.assemble import (
    contestant_rows,
    data_rows,
    machine,
    problems_of,
    versions,
    write_frames,
)
from dense_perception.evaluation.collected import KnownClasses
from dense_perception.evaluation.comparison import (
    Comparison,
    changes,
    compare_with,
    read_report,
)
from dense_perception.evaluation.contestants import RunOptions, resolve
from dense_perception.evaluation.document import VERSION, Change, FigureValue, Report
from dense_perception.evaluation.gates import failures, read_gate
from dense_perception.evaluation.page.write import why_missing, write_page
from dense_perception.evaluation.record import record
from dense_perception.evaluation.run import (
    GivenProtocol,
    Outcome,
    Plan,
    StoredScores,
    make_plan,
    run,
)
from dense_perception.evaluation.shown import show_frames
from dense_perception.evaluation.sources import name_sources
from dense_perception.evaluation.statistics import summarise
from dense_perception.evaluation.truth import PARTS, TruthOptions
from dense_perception.evaluation.verdict import verdicts
from dense_perception.evaluation.workers import Workers

REPORT_FILE = "report.json"


_WRITTEN = ("report.html", REPORT_FILE, "frames.csv", "pictures", "recordings")


@dataclass(frozen=True)
class Request:
    """What to compare with what, and where the report goes; see ``dense-perception evaluate``.

    ``out`` None keeps nothing. ``fail_if`` are conditions as :mod:`.gates` reads them.
    """

    models: tuple[str, ...]
    data: tuple[str, ...]
    run: RunOptions = field(default_factory=RunOptions)
    truth: TruthOptions = field(default_factory=TruthOptions)
    max_depth_m: float | None = None
    crop: str | None = None
    out: Path | None = None
    compare: Path | None = None
    fail_if: tuple[str, ...] = ()
    record: bool = False
    workers: int = 1
    ray: str | None = None
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class Done:
    """The report, a sentence for each condition of ``fail_if`` that is true, what was not written
    since an optional package is missing, and why a condition could not be judged."""

    report: Report
    failed: tuple[str, ...]
    notes: tuple[str, ...] = ()
    refused: str = ""


def evaluate(request: Request, *, progress: bool = False) -> Done:
    """Run what is not scored yet, and write the report.

    :raises DensePerceptionError: if nothing can be compared, a contestant cannot be opened, a
        condition is none, or an earlier report does not fit; all of it before anything is scored,
        as far as it can be known.
    """
    if request.record and request.out is None:
        raise InputError("--record writes beside a report: name its folder with --out")
    if request.out is not None:
        _refuse_foreign(request.out)
    gates = tuple(read_gate(text) for text in request.fail_if)
    before = None if request.compare is None else read_report(request.compare)
    entries = [resolve(text, request.run) for text in request.models]
    topics = tuple(entry.text for entry in entries if entry.kind == "topic")
    numbered = [entry.first_label for entry in entries if "labels" in entry.gives]
    truth = replace(request.truth, recorded=topics, first_label=min(numbered, default=1))
    plan = make_plan(name_sources(request.data), entries, truth, given_protocol(request))
    comparison = None
    if before is not None:  # what does not fit is refused before anything is run
        kinds = {entry.name: entry.kind for entry in plan.entries}
        protocols = [source.protocol for source in plan.sources]
        comparison = compare_with(before, kinds, protocols)
    with ExitStack() as stack:
        folder = request.out
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="evaluate_")))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to {folder}: {error.strerror or error}") from error
        outcome = run(plan, folder, Workers(request.workers, request.ray), progress=progress)
        notes = _recorded(request, outcome.plan, folder, progress)
        report = _report(request, outcome, folder, comparison, progress)
        judged = {
            row["name"]: report["figures"][row["name"]]
            for row in report["contestants"]
            if row["kind"] != "baseline"
        }
        if request.out is not None:
            notes += [*_write(report, outcome, folder), *_foreign(outcome)]
        try:
            failed = failures(gates, judged)
        except InputError as error:  # what was scored for so long is still of use
            return Done(report, (), tuple(notes), str(error))
    return Done(report, tuple(failed), tuple(notes))


def _refuse_foreign(folder: Path) -> None:
    """
    :raises InputError: if something lies where the report is written that no evaluation made.
    """
    taken = [name for name in _WRITTEN if (folder / name).exists()]
    if not taken or (folder / PARTS).is_dir():
        return
    try:
        read_report(folder / "report.json")
    except InputError:
        raise InputError(
            f"{folder} has {', '.join(taken)} that no evaluation of this version made, and the "
            "report would replace: choose another folder with --out"
        ) from None


def given_protocol(request: Request) -> GivenProtocol:
    """What the user says of the true depth that counts; the rest is each data set's."""
    given: GivenProtocol = {}
    if request.crop is not None:
        given["crop"] = None if request.crop == "none" else request.crop
    if request.max_depth_m is not None:
        given["max_m"] = request.max_depth_m
    return given


def _foreign(outcome: Outcome) -> list[str]:
    """Scores of other settings, which nothing but the user can tell from those still wanted."""
    if not outcome.foreign:
        return []
    files = [file for folder in outcome.foreign for file in folder.rglob("*") if file.is_file()]
    size_mb = sum(file.stat().st_size for file in files) / 1e6
    places = outcome.foreign[0].parent
    return [
        f"{places} holds {counted(len(outcome.foreign), 'folder')} ({size_mb:.1f} MB) of scores of "
        f"other models, data or settings: delete {places} if you do not go back to them"
    ]


def _recorded(request: Request, plan: Plan, folder: Path, progress: bool) -> list[str]:
    """Result bags where they are wanted; what could not be done."""
    if not request.record:
        return []
    try:
        return record(plan, folder, progress=progress)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}") from error


def _report(
    request: Request,
    outcome: Outcome,
    folder: Path,
    comparison: Comparison | None,
    progress: bool,
) -> Report:
    data, contestants = data_rows(outcome), contestant_rows(outcome)
    problems = problems_of(data, contestants)
    scores = StoredScores(outcome)
    judged = [row["name"] for row in contestants if row["kind"] != "baseline"]
    if not set(judged) & set(scores.contestants):
        raise InputError(f"nothing could be compared: {'; '.join(problems) or 'no frame'}")
    names = [row["name"] for row in contestants if row["name"] in scores.contestants]
    known = {e.name: KnownClasses.of(e.things, e.classes) for e in outcome.plan.entries if e.things}
    found = summarise(scores, outcome.classes(), names, known=known, progress=progress)
    figures: dict[str, dict[str, FigureValue]] = {row["name"]: {} for row in contestants}
    figures |= found.figures
    changed: list[Change] = []
    if comparison is not None:
        changed = changes(comparison, found)
        problems += comparison.notes
    return Report(
        version=VERSION,
        command=list(request.command),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        versions=versions(),
        machine=machine(),
        data=data,
        contestants=contestants,
        method=found.method([source.protocol for source in outcome.plan.sources]),
        figures=figures,
        slices=found.slices,
        pairs=found.pairs,
        curves=found.curves,
        per_class=found.per_class,
        verdict=verdicts(contestants, figures, found.pairs, found.slices),
        changes=changed,
        compared_with=None if request.compare is None else str(request.compare),
        frames_shown=[] if request.out is None else show_frames(outcome, folder),
        problems=problems,
        units=found.unit_sums,
        things=found.things,
    )


def _write(report: Report, outcome: Outcome, folder: Path) -> list[str]:
    """Returns what could not be written for want of a package.

    :raises InputError: if the disk does not take it.
    """
    try:
        write_frames(outcome, folder)
        atomic_write_text(folder / REPORT_FILE, json_text(report, indent=1) + "\n")
        missing = why_missing()
        if not missing:
            write_page(report, folder)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}") from error
    return [missing] if missing else []
