"""An evaluation against an earlier one: what is certain of a change."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from dense_perception.core.errors import InputError
from dense_perception.core.json_text import json_text
from dense_perception.evaluation import comparison
from dense_perception.evaluation.comparison import compare_with, read_report
from dense_perception.evaluation.document import VERSION, Change, Report
from dense_perception.evaluation.figures import FrameScore
from dense_perception.evaluation.intervals import drawn_weights, interval
from dense_perception.evaluation.score_table import ScoreTable
from dense_perception.evaluation.statistics import Summary, summarise
from dense_perception.metrics.average_precision import Matches
from dense_perception.metrics.protocols import Protocol

ABSREL, D1, SCALE = "depth.metric.absrel", "depth.metric.d1", "depth.scale"
CLASSES = ("floor", "wall")
USUAL = Protocol(max_m=20)


def evaluated(
    change: Callable[[int], float], recordings: int = 8, name: str = "model", frames: int = 4
) -> Summary:
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
    return summarise(ScoreTable(scores), CLASSES)


def kinds(side: Summary) -> dict[str, str]:
    return {name: "baseline" if name == "row prior" else "artefact" for name in side.figures}


def report(side: Summary) -> Report:
    rows = [{"name": name, "kind": kind} for name, kind in kinds(side).items()]
    data = {
        "version": VERSION, "contestants": rows, "figures": side.figures,
        "units": side.unit_sums, "method": side.method([USUAL]),
    }  # fmt: skip
    return cast(Report, json.loads(json_text(data)))


def changes(before: Report, after: Summary) -> list[Change]:
    return comparison.changes(compare_with(before, kinds(after), [USUAL]), after)


def of(found: list[Change], name: str, who: str = "model") -> Change:
    (change,) = [each for each in found if (each["figure"], each["contestant"]) == (name, who)]
    return change


def test_a_small_change_is_seen_because_frames_are_compared_with_themselves() -> None:
    before = evaluated(lambda number: 0.0)
    after = evaluated(lambda number: 0.01 + 0.001 * number)
    found = changes(report(before), after)
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
    assert (change["before"], change["after"]) == pytest.approx((0.2796, 0.2931), abs=5e-5)
    assert change["why"].startswith("certain: the interval over 8")
    # The other way round it is better.
    back = of(changes(report(after), before), ABSREL)
    assert (back["verdict"], back["difference"]) == ("better", pytest.approx(-0.0135))


def test_nothing_changed_and_luck_are_the_same() -> None:
    before = evaluated(lambda number: 0.0)
    after = evaluated(lambda number: 0.0)
    found = changes(report(before), after)
    assert {each["verdict"] for each in found} == {"same"}
    after = evaluated(lambda number: 0.02 * (-1) ** number)
    assert of(changes(report(before), after), ABSREL)["verdict"] == "same"


def test_other_frames_are_compared_by_their_intervals() -> None:
    before = evaluated(lambda number: 0.0)
    after = evaluated(lambda number: 0.01, frames=5)
    change = of(changes(report(before), after), ABSREL)
    assert change["verdict"] == "same"
    assert "other frames" in change["why"]
    after = evaluated(lambda number: 1.0, frames=5)
    change = of(changes(report(before), after), ABSREL)
    assert change["verdict"] == "worse"
    assert "on other frames" in change["why"]
    after = evaluated(lambda number: 1.0, recordings=2)
    change = of(changes(report(before), after), ABSREL)
    assert change["verdict"] == "same"


def test_a_new_model_under_a_new_name_is_compared_with_the_one_before() -> None:
    before = evaluated(lambda number: 0.0, name="old")
    after = evaluated(lambda number: -0.05, name="new")
    found = changes(report(before), after)
    assert of(found, ABSREL, "new")["verdict"] == "better"
    assert {each["contestant"] for each in found} == {"new", "row prior"}
    two = {**kinds(after), "other": "artefact"}
    with pytest.raises(InputError, match="has old, this one new, other: none is in both"):
        compare_with(report(before), two, [USUAL])


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
    before = evaluated(lambda number: 0.0)
    path = tmp_path / "report.json"
    path.write_text(json_text(report(before)))
    assert of(changes(read_report(path), before), ABSREL)["verdict"] == "same"
    damaged = report(before)
    damaged["units"]["model"]["sums"][ABSREL] = [1.0]
    with pytest.raises(InputError, match="the earlier report is damaged"):
        changes(damaged, before)
    del damaged["units"]["model"]
    with pytest.raises(InputError, match="damaged"):
        changes(damaged, before)


def test_figures_that_mean_something_else_are_named_or_refused() -> None:
    before = evaluated(lambda number: 0.0)
    earlier = report(before)
    near = compare_with(earlier, kinds(before), [Protocol(max_m=10)])
    # Labels do not care which true depth counts.
    assert {each["figure"].partition(".")[0] for each in comparison.changes(near, before)} == {
        "labels"
    }
    (note,) = near.notes
    assert "depth.metric.absrel" in note
    assert "counted up to 20 m, all pixels, here up to 10 m, all pixels" in note
    for figures in earlier["figures"].values():
        for name in [name for name in figures if name.startswith("labels")]:
            del figures[name]
    with pytest.raises(InputError, match="give the same data, --max-depth and --crop"):
        compare_with(earlier, kinds(before), [Protocol("garg", max_m=20)])
    earlier = report(before)
    earlier["method"]["revisions"] = {ABSREL: 0}
    (note,) = compare_with(earlier, kinds(before), [USUAL]).notes
    assert note.startswith(f"--compare leaves out 1 figure ({ABSREL}): they were defined other")
    # A report of before these were kept says at least its limit and its crop.
    for name in ("truth", "sampled", "revisions"):
        del earlier["method"][name]  # type: ignore[misc]
    assert compare_with(earlier, kinds(before), [USUAL]).notes == []
    assert compare_with(earlier, kinds(before), [Protocol(max_m=10)]).notes


def test_segments_are_paired_on_the_same_frames_whatever_was_found() -> None:
    """The weights of a class hold the false alarms of each model, and so differ between them."""

    def found(false: float, frames: str) -> Summary:
        scores = []
        for number in range(8):
            true = 2 + number % 3
            weight = true + false
            sums = {
                "panoptic.things.pq.chair": (0.8 * true, weight),
                "panoptic.things.rq.chair": (float(true), weight),
            }
            key = f"{frames}{number}"
            scores.append(FrameScore("model", f"r{number}", key, 0, {ABSREL: 0.1}, sums))
        return summarise(ScoreTable(scores), CLASSES)

    before = report(found(2.0, "a"))
    for frames, paired in (("a", True), ("b", False)):
        made = changes(before, found(0.5, frames))
        for name in ("pq", "things.pq", "things.rq", "things.pq.chair"):
            change = of(made, f"panoptic.{name}")
            assert ("other frames" not in change["why"]) is paired, change["why"]
            assert (change["verdict"] == "better") or not paired


def test_confidence_is_paired_on_the_same_pixels_alone() -> None:
    def confident(pixels: float, frames: str) -> Summary:
        rng = np.random.default_rng(1)
        scores = []
        for number in range(8):
            said = 0.7 + 0.2 * rng.random()
            sums = {
                "confidence.said@bin=12": (said * pixels, pixels),
                "confidence.right@bin=12": (0.6 * pixels, pixels),
            }
            key = f"{frames}{number}"
            scores.append(FrameScore("model", f"r{number}", key, 0, {ABSREL: 0.1}, sums))
        return summarise(ScoreTable(scores), CLASSES)

    before = report(confident(100, "a"))
    for after, paired in ((confident(100, "a"), True), (confident(90, "a"), False),
                          (confident(100, "b"), False)):  # fmt: skip
        change = of(changes(before, after), "confidence.ece")
        assert ("other frames" not in change["why"]) is paired


def found_things(model: int, recordings: int = 6, frames: int = 2) -> list[FrameScore]:
    """Of recordings of very different difficulty; the second model finds a little more."""
    scores = []
    for number in range(recordings):
        for frame in range(frames):
            rng = np.random.default_rng([number, frame])
            of_class = {}
            for name in ("chair", "mug"):
                true = int(rng.integers(1, 4))
                quality = rng.random(true + 1) - 0.1 * number + 0.08 * model
                places = np.sort(rng.random(true + 1))[::-1]
                # Right up to some overlap, the last one nowhere.
                bits = [(1 << int(np.clip(10 * each, 0, 10))) - 1 for each in quality[:-1]]
                hits = np.array([*bits, 0])
                scored = places.astype(np.float32).astype(np.float64)
                of_class[name] = Matches(true, scored, hits, np.zeros(true + 1, np.int64))
            scores.append(FrameScore("m", f"r{number}", f"{frame}", things={"boxes": of_class}))
    return scores


def naive_precision(scores: list[FrameScore], drawn: list[int], classes: list[str]) -> float:
    """COCO's, of recordings that were drawn, each as often as it was."""
    values = []
    for name, bit in itertools.product(classes, range(10)):
        found: list[tuple[float, bool]] = []
        true = 0
        for recording in drawn:
            for score in scores:
                if score.recording == f"r{recording}" and score.things is not None:
                    matches = score.things["boxes"][name]
                    hits = [bool(hit >> bit & 1) for hit in matches.hits_n.tolist()]
                    found += zip(matches.scores_n.tolist(), hits, strict=True)
                    true += matches.true
        found.sort(key=lambda each: -each[0])
        right, points = 0, []
        for place, (_, hit) in enumerate(found, start=1):
            right += hit
            points.append((right / true, right / place))
        best = [
            max((p for reached, p in points if reached >= recall), default=0.0)
            for recall in np.linspace(0, 1, 101)
        ]
        values.append(sum(best) / 101)
    return sum(values) / len(values)


