"""The watcher sees what it is there for, and a slice of every kind of input does no harm.

The full numbers: ``make fuzz``; DENSE_PERCEPTION_ENDURANCE=full lets nodes live longer here.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dense_perception.core.errors import DensePerceptionError, InputError
from test.fuzz import hostile
from test.fuzz.worker import Limits, fuzz

FULL = os.environ.get("DENSE_PERCEPTION_ENDURANCE") == "full"
SEED, SLICE = 7, {"messages": 150, "images": 150, "bags": 30, "cards": 40}


def test_the_watcher_names_everything_that_goes_wrong() -> None:
    seed, count = 0, 14
    moods: list[str] = []
    while set(moods) != set(hostile.MOODS) or moods.count("crash") > 1:
        seed += 1
        moods = [hostile.mood_of(np.random.default_rng([seed, n])) for n in range(count)]
    report = fuzz("hostile", seed=seed, count=count, limits=Limits(0.3, 80.0))
    found = {(each.number, each.kind) for each in report.findings if each.kind != "traceback"}
    bad = {"exception", "crash", "hang", "memory"}
    assert found == {(n, mood) for n, mood in enumerate(moods) if mood in bad}


def test_a_printed_traceback_is_found() -> None:
    def moods(seed: int) -> set[str]:
        return {hostile.mood_of(np.random.default_rng([seed, n])) for n in range(3)}

    seed = next(seed for seed in range(1000) if moods(seed) == {"answered", "traceback"})
    (finding,) = fuzz("hostile", seed=seed, count=3).findings
    assert finding.kind == "traceback"


@pytest.mark.parametrize("name", SLICE)
def test_a_slice_of_hostile_inputs_is_answered_or_refused(name: str, tmp_path: Path) -> None:
    target = importlib.import_module(f"test.fuzz.{name}").target(tmp_path)
    outcomes: Counter[str] = Counter()
    for number in range(SLICE[name]):
        feed = target.make(np.random.default_rng([SEED, number]))
        try:
            outcomes[feed()] += 1
        except DensePerceptionError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > SLICE[name] / 10
    assert outcomes["refused"] < SLICE[name]


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["run-bag", "fetch"])
def test_a_killed_command_leaves_nothing_half_written(verb: str) -> None:
    from test.fuzz.kills import kill_all

    (report,) = kill_all([verb], kills=1)
    assert report.problems == []


@pytest.mark.slow
@pytest.mark.ros
def test_killed_nodes_do_not_fill_the_shared_memory() -> None:
    from test.fuzz.segments import kill_nodes

    if shutil.which("unshare") is None:
        pytest.skip("unshare (util-linux) is not installed")
    try:
        report = kill_nodes(kills=20) if FULL else kill_nodes(kills=10, images=100)
    except InputError as error:
        pytest.skip(str(error))
    # Ten nodes' segments would be 770 MB with the probe's. One that is younger than 1.5 seconds
    # stays, so there are more of them where nodes start sooner.
    assert max(report.used_mb) < 500
    assert report.problems == []


@pytest.mark.slow
@pytest.mark.ros
def test_a_minute_of_change_gives_every_answer_its_own_header() -> None:
    from test.fuzz.soak import soak

    if FULL:
        report = soak(minutes=0.3, warm_up_minutes=0.1)
    else:  # as many changes in less time
        report = soak(minutes=0.1, warm_up_minutes=0.05, turn_s=0.1, settle_s=0.0)
    assert report.answered > 0
    assert report.wrong_headers == report.errors_logged == report.refused_without_reason == 0
    assert report.parameters_taken > 0
