"""Feeds one hostile input after the other to a target in a process of its own, and watches it.

An input is made from ``(seed, number)`` alone, so a finding is repeated with ``--start NUMBER
--count 1``. The watcher lives in the parent: what crashes, hangs or eats all memory is noted, and a
new process goes on behind it.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from tqdm import tqdm

from dense_perception.core.errors import DensePerceptionError

MOST_SECONDS = 2.0
MOST_GROWTH_MB = 300.0
# What takes no processor time but waits, for a pipe or a lock; on a busy machine as well.
_LONGEST_WAIT_S = 60.0
_GIVEN_UP_S = 180.0
_WARM_UP = 30
_MOST_FINDINGS = 50
_ADDRESS_SPACE = 24 << 30


class Target(Protocol):
    """What a target's module offers as ``target(folder)``."""

    def make(self, rng: np.random.Generator) -> Callable[[], str]:
        """Make an input; what is returned feeds it and says in a word what came of it.

        A :class:`DensePerceptionError` counts as "refused", any other exception is a finding. What
        the making costs is not counted.
        """
        ...


@dataclass(frozen=True)
class Finding:
    """An input that broke a promise: ``number`` makes it again with the run's seed."""

    number: int
    kind: str
    detail: str


@dataclass
class FuzzReport:
    """``outcomes``: how many inputs were answered, refused...; memory over the start in MB."""

    target: str
    seed: int
    count: int
    seconds: float = 0.0
    growth_mb: float = 0.0
    slowest_s: float = 0.0
    outcomes: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True)
class Limits:
    """What one input may cost: seconds of processor time, megabytes over the start."""

    seconds: float = MOST_SECONDS
    growth_mb: float = MOST_GROWTH_MB


def fuzz(
    module: str,
    *,
    seed: int,
    count: int,
    start: int = 0,
    quiet: bool = True,
    verbose: bool = False,
    limits: Limits = Limits(),
) -> FuzzReport:
    """Feed the inputs ``start`` to ``start + count`` to ``test.fuzz.<module>``.

    ``verbose`` prints what comes of each input. After Ctrl-C the report is of what was fed.
    """
    context = multiprocessing.get_context("spawn")
    current = context.Value("q", start, lock=False)
    since = context.Value("d", 0.0, lock=False)
    report = FuzzReport(module, seed, count)
    outcomes: Counter[str] = Counter()
    begin, end = time.monotonic(), start + count
    with (
        tempfile.TemporaryDirectory(prefix="fuzz_") as folder,
        tqdm(total=count, unit="input", desc=module, disable=quiet) as bar,
    ):
        log = Path(folder) / "output.log"
        while start < end and len(report.findings) < _MOST_FINDINGS:
            parent, child = context.Pipe(duplex=False)
            scratch = tempfile.mkdtemp(dir=folder)
            since.value = -1.0  # not begun; 0: between two inputs
            process = context.Process(
                target=_work,
                args=(
                    module,
                    seed,
                    start,
                    end,
                    current,
                    since,
                    child,
                    scratch,
                    log,
                    verbose,
                    limits,
                ),
                daemon=True,
            )
            process.start()
            child.close()
            killed = interrupted = False
            part = FuzzReport("", 0, 0)
            while process.is_alive():
                try:
                    process.join(0.05)
                    part = _received(parent, part)  # or the pipe would fill, and the child wait
                    bar.update(current.value - (end - count) - bar.n)
                    killed = since.value > 0 and time.monotonic() - since.value > _GIVEN_UP_S
                except KeyboardInterrupt:
                    interrupted = True
                if killed or interrupted:
                    process.kill()
                    process.join()
            part = _received(parent, part)
            outcomes += Counter(part.outcomes)
            report.findings += part.findings
            report.growth_mb = max(report.growth_mb, part.growth_mb)
            report.slowest_s = max(report.slowest_s, part.slowest_s)
            if interrupted:
                report.count = current.value - (end - count)
                break
            if process.exitcode == 0:
                break
            if since.value < 0:
                raise RuntimeError(f"{module} did not start: {_tail(log)}")
            stopped = current.value
            kind = "hang" if killed else "crash"
            words = f"code {process.exitcode}: {_tail(log)}"
            report.findings.append(Finding(stopped, kind, words))
            start = stopped + 1
        printed = log.read_text(errors="replace").count("Traceback (most recent")
        if printed and not any(finding.kind == "crash" for finding in report.findings):
            report.findings.append(Finding(-1, "traceback", f"{printed} printed: {_tail(log)}"))
    report.outcomes = dict(outcomes)
    report.seconds = time.monotonic() - begin
    return report


