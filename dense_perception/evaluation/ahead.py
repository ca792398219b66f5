"""An iterator that works ahead in a thread of its own, so that its steps overlap with others'."""

from __future__ import annotations

import threading
from collections.abc import Generator
from queue import SimpleQueue
from typing import TypeVar

import cv2

HELD = 2
_Item = TypeVar("_Item")


def repeatable_opencv() -> None:
    """Make OpenCV give the same bits each time, in the calling thread.

    It rounds otherwise where one thread's rows end, and Intel's primitives round by where a buffer
    happens to lie in memory. The latter is a setting of each thread.
    """
    cv2.setNumThreads(1)
    cv2.ipp.setUseIPP(False)


def ahead(items: Generator[_Item], held: int = HELD) -> Generator[_Item]:
    """``items`` in their order, made in a thread that is at most ``held`` of them ahead.

    What they raise is raised here, in its place. When this generator is closed, the thread ends
    after the item that it is at, and ``items`` are closed in it.
    """
    came: SimpleQueue[tuple[_Item] | BaseException | None] = SimpleQueue()
    free = threading.Semaphore(held)
    is_left = threading.Event()

    def make() -> None:
        repeatable_opencv()
        last: BaseException | None = None
        try:
            while free.acquire() and not is_left.is_set():
                came.put((next(items),))
        except StopIteration:
            pass
        except BaseException as error:  # of any kind: it belongs to who takes the items
            last = error
        finally:
            items.close()
            came.put(last)

    thread = threading.Thread(target=make, name="ahead", daemon=True)
    thread.start()
    try:
        while isinstance(item := came.get(), tuple):
            yield item[0]
            free.release()
        if item is not None:
            raise item
    finally:
        is_left.set()
        free.release()
        thread.join()
