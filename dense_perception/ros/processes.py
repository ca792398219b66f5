"""Child processes that log to a file and are always brought to an end."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dense_perception.core.errors import BackendError
from dense_perception.core.machine import numpy_advice

_PR_SET_PDEATHSIG = 1


def interrupt_on_signals() -> None:
    """Let SIGINT and SIGTERM raise KeyboardInterrupt, also where a shell started us ignoring it."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)


def end_at_once_on_interrupt() -> None:
    """Let SIGINT end this process as SIGTERM does, without a KeyboardInterrupt.

    A compiled module that is being imported reports that as an ImportError, as if it were missing.
    A shell that started us ignoring SIGINT is obeyed.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def load_opencv(node: str) -> None:
    """Import OpenCV before everything that needs it.

    :raises SystemExit: with one line that says what to do, if it was built for another NumPy.
    """
    explained = io.StringIO()  # NumPy's own twenty lines and a traceback
    try:
        with contextlib.redirect_stderr(explained):
            import cv2  # noqa: F401
    except ImportError as error:
        advice = numpy_advice(error)
        if advice is None:
            raise
        raise SystemExit(f"{node}: {advice}") from None


def _end_with_parent(parent: int) -> Callable[[], None] | None:
    """Has the kernel end a child whose parent was killed and can end nothing itself (Linux)."""
    try:
        prctl = ctypes.CDLL(None).prctl  # looked up before the fork
    except (AttributeError, OSError, TypeError):
        return None

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:  # it was killed before the kernel was asked
            os._exit(1)

    return ask


class ChildProcess:
    """``python -m module arguments`` with its output in a file; a context manager that stops it.

    The working directory and the import path are the parent's; ``environment`` is added to its
    variables. SIGINT ends the child, SIGKILL if it has not ended within ``patience_s``.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        patience_s: float = 10.0,
    ) -> None:
        self.name = module.rsplit(".", 1)[-1]
        self.log_path = log
        self._patience_s = patience_s
        variables = {**os.environ, **(environment or {}), "PYTHONUNBUFFERED": "1"}
        root = str(Path(__file__).resolve().parents[2])
        variables["PYTHONPATH"] = os.pathsep.join(
            part for part in (root, os.environ.get("PYTHONPATH", "")) if part
        )
        with open(log, "wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=variables,
                preexec_fn=_end_with_parent(os.getpid()),
                # Ctrl-C at the terminal must reach the parent alone, which then ends its children.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, ``None`` while it runs."""
        return self._process.poll()

    def log(self) -> str:
        """Everything it has printed so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def wait_for_text(self, text: str, timeout_s: float = 20.0, *, failure: str = "") -> None:
        """Wait until ``text`` is printed.

        :raises BackendError: with the end of its output, if it ends, takes too long, or prints
            ``failure``.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            ended, log = self.returncode, self.log()
            if text in log:
                return
            if ended is not None or (failure and failure in log):
                problem = "did not start" if ended is None else f"ended with code {ended}"
            elif time.monotonic() > deadline:
                problem = f"did not print {text!r} within {timeout_s:g} s"
            else:
                time.sleep(0.01)
                continue
            raise BackendError(f"{self.name} {problem}; its output ends with:\n{log[-2000:]}")

    def wait(self, timeout_s: float) -> int | None:
        """The exit code once it ends by itself, ``None`` if it does not in time."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def interrupt(self) -> None:
        """Ask it to end, without waiting for it."""
        if self.returncode is None:
            self._process.send_signal(signal.SIGINT)

    def stop(self, with_signal: signal.Signals = signal.SIGINT) -> int:
        """End it, politely at first; returns the exit code. Safe to repeat."""
        if self.returncode is None:
            self._process.send_signal(with_signal)
            if self.wait(self._patience_s) is None:
                self._process.kill()
        return self._process.wait()

    def __enter__(self) -> ChildProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def resident_mb(pid: int) -> float:
    """Resident memory of a process in megabytes of 10^6 bytes (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def proportional_mb(pid: int) -> float:
    """Memory of a process, pages shared by several processes divided among them (Linux PSS).

    Megabytes of 10^6 bytes. Unlike resident memory it can be summed over processes.
    """
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    return float("nan")


def cpu_s(pid: int) -> float:
    """Seconds of processor time that all threads of a process have used (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
