"""What is remembered of a backend's speed, and when that no longer holds."""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dense_perception.backends import speed
from dense_perception.backends.selection import Selection
from dense_perception.backends.speed import OtherWork, Speed, SpeedMemory, SpeedWatch
from dense_perception.core.machine import busy_core_s, usable_cores
from dense_perception.runtime.perceiver import Perceiver
from test.support.artefacts import write_red_artefact


class Clock:
    """Seconds that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "dense_perception" / "speeds.json"


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets what other processes take."""
    share = [0.0]
    monkeypatch.setattr(OtherWork, "share", lambda self: share[0])
    return lambda value: share.__setitem__(0, value)


@pytest.mark.parametrize(
    ("then", "now", "is_due"),
    [
        (0.1, 0.0, False),  # measured on a calm machine: settled
        (0.9, 0.1, True),
        (0.9, 0.9, False),  # as busy as it was: no better figure to be had
        (0.9, 0.5, True),
        (math.nan, 0.1, True),
        (math.nan, 0.9, False),
        (0.9, math.nan, True),
        (0.0, 0.9, False),
    ],
)
def test_when_a_speed_is_measured_again(then: float, now: float, is_due: bool) -> None:
    assert Speed(20.0, then).is_due(now) is is_due
    assert Speed(20.0, then, doubted=True).is_due(now)


def _spin(until: float) -> None:
    while time.monotonic() < until:
        pass


def test_other_processes_are_told_from_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    used = busy_core_s()
    work = OtherWork()
    _spin(time.monotonic() + 0.3)
    if busy_core_s() == used:
        pytest.skip("/proc/stat counts nothing here")
    assert busy_core_s() - used > 0.1
    mine = work.share()
    assert 0 <= mine <= 1
    work = OtherWork()
    children = [
        multiprocessing.get_context("fork").Process(target=_spin, args=(time.monotonic() + 0.5,))
        for _ in range(usable_cores())
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert work.share() > 0.5
    # Over no time, or where the system does not count, the load average has to do.
    load = 0.4 * (os.cpu_count() or 1)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 9.0, 9.0))
    assert OtherWork().share() == pytest.approx(0.4)
    monkeypatch.setattr("dense_perception.core.machine._STAT", Path("/nowhere"))
    assert math.isnan(busy_core_s())
    work = OtherWork()
    time.sleep(0.06)
    assert work.share() == pytest.approx(0.4)

    def unknown() -> tuple[float, float, float]:
        raise OSError("not here")

    monkeypatch.setattr(os, "getloadavg", unknown)
    assert math.isnan(OtherWork().share())


def test_the_faster_of_two_measurements_counts_unless_the_first_is_doubted(memory: Path) -> None:
    first = SpeedMemory()
    assert first.add("a", 30.0, 0.8) == 30.0
    first.save()
    assert SpeedMemory().get("a") == Speed(30.0, 0.8)
    second = SpeedMemory()
    assert second.add("a", 35.0, 0.1) == 30.0
    second.save()
    assert SpeedMemory().get("a") == Speed(30.0, 0.1), "settled by the calmer one"
    SpeedMemory().doubt(["a", "unknown"])
    assert SpeedMemory().get("a") == Speed(30.0, 0.1, doubted=True)
    third = SpeedMemory()
    assert third.add("a", 70.0, 0.1) == 70.0
    third.save()
    assert SpeedMemory().get("a") == Speed(70.0, 0.1)


def test_what_is_stored_is_json_and_older_files_are_read(memory: Path) -> None:
    first = SpeedMemory()
    first.add("a", 30.0, math.nan)
    first.save()

    def refuse(text: str) -> float:
        raise AssertionError(f"{text} is no JSON")

    stored = json.loads(memory.read_text(), parse_constant=refuse)
    assert stored == {"a": {"median_ms": 30.0, "others": None, "doubted": False}}
    memory.write_text(json.dumps({"b": 12.5, "c": -1, "d": {"median_ms": "x"}, "e": [1]}))
    old = SpeedMemory().get("b")
    assert old is not None
    assert old.median_ms == 12.5
    assert math.isnan(old.others)
    assert [SpeedMemory().get(name) for name in "cde"] == [None] * 3


def test_live_times_that_differ_for_a_while_are_said_once(
    memory: Path, others: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    first = SpeedMemory()
    first.add("a", 20.0, 0.0)
    first.add("b", 30.0, 0.0)
    first.save()
    clock = Clock()
    watch = SpeedWatch("openvino/int8", 20.0, ["a", "b"], clock=clock)
    assert watch.judge([50.0] * 30) == "", "not yet for a while"
    clock.now = 9.0
    assert watch.judge([25.0] * 30) == "", "as measured again"
    assert watch.judge([50.0] * 30) == ""
    clock.now = 20.0
    with caplog.at_level(logging.WARNING):
        said = watch.judge([1000.0] + [50.0] * 29)
    assert said == caplog.messages[0]
    assert "openvino/int8 takes 50.0 ms where 20.0 ms were measured" in said
    assert watch.is_done
    clock.now = 40.0
    assert watch.judge([50.0] * 30) == ""
    for key in "ab":
        remembered = SpeedMemory().get(key)
        assert remembered is not None
        assert remembered.doubted


@pytest.mark.parametrize(
    ("live_ms", "others_now", "complete", "is_said"),
    [
        (50.0, 0.0, True, True),
        (50.0, math.nan, True, True),
        (50.0, 0.8, True, False),  # other processes explain it
        (5.0, 0.8, True, True),  # nothing but a wrong memory explains this
        (5.0, 0.0, False, False),  # fewer outputs were computed
        (35.0, 0.0, True, False),
        (12.0, 0.0, True, False),
    ],
)
def test_what_contradicts_a_remembered_speed(
    live_ms: float,
    others_now: float,
    complete: bool,
    is_said: bool,
    memory: Path,
    others: Callable[[float], None],
) -> None:
    others(others_now)
    clock = Clock()
    watch = SpeedWatch("a", 20.0, [], clock=clock)
    watch.judge([live_ms] * 30, complete=complete)
    clock.now = 11.0
    assert bool(watch.judge([live_ms] * 30, complete=complete)) is is_said


def test_a_fast_model_may_double_its_time() -> None:
    """A millisecond more is no reason to warn."""
    clock = Clock()
    watch = SpeedWatch("a", 0.8, [], clock=clock)
    watch.judge([2.5] * 30)
    clock.now = 11.0
    assert watch.judge([2.5] * 30) == ""


def test_a_perceiver_warns_of_a_backend_that_became_slow(
    tmp_path: Path,
    memory: Path,
    others: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_red_artefact(tmp_path / "red.onnx")
    monkeypatch.setattr(speed, "_OTHER_S", 0.0)
    with Perceiver.load(tmp_path / "red.onnx", backend="onnxruntime") as perceiver:
        assert isinstance(perceiver.selection, Selection)
        perceiver._selection = replace(perceiver.selection, watch=SpeedWatch("slow one", 1.0, []))
        infer = perceiver.backend.infer

        def slow(*arguments: object) -> dict[str, np.ndarray]:
            time.sleep(0.004)
            return infer(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(perceiver.backend, "infer", slow)
        image = np.zeros((48, 64, 3), np.uint8)
        for _ in range(speed.WINDOW - 1):
            perceiver(image)
        assert perceiver.selection.warnings == ()
        perceiver(image)
        (warning,) = perceiver.selection.warnings
        assert warning.startswith("slow one takes ")
        for _ in range(speed.WINDOW):
            perceiver(image)
        assert perceiver.selection.warnings == (warning,)
