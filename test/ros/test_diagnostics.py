"""What the diagnostics say of a node's health."""

from __future__ import annotations

from dataclasses import replace

import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus

from dense_perception.core.errors import InputError
from dense_perception.ros.diagnostics import FrameLog, Health, diagnostic_array, judge
from test.support.ros_probe import values_of

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
GOOD = Health(
    state="active",
    model="m",
    input_topic="/image",
    wanted=True,
    rate_in_hz=30.0,
    rate_out_hz=29.5,
    recent_answered=30,
    seconds_since_image=0.01,
    seconds_active=100.0,
)


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({}, OK, "29.5 of 30.0 Hz answered"),
        ({"wanted": False, "recent_answered": 0}, OK, "idle: nobody subscribes"),
        ({"state": "inactive"}, OK, "inactive"),
        ({"state": "unconfigured"}, OK, "unconfigured"),
        ({"state": "unconfigured", "last_error": "no file"}, ERROR, "not configured: no file"),
        ({"recent_failed": 2, "last_error": "bad"}, WARN, "2 frames failed: bad"),
        (
            {"recent_failed": 2, "recent_answered": 0, "last_error": "bad"},
            ERROR,
            "every frame fails: bad",
        ),
        ({"seconds_since_image": 7.2}, WARN, "no image on /image for 7 s"),
        ({"seconds_since_image": None, "seconds_active": 5.0}, WARN, "no image on /image for 5 s"),
        ({"seconds_since_image": None, "seconds_active": 1.0, "wanted": False}, OK, "idle"),
        ({"recent_failed": 2, "recent_answered": 0, "seconds_since_image": 9.0}, WARN, "no image"),
        ({"notes": ("one", "two")}, WARN, "one; two"),
    ],
)
def test_level_and_summary(changes: dict[str, object], level: bytes, words: str) -> None:
    got_level, summary = judge(replace(GOOD, **changes))
    assert (got_level, words in summary) == (level, True), summary


def test_message() -> None:
    health = replace(GOOD, latencies_ms={"infer": (12.345, 20.0)}, dropped=4, backend="cpu thing")
    message = diagnostic_array({"": health}, "/ns/depth_node", Time(sec=5))
    assert message.header.stamp.sec == 5
    assert message.status[0].name == "/ns/depth_node: perception"
    assert message.status[0].hardware_id == "cpu thing"
    values = values_of(message)
    assert float(values["latency infer median (ms)"]) == pytest.approx(12.345, abs=0.006)
    assert values["frames dropped"] == "4"


def test_a_camera_slower_than_the_reports_is_not_well_between_its_failures() -> None:
    log = FrameLog()
    blank = replace(GOOD, recent_answered=0)

    def level() -> bytes:
        return judge(log.health(blank))[0]

    log.came()
    for _ in range(2):
        log.failed(InputError("bad"))
        assert [level() for _ in range(3)] == [ERROR] * 3
    log.answered({}, 0.0)
    assert [level() for _ in range(2)] == [OK] * 2
    log.failed(InputError("bad"))
    assert level() == ERROR
    log.unwanted()
    assert level() == OK
