"""The page of a report: what it says is what the report says, and nobody's names get through."""

from __future__ import annotations

import copy
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dense_perception.core.errors import InputError
from dense_perception.evaluation.document import Report
from dense_perception.evaluation.page import charts, frames, write
from dense_perception.evaluation.page.write import FILE, page_text, write_page
from test.support.sample_report import BASELINES, MODELS, add_pictures, sample_report

VOID = {"meta", "img", "br", "wbr", "input", "link", "path", "rect", "use"}
HOSTILE = "</style><script>alert(1)</script>\x1b[31m\u202e\"'&{{7*7}}$\\frac$"


class Page(HTMLParser):
    """Elements with their attributes, the text of each section, the cells of each table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
        self.open: list[str] = []
        self.texts: defaultdict[str, list[str]] = defaultdict(list)
        self.rows: defaultdict[str, list[list[str]]] = defaultdict(list)
        self._section = self._table = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.found[tag].append(given)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self._section = given["id"]
        if tag == "table":
            self._table = given["id"].removeprefix("table-")
        if tag == "tr":
            self.rows[self._table].append([])
        if tag in ("td", "th"):
            self.rows[self._table][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found[tag].append({name: value or "" for name, value in attrs})

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.texts[self._section].append(data)
        if {"td", "th"} & set(self.open):
            self.rows[self._table][-1][-1] += data

    def text(self, section: str) -> str:
        return " ".join("".join(self.texts[section]).split())

    def attributes(self) -> Iterator[tuple[str, str, str]]:
        for tag, elements in self.found.items():
            for given in elements:
                for name, value in given.items():
                    yield tag, name, value


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def report(folder: Path) -> Report:
    made = sample_report()
    add_pictures(made, folder)
    return made


@pytest.fixture(scope="module")
def text(report: Report, folder: Path) -> str:
    return page_text(report, folder)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


@pytest.fixture
def without_charts(report: Report, monkeypatch: pytest.MonkeyPatch) -> Report:
    """A report of one's own without pictures, and pages without charts: made in no time."""
    monkeypatch.setattr(charts, "why_missing", lambda: "no charts")
    mine = copy.deepcopy(report)
    mine["frames_shown"] = []
    return mine


def test_the_verdict_comes_first_with_whether_it_is_certain(
    page: Page, report: Report, without_charts: Report
) -> None:
    assert page.found["section"][0]["id"] == "verdict"
    said = page.text("verdict")
    assert said.startswith("Verdict ✓ Certain mult_tiny_indoor (int8) is better than")
    assert all(each["text"] in said for each in report["verdict"])
    assert "The interval excludes 0 in 6 recordings. Intervals speak for" in said
    without_charts["verdict"][0]["pair"] = 1
    assert (
        Page(page_text(without_charts, Path())).text("verdict").startswith("Verdict ? Not certain")
    )


def test_the_verdict_says_when_most_frames_are_of_one_recording(without_charts: Report) -> None:
    told = "Each frame counts once, and walk_1 has 900 of"
    assert told not in Page(page_text(without_charts, Path())).text("verdict")
    without_charts["data"][1]["scored"] = 900
    assert told in Page(page_text(without_charts, Path())).text("verdict")


def test_curves_over_several_sizes_have_a_logarithmic_scale(
    report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, bool] = {}

    def drawn(key: str, _: object, __: charts.Axis, y: charts.Axis, **___: object) -> str:
        found[key] = y.log
        return ""

    monkeypatch.setattr(charts, "draw_lines", drawn)
    wide = copy.deepcopy(report)
    for curves in wide["curves"].values():
        for point in curves["absrel_by_distance"][:1]:
            point["value"] = 2.0
    page_text(wide, Path())
    assert found["absrel_by_distance"]
    assert not found["scale_by_distance"]


def test_every_number_is_the_report_s(page: Page, report: Report) -> None:
    shown = {float(each["value"]) for each in page.found["data"]}
    for figures in report["figures"].values():
        assert {value["value"] for value in figures.values()} <= shown
    for pair in report["pairs"]:
        assert pair["difference"] in shown
    for axes in report["slices"].values():
        assert all(each["value"] in shown for values in axes.values() for each in values)
    for change in report["changes"]:
        assert {change["before"], change["after"], change["difference"]} <= shown
    for model in report["contestants"]:
        if model["latency_ms"] is not None:
            assert {*model["latency_ms"].values(), model["memory_mb"]} <= shown
    (row,) = [
        row for row in page.rows["main"] if row[0].split()[0:2] == ["mult_tiny_indoor", "(int8)"]
    ]
    value = report["figures"][MODELS[3]]["depth.metric.absrel"]
    assert row[1].split()[:3] == [
        f"{value['value']:.3f}",
        f"[{value['low']:.3f},",
        f"{value['high']:.3f}]",
    ]


