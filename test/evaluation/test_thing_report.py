"""Things in the whole report: figures as the references count them, whoever computes them."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dense_perception.core.camera import Frame, Intrinsics
from dense_perception.data.corpus import Corpus
from dense_perception.data.description import write_description
from dense_perception.data.sample import Sample
from dense_perception.data.shards import write_shard
from dense_perception.evaluation.collected import KnownClasses
from dense_perception.evaluation.contestants import ModelContestant, RunOptions
from dense_perception.evaluation.corpus_things import evaluate_frame_things
from dense_perception.evaluation.document import Report
from dense_perception.evaluation.figures import KINDS, FrameScore
from dense_perception.evaluation.page.reading import Reading
from dense_perception.evaluation.page.things import things_section
from dense_perception.evaluation.request import Request, evaluate
from dense_perception.evaluation.score_table import ScoreTable
from dense_perception.evaluation.statistics import summarise
from dense_perception.evaluation.table import report_table
from dense_perception.evaluation.thing_classes import true_segments
from dense_perception.evaluation.thing_totals import ap50_of_frame
from dense_perception.evaluation.truth import TruthFrame
from dense_perception.metrics.average_precision import Matches
from dense_perception.runtime.perceiver import Perceiver
from test.support.instance_artefacts import CLASSES, colour_card, write_colour_artefact

NAMES = ("none", *CLASSES, "giraffe")
HEIGHT, WIDTH = 48, 64
COUNT, SCENES = 12, 6
RUN = RunOptions(backend="onnxruntime", threads=1)


def sample(index: int) -> Sample:
    """Blobs in two colours; some are of another class than their colour says, or moved."""
    generator = np.random.default_rng(index)
    rgb_hwc = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    instances_hw = np.zeros((HEIGHT, WIDTH), np.uint16)
    labels_hw = np.ones((HEIGHT, WIDTH), np.uint8)
    labels = {}
    for number, (channel, left) in enumerate(((0, 2), (2, 34)), start=1):
        top, high, wide = (int(side) for side in generator.integers((2, 12, 10), (8, 34, 24)))
        moved = int(generator.integers(0, 4))
        # No score comes twice: which of two equal ones is first depends on the frames' order.
        score = 130 + 10 * (index * 7 % COUNT) + number
        rgb_hwc[top : top + high, left : left + wide, channel] = score
        label = channel if generator.random() < 0.8 else 1
        place = np.s_[top : top + high - moved, left + moved : left + wide]
        # The giraffe is no class of the model, the last thing of no class at all.
        labels[number] = 0 if index == 11 else 5 if index == 7 else 2 + label
        instances_hw[place], labels_hw[place] = number, labels[number]
    if index == 5:  # a thing without a number
        instances_hw[instances_hw == 2] = 0
        del labels[2]
    return Sample(
        rgb_hwc,
        np.ones((HEIGHT, WIDTH), np.float32),
        Intrinsics.from_fov(WIDTH, HEIGHT, 60),
        labels_hw,
        key=f"{index}",
        scene=index % SCENES,
        instances_hw=instances_hw,
        instance_labels=labels,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, and two models: of segments, and of masks that know no labels."""
    place = tmp_path_factory.mktemp("things")
    write_shard(place / "corpus", 0, [sample(index) for index in range(COUNT)])
    write_description(place / "corpus", {"classes": ["nothing", *NAMES]})
    write_colour_artefact(place / "panoptic.onnx", colour_card("panoptic", panoptic=True))
    write_colour_artefact(place / "masks.onnx", colour_card("masks"))
    return place


def request(folder: Path, models: Sequence[str], **rest: Any) -> Request:
    names = tuple(str(folder / f"{model}.onnx") for model in models)
    return Request(names, (str(folder / "corpus"),), RUN, **rest)


@pytest.fixture(scope="module")
def report(folder: Path) -> Report:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("dense_perception.evaluation.sources.PART_FRAMES", 5)
        return evaluate(request(folder, ("panoptic", "masks"), out=folder / "out")).report


