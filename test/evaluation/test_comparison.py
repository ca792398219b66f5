"""An evaluation against an earlier one: what is certain of a change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from dense_perception.core.errors import InputError
from dense_perception.core.json_text import json_text
from dense_perception.evaluation.comparison import (
    Evaluated,
    changes,
    read_report,
    regressions,
)
from dense_perception.evaluation.document import VERSION, Change, ContestantData, Report
from dense_perception.evaluation.figures import FrameScore
from dense_perception.evaluation.score_table import ScoreTable
from dense_perception.evaluation.statistics import Summary, summarise

ABSREL, D1, SCALE = "depth.metric.absrel", "depth.metric.d1", "depth.scale"
CLASSES = ("floor", "wall")


def contestant(name: str, kind: str = "artefact") -> ContestantData:
    return cast(ContestantData, {"name": name, "kind": kind})


def evaluated(
    change: Callable[[int], float], recordings: int = 8, name: str = "model", frames: int = 4
) -> tuple[Evaluated, Summary]:
    """Recordings of very different difficulty; ``change`` adds to AbsRel by recording."""
    rng = np.random.default_rng(3)
    scores = []
    for number in range(recordings):
        for frame in range(frames):
            value = 0.1 + 0.05 * number + 0.01 * rng.random() + change(number)
            values = {ABSREL: float(value), D1: float(1 - value), SCALE: 1.0}
            wrong = round(1000 * value)
            counts = {(0, 0): 2000 - wrong, (0, 1): wrong, (1, 1): 900}
            scores += [
                FrameScore(who, f"r{number}", f"{frame}", 0, values, {}, counts)
                for who in (name, "row prior")
            ]
    summary = summarise(ScoreTable(scores), CLASSES)
    rows = [contestant(name), contestant("row prior", "baseline")]
    return Evaluated(rows, summary.figures, summary.unit_sums), summary


def report(side: Evaluated) -> Report:
    data = {
        "version": VERSION, "contestants": side.contestants, "figures": side.figures,
        "units": side.sums, "method": {},
    }  # fmt: skip
    return cast(Report, json.loads(json_text(data)))


def of(found: list[Change], name: str, who: str = "model") -> Change:
    (change,) = [each for each in found if (each["figure"], each["contestant"]) == (name, who)]
    return change


def test_a_small_change_is_seen_because_frames_are_compared_with_themselves() -> None:
    before, _ = evaluated(lambda number: 0.0)
    after, summary = evaluated(lambda number: 0.01 + 0.001 * number)
    found = changes(report(before), after, summary.units)
    change = of(found, ABSREL)
    assert change["difference"] == pytest.approx(0.0135)
    assert change["verdict"] == "worse"
    assert change["low"] is not None
    assert change["high"] is not None
    # The figures themselves range over 0.35.
    assert 0.01 < change["low"] < 0.0135 < change["high"] < 0.017
    assert of(found, D1)["verdict"] == "worse"
    assert of(found, "labels.iou.floor")["verdict"] == "worse"
    assert SCALE not in {each["figure"] for each in found}
    lines = regressions(found)
    assert lines[0].startswith(f"model: {ABSREL} went from 0.2796 to 0.2931; certain: over 8")
    # The other way round it is better.
    back = of(changes(report(after), before, summary.units), ABSREL)
    assert (back["verdict"], back["difference"]) == ("better", pytest.approx(-0.0135))


def test_nothing_changed_and_luck_are_the_same() -> None:
    before, _ = evaluated(lambda number: 0.0)
    after, summary = evaluated(lambda number: 0.0)
    found = changes(report(before), after, summary.units)
    assert {each["verdict"] for each in found} == {"same"}
    assert regressions(found) == []
    after, summary = evaluated(lambda number: 0.02 * (-1) ** number)
    assert of(changes(report(before), after, summary.units), ABSREL)["verdict"] == "same"


def test_other_frames_are_compared_by_their_intervals() -> None:
    before, _ = evaluated(lambda number: 0.0)
    after, summary = evaluated(lambda number: 0.01, frames=5)
    change = of(changes(report(before), after, summary.units), ABSREL)
    assert change["verdict"] == "same"
    assert "other frames" in change["why"]
    after, summary = evaluated(lambda number: 1.0, frames=5)
    change = of(changes(report(before), after, summary.units), ABSREL)
    assert change["verdict"] == "worse"
    assert "on other frames" in change["why"]
    after, summary = evaluated(lambda number: 1.0, recordings=2)
    change = of(changes(report(before), after, summary.units), ABSREL)
    assert change["verdict"] == "same"


def test_a_new_model_under_a_new_name_is_compared_with_the_one_before() -> None:
    before, _ = evaluated(lambda number: 0.0, name="old")
    after, summary = evaluated(lambda number: -0.05, name="new")
    found = changes(report(before), after, summary.units)
    assert of(found, ABSREL, "new")["verdict"] == "better"
    assert {each["contestant"] for each in found} == {"new", "row prior"}
    two = Evaluated([*after.contestants, contestant("other")], after.figures, after.sums)
    with pytest.raises(InputError, match="has old, this one new, other: none is in both"):
        changes(report(before), two, summary.units)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense", "cannot read the earlier report"),
        ("[1, 2]", "is no report of an evaluation"),
        ('{"means": {"abs_rel": 0.1}}', "is no report of an evaluation, expected version"),
        ('{"version": 99}', "is a report of version 99"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "before.json"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_report(path)
    with pytest.raises(InputError, match="cannot read the earlier report"):
        read_report(tmp_path / "missing.json")


def test_a_damaged_report_is_named_and_a_whole_one_is_read(tmp_path: Path) -> None:
    before, summary = evaluated(lambda number: 0.0)
    path = tmp_path / "report.json"
    path.write_text(json_text(report(before)))
    assert of(changes(read_report(path), before, summary.units), ABSREL)["verdict"] == "same"
    damaged = report(before)
    damaged["units"]["model"]["sums"][ABSREL] = [1.0]
    with pytest.raises(InputError, match="the earlier report is damaged"):
        changes(damaged, before, summary.units)
    del damaged["units"]["model"]
    with pytest.raises(InputError, match="damaged"):
        changes(damaged, before, summary.units)