def test_average_precision_is_compared_in_the_same_resamples() -> None:
    draws = 40
    scores = found_things(0), found_things(1)
    before, after = (summarise(ScoreTable(each), resamples=draws) for each in scores)
    weights = drawn_weights(6, draws)
    for name, classes in (("boxes.ap", ["chair", "mug"]), ("boxes.ap.mug", ["mug"])):
        change = of(changes(report(before), after), name, "m")
        naive = np.array(
            [
                [naive_precision(each, np.repeat(np.arange(6), row).tolist(), classes)
                 for row in (*weights.astype(int), np.ones(6, int))]
                for each in scores
            ]
        )  # fmt: skip
        difference = naive[1] - naive[0]
        assert change["difference"] == pytest.approx(difference[-1], abs=1e-12)
        expected = interval(difference[:-1], 6)
        assert (change["low"], change["high"]) == pytest.approx(expected, abs=1e-8)
        assert change["verdict"] == "better"
        # By its intervals alone nothing would be certain.
        old = report(before)
        del old["units"]["m"]["ranked"]
        apart = of(changes(old, after), name, "m")
        assert apart["verdict"] == "same"
        assert "by both intervals" in apart["why"]
    mended = report(before)
    mended["units"]["m"]["ranked"]["true"]["mug"] += 1
    found = {each["figure"]: each["why"] for each in changes(mended, after)}
    assert "by both intervals" in found["boxes.ap"]
    assert "by both intervals" in found["boxes.ap.mug"]
    assert "by both intervals" not in found["boxes.ap.chair"]
    for damage in ({}, {"true": {"mug": "one"}}, {"true": [1]}):
        mended["units"]["m"]["ranked"] = {"figures": {}, **damage}  # type: ignore[typeddict-item]
        with pytest.raises(InputError, match="the earlier report is damaged"):
            changes(mended, after)


def test_precision_that_was_defined_otherwise_is_not_compared_of_a_class_either() -> None:
    after = summarise(ScoreTable(found_things(1)), resamples=40)
    before = report(after)
    before["method"]["revisions"] = {}
    with pytest.raises(InputError, match=r"nothing .* can be compared: they were defined other"):
        changes(before, after)