def test_figures_are_those_of_the_references(folder: Path, report: Report) -> None:
    corpus = Corpus(folder / "corpus")
    with Perceiver.load(folder / "panoptic.onnx", backend="onnxruntime") as perceiver:
        expected = evaluate_frame_things(perceiver, corpus)
    found = {name: each["value"] for name, each in report["figures"]["panoptic fp32"].items()}
    assert expected.panoptic is not None
    assert expected.boxes is not None
    assert 0.2 < expected.boxes.ap < 0.9
    for kind, precision in (("boxes", expected.boxes), ("masks", expected.masks)):
        assert precision is not None
        for name in ("ap", "ap50", "ap75", "recall"):
            assert found[f"{kind}.{name}"] == pytest.approx(getattr(precision, name), abs=1e-12)
        for name in ("ap_small", "ap_medium", "ap_large"):
            wanted = getattr(precision, name)
            got = found.get(f"{kind}.{name}")
            assert got == (None if math.isnan(wanted) else pytest.approx(wanted, abs=1e-12))
        of_class = {n: found[f"{kind}.ap.{n}"] for n in precision.by_class}
        assert of_class == pytest.approx(precision.by_class, abs=1e-12)
    for group, quality in (
        ("", expected.panoptic.all),
        ("things.", expected.panoptic.things),
        ("stuff.", expected.panoptic.stuff),
    ):
        for name in ("pq", "sq", "rq"):
            value = found[f"panoptic.{group}{name}"]
            assert value == pytest.approx(getattr(quality, name), abs=1e-12)
    by_class = {
        name.rpartition(".")[2]: value
        for name, value in found.items()
        if name.startswith(("panoptic.things.pq.", "panoptic.stuff.pq."))
    }
    assert by_class == pytest.approx(expected.panoptic.by_class, abs=1e-12)


class Scene:
    """The frames of a corpus that are of one scene."""

    def __init__(self, corpus: Corpus, scene: int) -> None:
        self._corpus, self._places = corpus, range(scene, COUNT, SCENES)
        self.name, self.classes = corpus.name, corpus.classes
        self.keys = [corpus.keys[place] for place in self._places]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Sample:
        return self._corpus[self._places[index]]

    def frame(self, key: str) -> Sample:
        return self._corpus.frame(key)


