"""Iterators that work ahead: the same items, no more of them held than said, and an end."""

from __future__ import annotations

import threading
from collections.abc import Generator

import cv2
import pytest

from dense_perception.evaluation.ahead import ahead


class Counted:
    """Numbers from 0 to an error; knows how many were made, and in which thread it was closed."""

    def __init__(self, count: int) -> None:
        self.count, self.made = count, 0
        self.closed_in = ""
        self.goes_on = threading.Semaphore(0)

    def items(self) -> Generator[int]:
        try:
            while self.made < self.count:
                self.made += 1
                self.goes_on.release()
                yield self.made - 1
            raise OSError("the disk is gone")
        finally:
            self.closed_in = threading.current_thread().name


def test_items_come_in_order_and_the_error_in_its_place() -> None:
    source = Counted(20)
    items = ahead(ahead(source.items()))
    assert [next(items) for _ in range(20)] == list(range(20))
    with pytest.raises(OSError, match="the disk is gone"):
        next(items)
    assert source.closed_in == "ahead"
    assert list(ahead(number for number in range(3))) == [0, 1, 2]


def test_no_more_are_made_ahead_than_said() -> None:
    source = Counted(1000)
    items = ahead(source.items(), held=3)
    for taken in range(1, 50):
        assert next(items) == taken - 1
        assert source.made <= taken + 3
    assert source.closed_in == ""
    items.close()
    assert source.closed_in == "ahead"
    assert source.made < 60
    # It does work ahead: three are made before the first is taken.
    waiting = Counted(1000)
    items = ahead(waiting.items(), held=3)
    assert next(items) == 0
    for _ in range(3):
        assert waiting.goes_on.acquire(timeout=30)
    items.close()


def test_opencv_rounds_the_same_in_each_thread() -> None:
    """Intel's primitives round by where a buffer lies; each thread has its own switch."""
    before = cv2.getNumThreads(), cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(True)
    (found,) = ahead((cv2.getNumThreads(), cv2.ipp.useIPP()) for _ in range(1))
    cv2.setNumThreads(before[0])
    cv2.ipp.setUseIPP(before[1])
    assert found == (1, False)
