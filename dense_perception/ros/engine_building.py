"""Engines are built in processes of their own while the node answers without them."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dense_perception.backends.engine_cache import (
    PROGRESS,
    Engine,
    EngineKey,
    compile_command,
    find_engine,
    remember_failure,
)
from dense_perception.backends.selection import MissingEngine
from dense_perception.ros.diagnostics import NodeLog
from dense_perception.ros.processes import ChildProcess

COMPILER = "dense_perception.cli"
"""The module whose ``compile`` builds."""
_POLL_S = 0.2
_LOWEST_PRIORITY = 19


@dataclass(frozen=True)
class _Build:
    model: str
    engine: MissingEngine


class EngineBuilder:
    """Builds what is missing, one engine at a time, each in a process of the lowest priority.

    A process that the kernel kills for its memory, or that fails, harms nobody: the failure is
    remembered for that graph, runtime and GPU, reported, and not tried again. ``built`` is called
    in this builder's thread when an engine is there. The methods may be called from any thread.
    """

    def __init__(self, log: NodeLog, built: Callable[[], None]) -> None:
        self._log = log
        self._built = built
        self._changed = threading.Condition()
        self._waiting: list[_Build] = []
        # Beside those on the disk: a cache that cannot be written would build without end.
        self._failed: set[EngineKey] = set()
        self._running: _Build | None = None
        self._child: ChildProcess | None = None
        self._begun_s = 0.0
        self._is_cancelled = False
        self._thread: threading.Thread | None = None

    def want(self, model: str, missing: Sequence[MissingEngine]) -> None:
        """Build these engines and no others; one that is being built already goes on."""
        wanted = [_Build(model, engine) for engine in missing if engine.key not in self._failed]
        with self._changed:
            if self._running is not None and self._running not in wanted:
                self._is_cancelled = True
            # One that is being ended is begun again.
            going = None if self._is_cancelled else self._running
            self._waiting = [build for build in wanted if build != going]
            if self._waiting and self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="engine builder", daemon=True
                )
                self._thread.start()

    def close(self) -> None:
        """End the build that is under way; it is not remembered as a failure."""
        self.want("", ())
        thread = self._thread
        if thread is not None:
            thread.join(2.0)

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
            if problem and not cancelled:
                self._failed.add(build.engine.key)
                remember_failure(build.engine.key, problem)
                engine = build.engine
                command = compile_command(
                    build.model, engine.backend, engine.precision, engine.batch
                )
                self._log.error(
                    f"the engine of {build.engine} was not built: {problem}; the node goes on "
                    f"without it and does not try again for this graph, runtime and GPU: {command} "
                    "does"
                )
            elif not cancelled:
                self._log.info(f"the engine of {build.engine} was built in {seconds:.0f} s")
            if not cancelled:
                self._built()

    def _compile(self, build: _Build) -> str:
        """Build it; returns what went wrong in words."""
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
                f"building the engine of {engine} in process {child.pid}, at the lowest priority; "
                "the node answers without it until then"
            )
            with self._changed:
                self._child = child
            try:
                while child.wait(_POLL_S) is None and not self._is_cancelled:
                    pass
            finally:
                with self._changed:
                    self._child = None
            if self._is_cancelled or isinstance(find_engine(engine.key), Engine):
                return ""
            return _why(child.returncode or 0, child.log())


def _why(code: int, log: str) -> str:
    """The reason that a build's process gave, or that its end tells."""
    if code < 0:
        memory = ", for want of memory perhaps" if code == -9 else ""
        return f"its process was ended by signal {-code}{memory}"
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(PROGRESS)]
    return f"its process ended with code {code}: {said[-1][:300] if said else 'it said nothing'}"
