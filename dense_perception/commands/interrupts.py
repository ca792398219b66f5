"""Ctrl-C ends a command also while a library is deaf to it."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dense_perception.commands.output import complain

EXIT_CODE = 130
_PATIENCE_S = 2.0


@contextmanager
def obeyed(patience_s: float = _PATIENCE_S) -> Iterator[threading.Event]:
    """Inside, SIGINT raises KeyboardInterrupt, and ends the process where that does not come.

    Python raises it between two of its own instructions, so a model whose graph never ends, or an
    engine that is built for minutes, would hold it up for as long. After ``patience_s`` without it
    the process ends with code 130; what was half-written then is removed by the next run. A shell
    that started us ignoring SIGINT is obeyed, and outside of the main thread nothing happens.

    The event is set once a KeyboardInterrupt was raised: compiled modules that are being imported
    make other errors of it.
    """
    raised = threading.Event()
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield raised
        return
    answered = threading.Event()

    def interrupt(number: int, frame: object) -> None:
        raised.set()
        answered.set()
        raise KeyboardInterrupt

    # The interpreter writes to it within the signal itself, whatever the main thread does.
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.signal(signal.SIGINT, interrupt)
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(
        target=_watch, args=(reader, interrupt, answered, patience_s), daemon=True
    )
    watcher.start()
    try:
        yield raised
    finally:
        signal.set_wakeup_fd(before)
        if signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        writer.close()
        watcher.join()
        reader.close()


def _watch(
    reader: socket.socket, handler: object, answered: threading.Event, patience_s: float
) -> None:
    while data := reader.recv(64):
        if signal.SIGINT not in data or signal.getsignal(signal.SIGINT) is not handler:
            continue  # of a signal that somebody else handles
        if not answered.wait(patience_s):
            complain("interrupted")
            sys.stderr.flush()
            os._exit(EXIT_CODE)
        answered.clear()