def _received(connection: Connection, newest: FuzzReport) -> FuzzReport:
    """The newest report that has come."""
    with suppress(EOFError):
        while connection.poll():
            newest = cast(FuzzReport, connection.recv())
    return newest


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-200:].strip() if log.exists() else ""


def _work(
    module: str,
    seed: int,
    start: int,
    end: int,
    current: Synchronized[int],
    since: Synchronized[float],
    connection: Connection,
    folder: str,
    log: Path,
    verbose: bool,
    limits: Limits,
) -> None:
    """In the child: all inputs, one after the other."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    with open(log, "ab") as stream:
        os.dup2(stream.fileno(), 2)
        if not verbose:
            os.dup2(stream.fileno(), 1)
    target = cast(Target, importlib.import_module(f"test.fuzz.{module}").target(Path(folder)))
    report = FuzzReport(module, seed, end - start)
    outcomes: Counter[str] = Counter()
    for number in range(getattr(target, "warm_up", _WARM_UP)):  # what is loaded late is no growth
        _feed(target, seed + 1, number, FuzzReport(module, seed, 0))
    start_mb = _resident_mb()
    sent, told = time.monotonic(), 0
    for number in range(start, end):
        current.value = number
        since.value = time.monotonic()
        outcome, seconds = _feed(target, seed, number, report)
        if seconds > limits.seconds:  # once more: the machine may have other work
            seconds = min(seconds, _feed(target, seed, number, report)[1])
            if seconds > limits.seconds:
                report.findings.append(Finding(number, "hang", f"{seconds:.1f} s"))
        since.value = 0.0
        outcomes[outcome] += 1
        report.slowest_s = max(report.slowest_s, seconds)
        growth_mb = _peak_mb() - start_mb
        report.growth_mb = max(report.growth_mb, growth_mb)
        if growth_mb > limits.growth_mb:
            report.findings.append(Finding(number, "memory", f"{growth_mb:.0f} MB over the start"))
        if verbose:
            print(f"{number}: {outcome}, {seconds * 1e3:.1f} ms, {growth_mb:.0f} MB", flush=True)
        # At once where something was found: the next input may end the process.
        if time.monotonic() - sent > 0.2 or len(report.findings) > told:
            report.outcomes = dict(outcomes)
            connection.send(report)
            sent, told = time.monotonic(), len(report.findings)
        if len(report.findings) >= _MOST_FINDINGS:
            break
    report.outcomes = dict(outcomes)
    connection.send(report)
    connection.close()
    sys.stdout.flush()
    os._exit(0)  # the libraries' own ends are not what is tested


def _feed(target: Target, seed: int, number: int, report: FuzzReport) -> tuple[str, float]:
    """What came of an input, and its seconds: of processor time, unless it only waited."""
    fed = target.make(np.random.default_rng([seed, number]))
    _reset_peak()
    begin, begin_cpu = time.perf_counter(), time.process_time()
    try:
        outcome = fed()
    except DensePerceptionError:
        outcome = "refused"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        detail = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
        report.findings.append(Finding(number, "exception", detail[:400]))
        outcome = "exception"
    used, passed = time.process_time() - begin_cpu, time.perf_counter() - begin
    return outcome, passed if passed > _LONGEST_WAIT_S else used


def _status_mb(entry: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(entry):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def _resident_mb() -> float:
    _reset_peak()
    return _status_mb("VmRSS:")


def _peak_mb() -> float:
    return _status_mb("VmHWM:")


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def table_of(reports: list[FuzzReport]) -> str:
    """A line for each target, then the findings."""
    lines = [
        f"{'target':<10}{'seed':>6}{'inputs':>9}{'seconds':>9}{'slowest':>9}{'memory':>10}"
        f"{'findings':>10}  outcomes"
    ]
    for report in reports:
        outcomes = ", ".join(f"{c} {name}" for name, c in sorted(report.outcomes.items()))
        lines.append(
            f"{report.target:<10}{report.seed:>6}{report.count:>9}{report.seconds:>9.0f}"
            f"{report.slowest_s:>8.2f}s{report.growth_mb:>+8.0f}MB{len(report.findings):>10}"
            f"  {outcomes}"
        )
    for report in reports:
        lines += [f"{report.target} {f.number} {f.kind}: {f.detail}" for f in report.findings]
    return "\n".join(lines)
