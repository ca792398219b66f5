"""Newest wins, nothing stops the worker, and the figures are right."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from dense_perception.runtime.mailbox import Mailbox, RateLimit, StageTimer, Worker

PATIENCE_S = 10.0


def test_newest_wins_and_drops_are_counted() -> None:
    box: Mailbox[int] = Mailbox()
    assert box.put(1)
    assert not box.put(2)
    assert not box.put(3)
    assert box.take(0) == {"": 3}
    assert box.take(0) == {}
    assert (box.received(), box.dropped()) == (3, 2)
    box.put(4)
    box.clear()
    assert box.take(0) == {}
    assert box.dropped() == 3


def test_each_sender_has_a_place_of_its_own() -> None:
    box: Mailbox[int] = Mailbox(("left", "right"))
    for item in range(5):
        box.put(item, "left")
    box.put(7, "right")
    assert box.take(0) == {"left": 4, "right": 7}
    box.put(8, "right")
    assert box.take(0) == {"right": 8}, "a silent sender holds nobody back"
    assert [box.dropped(sender) for sender in ("left", "right")] == [4, 0]
    assert [box.received(sender) for sender in ("left", "right")] == [5, 2]
    with pytest.raises(KeyError):
        box.put(1, "rear")


def test_closing_wakes_the_taker_and_refuses_more() -> None:
    box: Mailbox[int] = Mailbox()
    got: list[dict[str, int]] = []
    taker = threading.Thread(target=lambda: got.append(box.take()))
    taker.start()
    box.close()
    taker.join(PATIENCE_S)
    assert got == [{}]
    assert not box.put(1)
    assert box.take(0) == {}


def test_every_item_is_handled_or_counted_as_dropped() -> None:
    handled: list[int] = []
    last = threading.Event()

    def handle(items: dict[str, int]) -> None:
        handled.extend(items.values())
        if items[""] == 1999:
            last.set()

    worker = Worker(handle, lambda error: None).start()
    for item in range(2000):
        worker.put(item)
    assert last.wait(PATIENCE_S), "the newest item is always handled"
    assert worker.stop(PATIENCE_S)
    assert len(handled) + worker.mailbox.dropped() == 2000
    assert handled == sorted(handled)


def test_worker_survives_errors_even_in_the_reporter() -> None:
    errors: list[str] = []
    reached = threading.Event()
    reported = threading.Semaphore(0)

    def handle(items: dict[str, str]) -> None:
        if items[""] == "good":
            reached.set()
        else:
            raise ValueError(items[""])

    def report(error: Exception) -> None:
        errors.append(str(error))
        reported.release()
        raise RuntimeError("the reporter fails too")

    worker = Worker(handle, report).start()
    for item in ("bad", "worse"):
        worker.put(item)
        assert reported.acquire(timeout=PATIENCE_S)
    worker.put("good")
    assert reached.wait(PATIENCE_S)
    assert errors == ["bad", "worse"]
    assert worker.alive
    assert worker.stop(PATIENCE_S)
    assert not worker.alive
    assert worker.stop()
    assert not worker.put("late")


def test_worker_may_stop_itself() -> None:
    worker: Worker[int]
    worker = Worker(lambda item: worker.stop() and None, lambda error: None)
    worker.start().put(1)
    worker._thread.join(PATIENCE_S)
    assert not worker.alive


def test_stop_before_start() -> None:
    worker: Worker[int] = Worker(lambda item: None, lambda error: None)
    assert worker.stop()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("rate_hz", [3.0, 7.5, 10.0, 20.0])
def test_a_limit_holds_on_average_whatever_the_jitter(rate_hz: float) -> None:
    random = np.random.default_rng(0)
    times = np.arange(3000) / 30 + random.uniform(-0.01, 0.01, 3000)
    clock = iter(times)
    limit = RateLimit(lambda: next(clock))
    taken = times[[limit.admits(rate_hz) for _ in times]]
    assert len(taken) == pytest.approx(100 * rate_hz, rel=0.01)
    for second in range(99):
        here = np.count_nonzero((taken >= second) & (taken < second + 1))
        assert abs(here - rate_hz) <= 1.5


def test_a_limit_follows_a_change_at_once_and_a_rest_brings_no_burst() -> None:
    now = [0.0]
    limit = RateLimit(lambda: now[0])
    assert limit.admits(0.01)
    assert not limit.admits(0.01)
    now[0] = 0.5
    assert not limit.admits(10.0)
    now[0] = 0.61
    assert limit.admits(10.0)
    now[0] = 60.0
    assert [limit.admits(10.0) for _ in range(5)].count(True) <= 2
    assert all(limit.admits(0.0) for _ in range(5))


def test_medians_over_a_rolling_window() -> None:
    timer = StageTimer(window=100)
    values = np.random.default_rng(0).uniform(0, 50, 300)
    for value in values:
        timer.add_all({"infer": float(value), "restore": 1.0})
    summary = timer.summary()
    assert list(summary) == ["infer", "restore"]
    assert summary["infer"].count == 100
    assert summary["infer"].median_ms == pytest.approx(np.median(values[-100:]))
    assert summary["infer"].p95_ms == pytest.approx(np.percentile(values[-100:], 95))


def test_rates_forget_the_past() -> None:
    clock = Clock()
    timer = StageTimer(rate_window_s=5.0, clock=clock)
    assert timer.rate_hz("in") == 0
    for _ in range(100):
        clock.now += 0.1
        timer.tick("in")
    assert timer.rate_hz("in") == pytest.approx(10, abs=0.3)
    clock.now += 2.5
    assert timer.rate_hz("in") == pytest.approx(5, abs=0.3)
    clock.now += 10
    assert timer.rate_hz("in") == 0
    timer.reset()
    timer.tick("in")
    clock.now += 0.5
    assert timer.rate_hz("in") == pytest.approx(2)