def test_precision_in_each_recording_is_that_of_its_frames(folder: Path, report: Report) -> None:
    rows = report["slices"]["panoptic fp32"]["recording"]
    found = {kind: [row for row in rows if row["figure"] == f"{kind}.ap"] for kind in KINDS}
    assert [len(each) for each in found.values()] == [SCENES] * 2
    corpus = Corpus(folder / "corpus")
    with Perceiver.load(folder / "panoptic.onnx", backend="onnxruntime") as perceiver:
        for scene in (0, 4):
            expected = evaluate_frame_things(perceiver, Scene(corpus, scene))
            for kind, precision in (("boxes", expected.boxes), ("masks", expected.masks)):
                assert precision is not None
                row = found[kind][scene]
                assert row["bin"].endswith(f"{scene}")
                assert row["value"] == pytest.approx(precision.ap, abs=1e-12)
                assert (row["low"], row["high"], row["n"]) == (None, None, COUNT // SCENES)


def test_each_figure_has_an_interval_and_its_counts(report: Report) -> None:
    figures = report["figures"]["panoptic fp32"]
    assert report["method"]["unit"] == "recordings"
    for name in ("boxes.ap", "masks.ap50", "panoptic.pq", "panoptic.things.rq", "boxes.ap.chair"):
        each = figures[name]
        assert each["value"] is not None
        assert each["low"] is not None
        assert each["high"] is not None
        assert each["low"] <= each["value"] <= each["high"], name
        assert (each["n_frames"], each["n_recordings"]) == (COUNT, SCENES)
    assert not any(name.startswith("panoptic.") for name in report["figures"]["masks fp32"])
    assert report["things"]["panoptic fp32"].keys() == {"chair", "table", "person"}
    assert sum(report["things"]["masks fp32"].values()) == 2 * (COUNT - 2) - 1
    # The two give the same things: no difference, and nobody is ahead.
    (pair,) = (each for each in report["pairs"] if each["figure"] == "boxes.ap"
               and {each["a"], each["b"]} == {"panoptic fp32", "masks fp32"})  # fmt: skip
    assert (pair["difference"], pair["certain"], pair["n_frames"]) == (0, False, COUNT)


def test_the_verdict_speaks_of_things_without_a_baseline(report: Report) -> None:
    """The corpus has labels as well, which a baseline answers."""
    texts = [each["text"] for each in report["verdict"]]
    value = report["figures"]["panoptic fp32"]["panoptic.pq"]["value"]
    assert f"panoptic fp32: PQ of things and stuff {value:.3f}." in texts
    assert any("are alike: AP of boxes" in text for text in texts)


class Slow:
    """A model whose masks take 100 ms, and all else 7."""

    def __init__(self, perceiver: Perceiver) -> None:
        self.own, self.card = perceiver, perceiver.card

    def perceive(self, frames: Sequence[Frame], wanted: Collection[str] | None = None) -> Any:
        took = 107.0 if wanted and "masks" in wanted else 7.0
        return [replace(e, timings_ms={"infer": took}) for e in self.own.perceive(frames, wanted)]


def test_masks_that_figures_alone_need_are_not_timed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dense_perception.evaluation.contestants.TIMED", 2)
    of_truth = sample(0)
    numbers = {"instances_hw": of_truth.instances_hw, "instance_labels": of_truth.instance_labels}
    numbered = TruthFrame("r", "k", Frame(of_truth.rgb_hwc), **numbers)
    with Perceiver.load(folder / "masks.onnx", backend="onnxruntime") as perceiver:
        contestant = ModelContestant(Slow(perceiver))
        answers = [contestant.answer(numbered) for _ in range(3)]
        plain = contestant.answer(TruthFrame("r", "k", Frame(of_truth.rgb_hwc)))
    assert [each.ms for each in answers[:2]] == [7, 7]
    assert math.isnan(answers[2].ms)
    assert all(each.instances.masks_nhw is not None for each in answers)
    assert (plain.ms, plain.instances.masks_nhw) == (7, None)


def test_the_report_shows_things(folder: Path, report: Report) -> None:
    text = report_table(report)
    assert "boxes.ap " in text
    assert "panoptic.things.pq" in text
    shown = [each for each in report["frames_shown"] if each["task"] == "things"]
    assert {each["rank"] for each in shown} == {"worst", "median", "best"}
    assert all((folder / "out" / path).exists() for path in shown[0]["panels"].values())
    page = (folder / "out" / "report.html").read_text()
    assert "Things and stuff by class" in page
    assert "blue is found, orange is missed" in page
    assert "</span> leads" not in page, "both models are alike"
    assert ">1 output<" in page
    assert "1 outputs" not in page
    problems = "\n".join(report["problems"])
    assert "masks fp32: things: the model does not find giraffe: those do not count" in problems


def lines(folder: Path) -> dict[str, list[str]]:
    paths = sorted(folder.rglob("*.jsonl"))
    return {str(path.relative_to(folder)): path.read_text().splitlines()[:-1] for path in paths}


def test_workers_and_resumed_runs_give_the_same_bytes(
    folder: Path, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dense_perception.evaluation.sources.PART_FRAMES", 5)
    expected = lines(folder / "out")
    assert len(expected) == 4 * 3  # of the two baselines as well
    for missing, workers in (("*.jsonl", 2), ("*-00001.jsonl", 1)):
        for path in list((folder / "again").rglob(missing)):
            path.unlink()
        models = ("panoptic", "masks")
        asked = request(folder, models, out=folder / "again", workers=workers)
        found = evaluate(asked).report
        assert lines(folder / "again") == expected
        for key in ("figures", "pairs", "units", "things", "slices"):
            assert json.dumps(found.get(key)) == json.dumps(report.get(key))


def test_a_line_of_scores_is_the_same_again() -> None:
    scores_n = np.array([np.float32(0.1), np.float32(1 / 3)], np.float64)
    matches = Matches(3, scores_n, np.array([1023, 0]), np.array([0, 7]))
    score = FrameScore("m", "r", "k", things={"boxes": {"night stand": matches}, "masks": {}})
    again = FrameScore.from_line(score.to_line())
    assert again.to_line() == score.to_line()
    assert again.things is not None
    found = again.things["boxes"]["night stand"]
    assert found.true == 3
    for name in ("scores_n", "hits_n", "ignored_n"):
        np.testing.assert_array_equal(getattr(found, name), getattr(matches, name))
    assert "things" not in json.loads(FrameScore("m", "r", "k").to_line())


def test_two_models_are_compared_on_what_is_of_one_kind_to_both() -> None:
    """The sofa is stuff to ``a``, which finds none, and a thing to ``b``, which finds all."""
    right, wrong = (Matches(1, np.ones(1), np.array([n]), np.zeros(1, int)) for n in (1023, 0))

    def segments(group: str, name: str, hit: float) -> dict[str, tuple[float, float]]:
        return {f"panoptic.{group}.{kind}.{name}": (hit, 1.0) for kind in ("pq", "rq")}

    shared = segments("things", "chair", 1.0) | segments("stuff", "wall", 1.0)
    scores = [
        score
        for place in "xyz"
        for score in (
            FrameScore(
                "a", place, "0", sums=shared | segments("stuff", "sofa", 0.0),
                things={"boxes": {"chair": right}},
            ),
            FrameScore(
                "b", place, "0", sums=shared | segments("things", "sofa", 0.5),
                things={"boxes": {"chair": right, "sofa": wrong}},
            ),
        )
    ]  # fmt: skip
    labels = ("chair", "sofa", "wall")
    known = {"a": KnownClasses.of(["Chair"], labels), "b": KnownClasses.of(labels[:2], labels)}
    alone = summarise(ScoreTable(scores), known=known)
    assert [alone.figures[name]["boxes.ap"]["value"] for name in "ab"] == [1, 0.5]
    differences = {each["figure"]: each["difference"] for each in alone.pairs}
    for name in ("boxes.ap", "panoptic.pq", "panoptic.things.pq", "panoptic.stuff.pq"):
        assert differences[name] == 0, name


def test_a_frame_is_ranked_by_its_boxes_at_half_an_overlap() -> None:
    found = Matches(2, np.array([0.9, 0.8, 0.7]), np.array([0, 1, 1022]), np.array([0, 0, 0]))
    missed = Matches(1, np.zeros(0), np.zeros(0, int), np.zeros(0, int))
    none_there = Matches(0, np.ones(1), np.zeros(1, int), np.zeros(1, int))
    things = {"boxes": {"mug": found, "bed": missed, "lamp": none_there}, "masks": {"mug": missed}}
    # One of two mugs is right, second of all: precision 1/2 up to a recall of .50.
    assert ap50_of_frame(things) == pytest.approx(0.5 * 51 / 101 / 2)
    assert math.isnan(ap50_of_frame({"boxes": {"lamp": none_there}}))


def test_a_thing_class_that_is_found_falsely_alone_is_no_stuff(report: Report) -> None:
    """No table is true in the frames, and one was found."""
    changed = copy.deepcopy(report)
    for counts in changed["things"].values():
        counts.pop("table")
    for figures in changed["figures"].values():
        for name in [n for n in figures if n.endswith("ap.table")]:
            del figures[name]
    section = things_section(Reading(changed))
    assert section is not None
    first = {row.head: row.cells[0].text for row in section.tables[0].groups[0].rows}
    assert (first["table"], first["none"]) == ("0", "stuff")


def test_numbered_stuff_is_one_segment_and_nameless_things_are_void() -> None:
    """Two walls with numbers, a chair, a thing of no class, and floor."""
    instances_hw = np.array([[1, 1, 2, 2], [3, 3, 4, 0]], np.uint16)
    labels_hw = np.array([[0, 0, 0, 0], [1, 1, 1, 2]])
    true = true_segments(
        instances_hw, {1: 1, 2: 1, 3: 2, 4: 0}, labels_hw, ("wall", "chair", "floor"), ("Chair",)
    )
    wall, floor = (number for number, label in true.classes.items() if label in (0, 2))
    assert true.ids_hw.tolist() == [[wall] * 4, [3, 3, 0, floor]]
    assert true.classes == {3: 1, wall: 0, floor: 2}
