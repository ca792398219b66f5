"""The catalogue of figures, and the lines in which scores are kept."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from dense_perception.core.errors import InputError
from dense_perception.evaluation.figures import FrameScore, catalogue, figure, in_order


def test_every_figure_says_what_it_is() -> None:
    for name, entry in catalogue().items():
        assert re.fullmatch(r"[a-z]+(\.[a-z0-9_]+)+", name)
        assert entry.name == name
        assert len(entry.definition) > 20, name
        assert entry.better in ("lower", "higher", "one"), name


def test_the_page_of_figures_has_every_definition() -> None:
    page = (Path(__file__).parents[2] / "docs" / "figures.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split(" | ")] for line in page.splitlines()]
    found = {row[0].strip("| `"): row[1:] for row in rows if row[0].startswith("| `")}
    better = {"lower": "lower", "higher": "higher", "one": "near 1"}
    expected = {
        name: [each.unit or "-", better[each.better], each.definition.replace("|", r"\|") + " |"]
        for name, each in catalogue().items()
    }
    assert found == expected


def test_slices_and_classes_are_found_by_their_figure() -> None:
    assert figure("depth.metric.absrel@distance=1-2") is catalogue()["depth.metric.absrel"]
    assert figure("labels.iou.night stand").better == "higher"
    assert "night stand" in figure("labels.iou.night stand").definition


@pytest.mark.parametrize("name", ["depth.absrel", "depth.metric.abs_rel", "labels.iou", "miou"])
def test_an_unknown_name_gets_the_closest(name: str) -> None:
    with pytest.raises(InputError, match=r"did you mean .*(absrel|iou)"):
        figure(name)


def test_a_name_like_none_gets_them_all() -> None:
    with pytest.raises(InputError, match=r"there are depth\.metric\.absrel, .*temporal"):
        figure("%")


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [("depth.metric.d1", 0.8, 0.9), ("depth.metric.rmse", 2, 1), ("depth.scale", 0.8, 1.1)],
)
def test_improvement_has_a_direction(name: str, before: float, after: float) -> None:
    assert figure(name).improves(before, after)
    assert not figure(name).improves(after, before)
    assert not figure(name).improves(after, after)


def test_names_come_in_the_order_of_a_table() -> None:
    names = ["labels.iou.wall", "labels.miou", "depth.metric.d1", "depth.metric.absrel"]
    assert in_order(names) == [*reversed(names[2:]), "labels.miou", "labels.iou.wall"]


def test_a_line_holds_the_very_numbers() -> None:
    score = FrameScore(
        "a model", "walk/1", "000017", 1_700_000_000_123_456_789,
        {"depth.metric.absrel": 0.1 + 0.2, "depth.scale": math.nextafter(1, 2)},
        {"depth.metric.absrel@distance=1-2": (1 / 3, 1e300)},
        {(0, 2): 5, (0, 0): 7}, {"brightness": 1 / 7, "camera": "left \u2028 one"},
    )  # fmt: skip
    line = score.to_line()
    assert len(line.splitlines()) == 1
    assert FrameScore.from_line(line) == score
    assert FrameScore.from_line(line).to_line() == line
    without = FrameScore("a", "b", "c")
    assert FrameScore.from_line(without.to_line()) == without


@pytest.mark.parametrize(
    "line", ["", "[]", "{}", '{"contestant":', FrameScore("a", "b", "c").to_line()[:-9]]
)
def test_a_broken_line_is_refused(line: str) -> None:
    with pytest.raises(InputError, match="no line of a frame's scores"):
        FrameScore.from_line(line)
