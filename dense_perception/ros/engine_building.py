"""Engines are built in processes of their own while the node answers without them."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dense_perception.backends.engine_cache import (
    PROGRESS,
    Engine,
    EngineKey,
    compile_command,
    failed_build,
    find_engine,
    remember_failure,
    why_not_storable,
)
from dense_perception.backends.selection import MissingEngine
from dense_perception.ros.diagnostics import NodeLog
from dense_perception.ros.processes import ChildProcess

COMPILER = "dense_perception.cli"
"""The module whose ``compile`` builds."""
_POLL_S = 0.2
_ENDED_WELL = (0, 1)  # 1: stored, and refused by the check, which the next load says
# As systemd ends all processes of a service: that says nothing about the engine.
_ENDED_BY_SOMEBODY = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_LOWEST_PRIORITY = 19


@dataclass(frozen=True, eq=False)
class _Build:
    model: str
    engine: MissingEngine

    @property
    def key(self) -> EngineKey:
        """What it makes, by whatever names the model and the device go."""
        return self.engine.key


class EngineBuilder:
    """Builds what is missing, one engine at a time, each in a process of the lowest priority.

    A process that the kernel kills for its memory, or that fails, harms nobody. A failed build is
    reported, remembered for that graph, runtime and GPU, and not tried again. What says nothing
    about these, as a library that is missing, is tried again by the next start. What is still
    missing after its build is built once more, as somebody may have removed it; what does not load
    after that is reported, too.

    ``built`` is called when an engine is there, or is known not to come: in this builder's thread,
    or in that of :meth:`want`. The methods may be called from any thread.
    """

    def __init__(self, log: NodeLog, built: Callable[[], None]) -> None:
        self._log = log
        self._built = built
        self._changed = threading.Condition()
        self._waiting: list[_Build] = []
        # What went wrong with each, and when those were built that are missing all the same: what
        # is not stored, or does not load, would be built without end.
        self._tried: dict[EngineKey, str] = {}
        self._built_s: defaultdict[EngineKey, list[float]] = defaultdict(list)
        self._problems: tuple[str, ...] = ()
        self._running: _Build | None = None
        self._child: ChildProcess | None = None
        self._begun_s = 0.0
        self._is_cancelled = False
        self._thread: threading.Thread | None = None

    def want(
        self, model: str, missing: Sequence[MissingEngine], looked_s: float | None = None
    ) -> None:
        """Build these engines and no others; one that is being built already goes on.

        :param looked_s: when, on the monotonic clock, somebody began to look for them; now, if not
            given. Those that were built since then are there, and are not built again.
        """
        looked_s = time.monotonic() if looked_s is None else looked_s
        keys = {engine.key for engine in missing}
        wanted: list[_Build] = []
        problems: list[str] = []
        unseen = False
        with self._changed:
            # What loads, or is not asked for now, may be built again: its file may go at any time.
            for key in self._built_s.keys() - keys:
                del self._built_s[key]
            for engine in missing:
                if max(self._built_s[engine.key], default=-math.inf) > looked_s:
                    unseen = True
                elif problem := self._tried_before(engine):
                    problems.append(problem)
                else:
                    wanted.append(_Build(model, engine))
            self._problems = tuple(problems)
            running = self._running.key if self._running is not None else None
            if running is not None and running not in {build.key for build in wanted}:
                self._is_cancelled = True
            # One that is being ended is begun again.
            going = None if self._is_cancelled else running
            self._waiting = [build for build in wanted if build.key != going]
            if self._waiting and self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="engine builder", daemon=True
                )
                self._thread.start()
        if unseen:
            self._built()

    def close(self) -> None:
        """End the build that is under way; it is not remembered as a failure."""
        self.want("", ())
        thread = self._thread
        if thread is not None:
            thread.join(2.0)

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wanted and not tried again, in sentences."""
        with self._changed:
            return self._problems

    @property
    def status(self) -> str:
        """What is being built, for how long and how far it is; empty if nothing is."""
        with self._changed:
            build, child, begun_s = self._running, self._child, self._begun_s
        if build is None:
            return ""
        text = f"{build.engine} for {time.monotonic() - begun_s:.0f} s"
        steps = []
        if child is not None:
            with contextlib.suppress(OSError):
                steps = [line for line in child.log().splitlines() if line.startswith(PROGRESS)]
        return f"{text} ({steps[-1].removeprefix(PROGRESS)})" if steps else text

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._running = self._thread = None
                    return
                self._running, self._is_cancelled = self._waiting.pop(0), False
                self._begun_s = time.monotonic()
                build = self._running
            try:
                problem = self._compile(build)
            except Exception as error:  # no memory or no place for a process: as a failed build
                problem = f"{type(error).__name__}: {error}"
            with self._changed:
                cancelled, seconds = self._is_cancelled, time.monotonic() - self._begun_s
            if cancelled:
                continue
            said = self._failed(build, problem) if problem else ""
            if not said:
                self._log.info(f"the engine of {build.engine} was built in {seconds:.0f} s")
            with self._changed:
                # At once, so that nobody takes it for one that goes on.
                self._running = None
                if said:
                    self._tried[build.key] = said
                else:
                    self._built_s[build.key].append(time.monotonic())
            self._built()

    def _failed(self, build: _Build, problem: str) -> str:
        """Say it, and what comes next."""
        engine = build.engine
        command = compile_command(
            build.model, engine.backend, engine.precision, engine.batch, engine.device
        )
        # The process knows whether the engine cannot be built or could not be built now.
        if failed_build(engine.key):
            next_time = f"does not try again for this graph, runtime and GPU: {command} does"
        else:
            next_time = f"tries again when it is started the next time; {command} does now"
        said = f"the engine of {engine} was not built: {problem}; the node goes on without it and "
        self._log.error(said + next_time)
        return said + next_time

    def _tried_before(self, engine: MissingEngine) -> str:
        """Why it is not built again, empty if it may be; the caller holds the lock."""
        problem = self._tried.get(engine.key, "")
        if not problem and len(self._built_s[engine.key]) > 1:
            problem = self._tried[engine.key] = (
                f"the engine of {engine} was built, but is not used: {engine.reason}; the node "
                "goes on without it until it is started again"
            )
            self._log.error(problem)
        return problem

    def _compile(self, build: _Build) -> str:
        """Build it; returns what went wrong in words."""
        if problem := why_not_storable():
            return problem
        engine = build.engine
        arguments = ["compile", build.model, "--backend", engine.backend]
        arguments += ["--precision", engine.precision, "--device", engine.device, "--progress"]
        if engine.batch > 1:
            arguments += ["--max-batch", str(engine.batch)]
        with (
            tempfile.TemporaryDirectory(prefix="dense_perception_build_") as folder,
            ChildProcess(COMPILER, arguments, log=Path(folder, "log"), patience_s=1.0) as child,
        ):
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, child.pid, _LOWEST_PRIORITY)
            self._log.info(
                f"building the engine of {engine} in process {child.pid}, at the lowest priority, "
                f"as {engine.reason or 'there is none'}; the node answers without it until then"
            )
            with self._changed:
                self._child = child
            try:
                while child.wait(_POLL_S) is None and not self._is_cancelled:
                    pass
            finally:
                with self._changed:
                    self._child = None
            code = child.returncode or 0
            found = find_engine(engine.key)
            if self._is_cancelled or (code in _ENDED_WELL and isinstance(found, Engine)):
                return ""
            problem = _why(code, child.log())
            if code == 0 and isinstance(found, str):  # it said that all is well
                problem = f"its process built one, which is gone: {found}"
            if code < 0 and -code not in _ENDED_BY_SOMEBODY:  # it could not do that itself
                remember_failure(engine.key, problem)
            return problem


def _why(code: int, log: str) -> str:
    """The reason that a build's process gave, or that its end tells."""
    if code < 0:
        memory = ", for want of memory perhaps" if code == -9 else ""
        return f"its process was ended by signal {-code}{memory}"
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(PROGRESS)]
    return f"its process ended with code {code}: {said[-1][:300] if said else 'it said nothing'}"
