"""Newest wins: a one-place mailbox, and a worker that outlives its errors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Holds at most one item; a newer one replaces it. Thread-safe.

    ``received`` counts every item put, ``dropped`` those replaced before anyone took them.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: T | None = None
        self._closed = False
        self._received = 0
        self._dropped = 0

    @property
    def received(self) -> int:
        with self._changed:
            return self._received

    @property
    def dropped(self) -> int:
        with self._changed:
            return self._dropped

    @property
    def closed(self) -> bool:
        with self._changed:
            return self._closed

    def put(self, item: T) -> bool:
        """Leave an item; ``False`` if it replaced one that nobody had taken. Never waits."""
        with self._changed:
            if self._closed:
                return False
            self._received += 1
            replaced = self._item is not None
            self._dropped += replaced
            self._item = item
            self._changed.notify()
            return not replaced

    def take(self, timeout_s: float | None = None) -> T | None:
        """The waiting item, or ``None`` when the time is up or the mailbox is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is not None or self._closed, timeout_s)
            if self._closed:
                return None
            item, self._item = self._item, None
            return item

    def clear(self) -> None:
        """Throw away a waiting item, counting it as dropped."""
        with self._changed:
            self._dropped += self._item is not None
            self._item = None

    def close(self) -> None:
        """Wake every waiter; what was waiting is gone and nothing is accepted any more."""
        with self._changed:
            self._closed = True
            self._item = None
            self._changed.notify_all()


class Worker(Generic[T]):
    """A thread that handles the newest item of its mailbox, one at a time.

    An exception in ``handle`` goes to ``on_error`` and the worker takes the next item; so does an
    exception in ``on_error`` itself, silently.
    """

    def __init__(
        self,
        handle: Callable[[T], None],
        on_error: Callable[[Exception], None],
        *,
        name: str = "perception",
    ) -> None:
        self.mailbox: Mailbox[T] = Mailbox()
        self._handle = handle
        self._on_error = on_error
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)

    def start(self) -> Worker[T]:
        self._thread.start()
        return self

    def put(self, item: T) -> bool:
        """Hand over an item; see :meth:`Mailbox.put`."""
        return self.mailbox.put(item)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self, timeout_s: float | None = 10.0) -> bool:
        """Finish the item at hand and end; ``True`` once the thread is gone. Safe to repeat."""
        self.mailbox.close()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _loop(self) -> None:
        while not self.mailbox.closed:
            item = self.mailbox.take()
            if item is None:
                continue
            try:
                self._handle(item)
            except Exception as error:
                self._report(error)
            del item  # an idle worker must not keep the last frame's memory

    def _report(self, error: Exception) -> None:
        try:
            self._on_error(error)
        except Exception:
            return
