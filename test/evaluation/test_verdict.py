"""The first sentences of a report."""

from __future__ import annotations

from typing import cast

from dense_perception.evaluation.document import ContestantData, FigureValue, PairValue
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
            "text": "new is better than old in AbsRel of metric depth by 0.05 [0.03, 0.1]: "
            "0.15 against 0.2.",
            "pair": 0,
        },
        {
            "text": "new looks better than the baseline row prior in AbsRel of metric depth by "
            "0.01 [-0.04, 0.03], but that is not certain: 0.15 against 0.3.",
            "pair": 1,
        },
    ]


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
        "metric and relative are alike in AbsRel of aligned depth: 0.1 against 0.1.",
        "The baseline row prior is better than metric in AbsRel of aligned depth by 0.1 "
        "[0.08, 0.15]: 0.05 against 0.1.",
    ]


def test_one_model_and_no_frame_in_common() -> None:
    alone = verdicts(rows(one="artefact"), {"one": {"labels.miou": value(0.4567)}}, [])
    assert alone == [{"text": "one: mean IoU of labels 0.4567.", "pair": None}]
    figures = {"a": {"normals.mean_deg": value(30)}, "b": {"normals.mean_deg": value(20)}}
    apart = verdicts(rows(a="artefact", b="topic"), figures, [])
    assert apart == [
        {
            "text": "b and a share no frame: mean angle of normals 20 deg against 30 deg.",
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
        assert "b is better than a in mean IoU of labels by 0.1 [0." in found[0]["text"]
