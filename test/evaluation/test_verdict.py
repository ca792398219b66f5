"""The first sentences of a report."""

from __future__ import annotations

from typing import cast

from dense_perception.evaluation.document import (
    ContestantData,
    FigureValue,
    PairValue,
    SliceValue,
)
from dense_perception.evaluation.verdict import verdicts

ABSREL, ALIGNED = "depth.metric.absrel", "depth.aligned.absrel"


def rows(**kinds: str) -> list[ContestantData]:
    return [cast(ContestantData, {"name": name, "kind": kind}) for name, kind in kinds.items()]


def value(number: float) -> FigureValue:
    return FigureValue(value=number, low=None, high=None, n_frames=9, n_recordings=6)


def pair(
    a: str, b: str, figure: str, better: str | None, certain: bool, difference: float = 0.1
) -> PairValue:
    return PairValue(
        a=a, b=b, figure=figure, difference=difference, low=difference - 0.02,
        high=difference + 0.05, better=better,
        certain=certain, why="", n_frames=9, n_recordings=6,
    )  # fmt: skip


def test_the_best_model_is_named_with_what_it_beats() -> None:
    figures = {
        "old": {ABSREL: value(0.2), ALIGNED: value(0.11)},
        "new": {ABSREL: value(0.15), ALIGNED: value(0.1)},
        "row prior": {ABSREL: value(0.3), ALIGNED: value(0.2)},
        "constant": {ABSREL: value(0.4), ALIGNED: value(0.5)},
    }
    pairs = [
        pair("old", "new", ABSREL, "new", True, 0.05),
        pair("new", "row prior", ABSREL, "new", False, -0.01),
    ]
    kinds = {"old": "artefact", "new": "artefact", "row prior": "baseline", "constant": "baseline"}
    assert verdicts(rows(**kinds), figures, pairs) == [
        {
            "text": "new is better than old: AbsRel of metric depth 0.150 against 0.200, ahead by "
            "0.050 [0.030, 0.100].",
            "pair": 0,
        },
        {
            "text": "new looks better than the baseline row prior, but that is not certain: "
            "AbsRel of metric depth 0.150 against 0.300, ahead by 0.010 [-0.040, 0.030].",
            "pair": 1,
        },
    ]


def by_recording(**values: float) -> dict[str, list[SliceValue]]:
    return {
        "recording": [
            SliceValue(bin=name, figure=ABSREL, value=each, low=None, high=None, n=9)
            for name, each in values.items()
        ]
    }


def test_recordings_on_which_a_baseline_is_better_are_named() -> None:
    figures = {
        n: {ABSREL: value(v)} for n, v in (("new", 0.2), ("row prior", 0.3), ("constant", 0.4))
    }
    pairs = [pair("new", "row prior", ABSREL, "new", True)]
    kinds = {"new": "artefact", "row prior": "baseline", "constant": "baseline"}
    slices = {
        "new": by_recording(hall=0.1, desk=1.2, shelf=0.5),
        "row prior": by_recording(hall=0.2, desk=0.486, shelf=0.5),
        "constant": by_recording(hall=0.3, desk=1.0, shelf=0.6),
    }
    first, second = verdicts(rows(**kinds), figures, pairs, slices)
    assert first["text"].startswith("new is better than the baseline row prior")
    assert second["text"] == (
        "On 1 of 3 recordings new is worse than a baseline, by AbsRel of metric depth: desk (row "
        "prior: 1.200 against 0.486)."
    )
    # Where there is one recording alone, the first sentence has said it.
    alone = {name: by_recording(desk=each) for name, each in (("new", 1.0), ("constant", 0.5))}
    assert len(verdicts(rows(**kinds), figures, pairs, alone)) == 1


def test_a_relative_model_is_judged_as_all_can_be() -> None:
    figures: dict[str, dict[str, FigureValue]] = {
        "metric": {ABSREL: value(0.2), ALIGNED: value(0.1)},
        "relative": {ALIGNED: value(0.1), "normals.mean_deg": value(20)},
        "row prior": {ALIGNED: value(0.05)},
    }
    pairs = [
        pair("metric", "relative", ALIGNED, None, False),
        pair("metric", "row prior", ALIGNED, "row prior", True),
    ]
    kinds = {"metric": "artefact", "relative": "artefact", "row prior": "baseline"}
    assert [each["text"] for each in verdicts(rows(**kinds), figures, pairs)] == [
        "metric and relative are alike: AbsRel of aligned depth 0.100 and 0.100.",
        "The baseline row prior is better than metric: AbsRel of aligned depth 0.050 against "
        "0.100, ahead by 0.100 [0.080, 0.150].",
    ]


def test_one_model_and_no_frame_in_common() -> None:
    alone = verdicts(rows(one="artefact"), {"one": {"labels.miou": value(0.4567)}}, [])
    assert alone == [{"text": "one: mean IoU of labels 0.457.", "pair": None}]
    figures = {"a": {"normals.mean_deg": value(30)}, "b": {"normals.mean_deg": value(20)}}
    apart = verdicts(rows(a="artefact", b="topic"), figures, [])
    assert apart == [
        {
            "text": "b and a share no frame: mean angle of normals 20.0 deg against 30.0 deg.",
            "pair": None,
        }
    ]


def test_how_far_it_is_ahead_is_positive_whatever_is_good() -> None:
    figures = {name: {"labels.miou": value(m)} for name, m in (("a", 0.4), ("b", 0.5))}
    for first, second, difference in (("a", "b", -0.1), ("b", "a", 0.1)):
        found = verdicts(
            rows(a="artefact", b="artefact"),
            figures,
            [pair(first, second, "labels.miou", "b", True, difference)],
        )
        assert "mean IoU of labels 0.500 against 0.400, ahead by 0.100 [0." in found[0]["text"]


def test_an_interval_shows_on_which_side_of_0_it_ends() -> None:
    figures = {"a": {ABSREL: value(0.1026)}, "b": {ABSREL: value(0.1019)}}
    close = pair("a", "b", ABSREL, "b", False, 0.0006)
    close |= {"low": -0.00042, "high": 0.0017}
    (found,) = verdicts(rows(a="artefact", b="artefact"), figures, [close])
    assert found["text"].endswith("0.102 against 0.103, ahead by 0.0006 [-0.0004, 0.0017].")


def test_an_interval_beyond_0_that_is_not_certain_says_why() -> None:
    figures = {"a": {ABSREL: value(0.2)}, "b": {ABSREL: value(0.1)}}
    (found,) = verdicts(
        rows(a="artefact", b="artefact"), figures, [pair("a", "b", ABSREL, "b", False, 0.1)]
    )
    assert found["text"].endswith("[0.080, 0.150], but these frames are too few or too alike to "
                                  "rely on it.")  # fmt: skip


def test_what_does_not_show_is_alike_unless_it_is_certain() -> None:
    figures = {"a": {ABSREL: value(0.10241)}, "b": {ABSREL: value(0.10239)}}
    for certain, said in (
        (False, "b and a are alike: AbsRel of metric depth 0.102 and 0.102."),
        (
            True,
            "b is better than a: AbsRel of metric depth 0.10239 against 0.10241, ahead by "
            "0.00002 [-0.01998, 0.05002].",
        ),
    ):
        found = verdicts(
            rows(a="artefact", b="artefact"), figures, [pair("a", "b", ABSREL, "b", certain, 2e-5)]
        )
        assert found == [{"text": said, "pair": 0}]