def test_the_best_is_marked_in_words_and_only_as_certain_as_it_is(without_charts: Report) -> None:
    mine = without_charts
    page = Page(page_text(mine, Path()))
    cells = {
        row[0].split(")")[0].strip() + ")": row[1] for row in page.rows["main"] if ")" in row[0]
    }
    assert "☆ leads" in cells[MODELS[3]]
    assert sum("leads" in cell or "★" in cell for cell in cells.values()) == 1
    for pair in mine["pairs"]:
        pair["certain"], pair["better"] = True, MODELS[3]
    page = Page(page_text(mine, Path()))
    assert any("★ best" in row[1] for row in page.rows["main"])


def test_a_model_that_beats_no_baseline_is_said_to(without_charts: Report) -> None:
    mine = without_charts
    mine["figures"][MODELS[0]]["depth.metric.absrel"]["value"] = 0.27
    page = Page(page_text(mine, Path()))
    (row,) = [row for row in page.rows["main"] if row[0].strip().startswith(MODELS[0])]
    assert f"not better than {BASELINES[0]}" in row[1]
    assert BASELINES[1] not in row[1]


def test_regressions_are_named_before_everything_but_the_verdict(
    page: Page, without_charts: Report
) -> None:
    assert [each["id"] for each in page.found["section"]][:3] == ["verdict", "changes", "main"]
    assert "1 figure certainly worse" in page.text("changes")
    assert "✗ worse" in " ".join(page.rows["changes-worse"][-1])
    without_charts["compared_with"] = None
    sections = Page(page_text(without_charts, Path())).found["section"]
    assert "changes" not in [each["id"] for each in sections]


def test_what_was_skipped_and_what_made_it_is_there(page: Page, report: Report) -> None:
    skipped = page.text("skipped")
    for words in ("3 frames: no depth within 5 ms", "no answer", report["problems"][0]):
        assert words in skipped
    made = page.text("made")
    assert shlex.join(report["command"]) in made
    for words in ("onnxruntime 1.23.0", "AMD EPYC 9B14", "2,000 draws", "3" * 64):
        assert words in made
    assert {"report.json", "frames.csv"} <= {each.get("href") for each in page.found["a"]}


def test_the_file_needs_nothing_from_elsewhere(page: Page, text: str) -> None:
    assert page.open == []
    assert not {"script", "link", "iframe", "object", "image", "foreignobject"} & set(page.found)
    for tag, name, value in page.attributes():
        assert not name.startswith("on"), (tag, name)
        if name in ("href", "src", "srcset", "action", "data", "xlink:href"):
            local = ("#", "report.json", "frames.csv", "data:image/jpeg;base64,")
            assert value.startswith(local), (tag, name, value[:60])
    assert not re.search(
        r"https?:|@import|url\((?!#)|//[\w.]+/", re.sub(r"base64,[^\"]+", "", text)
    )


def test_ids_are_unique_and_point_somewhere(page: Page) -> None:
    ids = [value for _, name, value in page.attributes() if name == "id"]
    assert len(ids) == len(set(ids))
    links = {
        value[1:] for _, name, value in page.attributes() if name == "href" and value[0] == "#"
    }
    labels = {value for _, name, value in page.attributes() if name == "aria-labelledby"}
    assert links | labels <= set(ids)


def test_it_can_be_read_without_seeing_pictures(page: Page) -> None:
    pictures = page.found["img"]
    assert len(pictures) == 4 * 3 * 4
    assert all(len(each["alt"]) > 20 for each in pictures)
    assert any("Error of mult_tiny_indoor (int8)" in each["alt"] for each in pictures)
    assert all(each["scope"] in ("col", "row", "rowgroup") for each in page.found["th"])
    assert len(page.found["caption"]) == len(page.found["table"])
    drawn = [each for each in page.found["div"] if each.get("role") == "img"]
    assert len(drawn) == 5
    assert all(len(each["aria-label"]) > 40 for each in drawn)


def test_a_thousand_frames_fit_into_a_few_megabytes(text: str) -> None:
    assert len(text.encode()) < 2_000_000


def test_pictures_shrink_and_go_when_there_is_no_room(
    report: Report, folder: Path, without_charts: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "BUDGET", 60_000)
    page = Page(page_text({**without_charts, "frames_shown": report["frames_shown"]}, folder))
    pictures = page.found["img"]
    assert 0 < len(pictures) < 48
    assert sum(len(each["src"]) for each in pictures) <= 60_000
    assert re.search(r"\d+ of 12 frames are left out", page.text("frames"))


