"""From scores to figures, intervals, differences and slices: by hand and against plain loops."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from dense_perception.core.errors import InputError
from dense_perception.core.json_text import json_text
from dense_perception.evaluation.document import PairValue
from dense_perception.evaluation.figures import FrameScore
from dense_perception.evaluation.score_table import FrameIndex, Frames, ScoreTable
from dense_perception.evaluation.statistics import Summary, summarise
from dense_perception.evaluation.totals import from_sums
from dense_perception.metrics.dense import Confusion
from dense_perception.metrics.protocols import Protocol

ABSREL, D1, JITTER = "depth.metric.absrel", "depth.metric.d1", "temporal.scale_jitter"
CLASSES = ("floor", "wall", "chair")


def by_hand() -> list[FrameScore]:
    """Two frames of one recording, one of another; ``b`` answers two of them."""
    return [
        FrameScore(
            "a", "one", "0", 10, {ABSREL: 0.1, D1: 0.9},
            {f"{ABSREL}@distance=1-1.5": (10, 100), JITTER: (0.04, 1)},
            {(0, 0): 6, (0, 1): 2, (1, 1): 2}, {"brightness": 10.0, "place": "hall"},
        ),
        FrameScore(
            "a", "one", "1", 20, {ABSREL: 0.3},
            {f"{ABSREL}@distance=1-1.5": (50, 100), f"{ABSREL}@distance=0-0.5": (1, 4)},
            {(1, 0): 2, (1, 3): 2}, {"brightness": 20.0, "place": "hall"},
        ),
        FrameScore(
            "a", "two", "0", 10, {ABSREL: 0.2, D1: 0.5}, {JITTER: (0.12, 3)},
            None, {"brightness": 30.0, "place": "yard"},
        ),
        FrameScore("b", "one", "0", 10, {ABSREL: 0.4, D1: 0.9}, {}, {(0, 0): 8, (1, 1): 2}),
        FrameScore("b", "two", "0", 10, {ABSREL: 0.1}),
    ]  # fmt: skip


def pair(summary: Summary, figure: str) -> PairValue:
    (found,) = [each for each in summary.pairs if each["figure"] == figure]
    return found


def test_figures_of_five_scores_by_hand() -> None:
    summary = summarise(ScoreTable(by_hand()), CLASSES)
    a = summary.figures["a"]
    assert a[ABSREL] == {
        "value": pytest.approx(0.2), "low": None, "high": None, "n_frames": 3, "n_recordings": 2,
    }  # fmt: skip
    assert a[D1]["value"] == pytest.approx(0.7)
    assert (a[D1]["n_frames"], a[D1]["n_recordings"]) == (2, 2)
    assert a[JITTER]["value"] == pytest.approx(math.sqrt(0.16 / 4))
    assert a["labels.iou.floor"]["value"] == pytest.approx(6 / 10)
    assert a["labels.iou.wall"]["value"] == pytest.approx(2 / 8)
    assert "labels.iou.chair" not in a
    assert a["labels.miou"]["value"] == pytest.approx((0.6 + 0.25) / 2)
    assert a["labels.accuracy"]["value"] == pytest.approx(8 / 14)
    assert a["labels.miou"]["n_frames"] == 2
    assert summary.per_class["a"][1] == {
        "name": "wall", "iou": pytest.approx(0.25), "low": None, "high": None,
        "accuracy": pytest.approx(2 / 6), "share": pytest.approx(6 / 14),
    }  # fmt: skip
    assert not any("@" in name for name in a)
    method = summary.method([Protocol("garg", max_m=80)])
    assert method["unit"] == "none"
    assert (method["crop"], method["max_depth_m"]) == ("garg", 80)


def test_slices_and_curves_by_hand() -> None:
    summary = summarise(ScoreTable(by_hand()), CLASSES)
    slices = summary.slices["a"]
    assert [(row["bin"], row["value"], row["n"]) for row in slices["distance"]] == [
        ("0-0.5", pytest.approx(0.25), 1), ("1-1.5", pytest.approx(0.3), 2),
    ]  # fmt: skip
    of_absrel = {
        axis: [(row["bin"], row["value"], row["n"]) for row in rows if row["figure"] == ABSREL]
        for axis, rows in slices.items()
    }
    assert of_absrel["recording"] == [("one", pytest.approx(0.2), 2), ("two", 0.2, 1)]
    assert of_absrel["place"] == [("hall", pytest.approx(0.2), 2), ("yard", 0.2, 1)]
    assert [row[1:] for row in of_absrel["brightness"]] == [(0.1, 1), (0.3, 1), (0.2, 1)]
    assert of_absrel["brightness"][0][0] == "lowest third (10 to 16.7)"
    accuracy = [row for row in slices["recording"] if row["figure"] == "labels.accuracy"]
    assert accuracy[0]["value"] == pytest.approx(8 / 14)
    curve = summary.curves["a"]["absrel_by_distance"]
    assert [(p["x_low"], p["x_high"], p["value"]) for p in curve] == [
        (0, 0.5, pytest.approx(0.25)), (1, 1.5, pytest.approx(0.3)),
    ]  # fmt: skip


def test_differences_are_of_the_frames_both_answered() -> None:
    summary = summarise(ScoreTable(by_hand()), CLASSES, ["b", "a"])
    absrel = pair(summary, ABSREL)
    assert absrel["difference"] == pytest.approx((0.4 + 0.1) / 2 - (0.1 + 0.2) / 2)
    assert (absrel["a"], absrel["b"], absrel["better"]) == ("b", "a", "a")
    assert (absrel["n_frames"], absrel["n_recordings"]) == (2, 2)
    assert not absrel["certain"]
    d1 = pair(summary, D1)
    assert (d1["difference"], d1["better"], d1["n_frames"]) == (0, None, 1)
    # Of the labels only the frame that both have counts: 6 of 8 and 2 of 4 against all right.
    assert pair(summary, "labels.miou")["difference"] == pytest.approx(1 - (6 / 8 + 2 / 4) / 2)
    assert JITTER not in {each["figure"] for each in summary.pairs}


def test_calibration_comes_from_the_bins() -> None:
    scores = [
        FrameScore(
            "a", "r", str(i), 0, {},
            {"confidence.said@bin=14": (9.5, 10), "confidence.right@bin=14": (8 - 2 * i, 10)},
        )
        for i in range(2)
    ]  # fmt: skip
    summary = summarise(ScoreTable(scores))
    assert summary.figures["a"]["confidence.ece"]["value"] == pytest.approx(0.95 - 0.7)
    assert summary.curves["a"]["reliability"] == [
        {
            "x_low": pytest.approx(14 / 15), "x_high": 1, "said": pytest.approx(0.95),
            "right": pytest.approx(0.7), "pixels": 20,
        }
    ]  # fmt: skip


def simulated(
    seed: int, recordings: int, frames: int, better: float = 0.0, apart_s: float = 0.1
) -> Iterator[FrameScore]:
    """Recordings of their own difficulty; ``b`` is ``better`` on average, and each has its own luck
    in each recording."""
    rng = np.random.default_rng(seed)
    for number in range(recordings):
        hard, luck = rng.normal(0.3, 0.1), rng.normal(0, 0.03, 2)
        for frame in range(frames):
            stamp = 10**18 + round(frame * apart_s * 1e9)
            common, blur = rng.normal(0, 0.02), float(rng.random())
            for place, name in enumerate("ab"):
                value = hard + common + luck[place] + rng.normal(0, 0.01) - better * place
                counts = {(t, p): int(rng.integers(1, 50)) for t in range(3) for p in range(3)}
                yield FrameScore(
                    name, f"walk {number}", f"{frame:05}", stamp, {ABSREL: float(value)},
                    {JITTER: (float(rng.random()), 1.0)}, counts, {"blur": blur},
                )  # fmt: skip


def whole(summary: Summary) -> str:
    return json_text(
        [summary.figures, summary.slices, summary.pairs, summary.curves, summary.per_class,
         summary.unit_sums, summary.method()]
    )  # fmt: skip


def test_the_order_of_the_scores_changes_no_digit() -> None:
    scores = list(simulated(1, 7, 9))
    expected = whole(summarise(ScoreTable(scores), CLASSES))
    for seed in range(3):
        random.Random(seed).shuffle(scores)
        lines = [score.to_line() for score in scores]
        table = ScoreTable(FrameScore.from_line(line) for line in lines)
        assert whole(summarise(table, CLASSES)) == expected
    assert whole(summarise(ScoreTable(scores), CLASSES, seed=1)) != expected


class InParts:
    """Scores in tables of few frames, as an evaluation has them on disk."""

    def __init__(self, scores: list[FrameScore], frames: int) -> None:
        index = FrameIndex()
        numbers = [index.add(score) for score in scores]
        self.contestants, self._frames = index.contestants, index.frames
        self._parts: dict[int, list[FrameScore]] = {}
        for score, number in zip(scores, numbers, strict=True):
            self._parts.setdefault(number // frames, []).append(score)

    def frames(self) -> Frames:
        return self._frames()

    def tables(self) -> Iterator[ScoreTable]:
        yield from map(ScoreTable, self._parts.values())


@pytest.mark.parametrize("recordings", [2, 7])
def test_parts_of_the_data_add_up_to_the_whole(recordings: int) -> None:
    scores = list(simulated(4, recordings, 9))
    # One does not answer every frame, and says how sure it is of few.
    scores = [s for n, s in enumerate(scores) if s.contestant == "a" or n % 5]
    sure = {f"confidence.{what}@bin={n}": (3.0 + n, 9.0) for what in ("said", "right")
            for n in (3, 8)}  # fmt: skip
    scores = [replace(s, sums={**s.sums, **sure}) if n % 3 else s for n, s in enumerate(scores)]
    expected = json.loads(whole(summarise(ScoreTable(scores), CLASSES)))
    for frames in (1, 4, 10):
        found = json.loads(whole(summarise(InParts(scores, frames), CLASSES)))
        assert_alike(found, expected)


def assert_alike(found: object, expected: object) -> None:
    """Equal but for rounding, and the digits of sentences."""
    if isinstance(expected, dict) and isinstance(found, dict):
        assert list(found) == list(expected)
        for name, value in expected.items():
            assert_alike(found[name], value)
    elif isinstance(expected, list) and isinstance(found, list):
        assert len(found) == len(expected)
        for pair in zip(found, expected, strict=True):
            assert_alike(*pair)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
    else:
        assert found == expected


def test_means_and_intersections_equal_plain_loops() -> None:
    scores = list(simulated(2, 6, 5))
    summary = summarise(ScoreTable(scores), CLASSES)
    values = [score.values[ABSREL] for score in scores if score.contestant == "a"]
    assert summary.figures["a"][ABSREL]["value"] == pytest.approx(np.mean(values), rel=1e-12)
    confusion = Confusion(3)
    for score in scores:
        if score.contestant == "a":
            assert score.confusion is not None
            for pair, pixels in score.confusion.items():
                confusion.counts[pair] += pixels
    miou = summary.figures["a"]["labels.miou"]
    assert miou["value"] == pytest.approx(confusion.mean_iou, rel=1e-12)
    assert miou["low"] is not None
    assert miou["high"] is not None
    assert miou["low"] < confusion.mean_iou < miou["high"]


def test_an_interval_over_recordings_is_that_of_drawing_them() -> None:
    """Against a loop that draws recordings and averages their frames."""
    scores = [score for score in simulated(3, 9, 4) if score.contestant == "a"]
    found = summarise(ScoreTable(scores), CLASSES).figures["a"][ABSREL]
    rng = random.Random(0)
    by_recording: dict[str, list[float]] = {}
    for score in scores:
        by_recording.setdefault(score.recording, []).append(score.values[ABSREL])
    draws = sorted(
        float(np.mean(np.concatenate(rng.choices(list(by_recording.values()), k=9))))
        for _ in range(4000)
    )
    # Student's t with 8 degrees of freedom and sqrt(9 / 8) make 2.5 % into 0.72 %.
    assert found["low"] == pytest.approx(draws[29], abs=0.012)
    assert found["high"] == pytest.approx(draws[-30], abs=0.012)


def test_equal_models_are_told_apart_once_in_twenty_times() -> None:
    certain = 0
    for seed in range(60):
        scores = [
            FrameScore(s.contestant, s.recording, s.key, s.stamp_ns, s.values)
            for s in simulated(seed, 8, 2)
        ]
        certain += pair(summarise(ScoreTable(scores), resamples=1500), ABSREL)["certain"]
    assert certain <= 9  # 3 are expected; more than 9 come less than once in 1,000 times


def test_a_better_model_is_found_over_recordings() -> None:
    found = pair(summarise(ScoreTable(simulated(5, 12, 6, better=0.08)), CLASSES), ABSREL)
    assert found["certain"]
    assert found["better"] == "b"
    assert found["low"] is not None
    assert found["low"] > 0
    assert "over 12 recordings" in found["why"]


def test_24_frames_of_one_walk_are_not_certain() -> None:
    """A drift of the error through the walk decides; whoever looks at frames alone is deceived."""
    rng = np.random.default_rng(7)
    certain = 0
    for _ in range(40):
        drift = np.cumsum(rng.normal(0, 0.02, 24))
        scores = [
            FrameScore(name, "walk", f"{i:02}", 10**18 + i * 10**8, {ABSREL: float(0.3 + d)})
            for i in range(24)
            for name, d in (("a", drift[i]), ("b", 0.02 * rng.normal()))
        ]
        certain += pair(summarise(ScoreTable(scores), resamples=500), ABSREL)["certain"]
    assert certain <= 3  # drawing frames calls 35 of the 40 certain
    steady = [
        FrameScore(name, "walk", f"{i:02}", 10**18 + i * 10**8, {ABSREL: value + 0.001 * i})
        for i in range(24)
        for name, value in (("a", 0.5), ("b", 0.1))
    ]
    overwhelming = pair(summarise(ScoreTable(steady)), ABSREL)
    assert overwhelming["certain"]
    assert "for this recording only" in overwhelming["why"]


def test_what_a_report_keeps_gives_the_same_figures_again() -> None:
    summary = summarise(ScoreTable(simulated(6, 6, 4)), CLASSES)
    kept = json.loads(json_text(summary.unit_sums["a"]))
    totals, units = from_sums(kept)
    assert units == summary.units.names
    again = totals.whole().figures()
    for name, value in summary.figures["a"].items():
        assert float(again[name][0]) == pytest.approx(value["value"], rel=1e-12), name


def test_nothing_and_twice_the_same_are_refused() -> None:
    with pytest.raises(InputError, match="no frame was scored"):
        summarise(ScoreTable())
    with pytest.raises(InputError, match="class 1 were scored, but 1 class is named"):
        summarise(ScoreTable(by_hand()), ("floor",))
    with pytest.raises(InputError, match="two scores for frame 0 of one"):
        ScoreTable([by_hand()[0], by_hand()[0]])


def test_a_contestant_without_an_answer_has_no_figures() -> None:
    summary = summarise(ScoreTable(by_hand()), CLASSES, ["a", "nobody"])
    assert summary.figures["nobody"] == {}
    assert summary.pairs == []
