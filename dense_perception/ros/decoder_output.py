"""What compiled decoders print on stderr, now and then instead of for every damaged picture.

libpng and libjpeg write to the process's stderr and OpenCV does not let them be asked not to. A
camera that sends damaged pictures would fill the log with 120 lines a second, beside the node's own
line that names the error.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_STDERR = 2
_PERIOD_S = 5.0
_DECODERS = re.compile(
    rb"libpng |Corrupt JPEG|Premature end of JPEG|Inconsistent progression|Invalid SOS|JPEG |TIFF|"
    rb"Warning: unknown JFIF|Unsupported marker|Application transferred too|LZW|OpenCV|imread_|"
    rb"Error: (?:corrupt|unknown)|\[[a-z0-9_]+ @ 0x|\[ WARN:\d+@|\[ERROR:\d+@"
)
# libpng writes a message and its end of line apart, and a line of the log may come between them.
_LOG = re.compile(rb"(?=\[(?:DEBUG|INFO|WARN|ERROR|FATAL)\] )")
_NUMBERS = re.compile(rb"0x[0-9a-f]+|\d+")
_MOST_KINDS = 100
_MOST_BYTES = 1 << 20


class DecoderOutput:
    """Lets one line of each kind through in ``period_s`` seconds."""

    def __init__(self, period_s: float = _PERIOD_S) -> None:
        self._period_s = period_s
        self._lock = threading.Lock()
        self._kept = _memory()
        self._read = 0
        self._next_s: dict[bytes, float] = {}
        self._left_out = 0

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Lines of decoders that are printed inside are thinned out; all others pass.

        The process has one stderr, so what other threads print meanwhile comes a little later.
        """
        with self._lock:
            try:
                saved = os.dup(_STDERR)
            except OSError:  # there is no stderr
                yield
                return
            os.dup2(self._kept, _STDERR)
            try:
                yield
            finally:
                os.dup2(saved, _STDERR)
                os.close(saved)
                size = os.fstat(self._kept).st_size
                if size > self._read:
                    text = os.pread(self._kept, size - self._read, self._read)
                    self._read = size
                    self._pass_on(text)
                # Not each time: another thread's write may be under way, and is read next time.
                if size > _MOST_BYTES:
                    os.ftruncate(self._kept, 0)
                    self._read = 0

    def _pass_on(self, text: bytes) -> None:
        now = time.monotonic()
        lines = []
        for line in text.splitlines(keepends=True):
            if not _DECODERS.match(line):
                lines.append(line)
                continue
            line, *others = _LOG.split(line, maxsplit=1)
            lines += others
            kind = _NUMBERS.sub(b"#", line)
            if len(self._next_s) >= _MOST_KINDS:
                self._next_s = {known: due for known, due in self._next_s.items() if due > now}
            if now < self._next_s.get(kind, 0.0) or len(self._next_s) >= _MOST_KINDS:
                self._left_out += 1
                continue
            self._next_s[kind] = now + self._period_s
            count, self._left_out = self._left_out, 0
            more = b" (%d more lines of decoders were left out)" % count if count else b""
            lines.append(line.rstrip(b"\n") + more + b"\n")
        if lines:
            os.write(_STDERR, b"".join(lines))


def _memory() -> int:
    """A file without a name, closed in children, to which several threads can write at once."""
    if hasattr(os, "memfd_create"):
        memory = os.memfd_create("decoder output", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as stream:
            memory = os.dup(stream.fileno())
    # Otherwise two writes can meet at one place, and one overwrites the other.
    fcntl.fcntl(memory, fcntl.F_SETFL, os.O_APPEND | fcntl.fcntl(memory, fcntl.F_GETFL))
    return memory