def test_foreign_names_stay_text(folder: Path) -> None:
    dirty = sample_report(60)
    add_pictures(dirty, folder)
    named = HOSTILE + "m" * 300
    for each in dirty["contestants"]:
        if each["name"] == MODELS[2]:
            each["name"] = each["file"] = each["backend"] = named
    for part in ("figures", "slices", "curves", "per_class"):
        dirty[part][named] = dirty[part].pop(MODELS[2])  # type: ignore[literal-required]
    for label in dirty["per_class"][named]:
        label["name"] = HOSTILE
    for data in dirty["data"]:
        data["name"] = data["path"] = data["skipped"][0]["why"] = HOSTILE
    for shown in dirty["frames_shown"]:
        shown["key"] = shown["recording"] = HOSTILE
    dirty["frames_shown"][0]["contestant"] = named
    dirty["frames_shown"][0]["panels"] = {"image": "../../etc/passwd", "truth": "/etc/passwd"}
    for value in dirty["slices"][MODELS[0]]["class"]:
        value["bin"] = HOSTILE
    dirty["verdict"][0]["text"] = dirty["command"][0] = dirty["problems"][0] = HOSTILE
    dirty["compared_with"] = dirty["changes"][0]["contestant"] = HOSTILE
    text = page_text(dirty, folder)
    page = Page(text)
    assert page.open == []
    assert "script" not in page.found
    assert not any(name.startswith("on") for _, name, _ in page.attributes())
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "{{7*7}}" in page.text("verdict")
    assert "../../etc/passwd cannot be read" in page.text("frames")


def test_without_matplotlib_it_has_tables_and_says_so_once(
    report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charts, "find_spec", lambda _: None)
    text = page_text({**report, "frames_shown": []}, Path())
    assert text.count("Matplotlib is not installed: pip install") == 1
    page = Page(text)
    assert not [each for each in page.found["div"] if each.get("role") == "img"]
    assert {"scale_by_distance", "reliability"} <= set(page.rows)


def test_without_jinja_the_cure_is_said(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'dense_perception\[report\]'"):
        page_text(report, Path())


def test_a_report_of_hardly_anything_is_a_page(tmp_path: Path) -> None:
    bare = sample_report(0, compared=False)
    for part in ("contestants", "pairs", "verdict", "data", "problems"):
        bare[part] = []  # type: ignore[literal-required]
    for part in ("figures", "slices", "curves", "per_class"):
        bare[part] = {}  # type: ignore[literal-required]
    page = Page(write_page(bare, tmp_path).read_text())
    assert (tmp_path / FILE).is_file()
    assert "There is nothing to compare" in page.text("verdict")


def test_drawing_changes_nothing_outside_and_is_the_same_each_time() -> None:
    code = """
import sys
import matplotlib
from dense_perception.evaluation.page.charts import Axis, draw_intervals
before = matplotlib.rcParams.copy()
drawn = {draw_intervals("a", [("one", 0, 0.2, 0.1, 0.3)], Axis("AbsRel")) for _ in range(2)}
assert len(drawn) == 1
assert matplotlib.rcParams.copy() == before
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def luminance(colour: str) -> float:
    """WCAG 2's relative luminance of ``#rrggbb``."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_have_the_contrast_of_wcag_aa(text: str) -> None:
    """Of text 4.5, of the signs and lines of charts 3: what a tool cannot see within SVG."""
    light, dark = [
        dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", text, flags=re.DOTALL)[:2]
    ]
    for palette in (light, {**light, **dark}):
        for name in ("--ink", "--muted", "--accent", "--good", "--doubt", "--bad"):
            for ground in ("--surface", "--page"):
                assert contrast(palette[name], palette[ground]) >= 4.5, (name, ground)
        assert contrast(palette["--good"], palette["--good-tint"]) >= 4.5
        assert contrast(palette["--doubt"], palette["--doubt-tint"]) >= 4.5
        series = [name for name in palette if name.startswith(("--series", "--baseline"))]
        assert len(series) == 9
        for name in series:
            assert contrast(palette[name], palette["--surface"]) >= 3, name


def test_what_baselines_alone_have_is_not_shown(without_charts: Report) -> None:
    """As on data with depth and labels and models that find things alone."""
    mine = without_charts
    things = {"boxes.ap", "panoptic.pq"}
    for name in MODELS:
        mine["figures"][name] = {n: v for n, v in mine["figures"][name].items() if n in things}
        mine["slices"][name], mine["per_class"][name] = {}, []
        mine["curves"][name] = {
            "scale_by_distance": [], "absrel_by_distance": [], "reliability": []
        }  # fmt: skip
    mine["pairs"], mine["verdict"] = [], []
    page = Page(page_text(mine, Path()))
    assert [cell.split()[0] for cell in page.rows["main"][0]] == ["Model", "AP", "PQ"]
    sections = {each["id"] for each in page.found["section"]}
    assert not sections & {"distance", "slices", "classes"}
