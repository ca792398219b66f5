"""Whole evaluations: recordings with known answers through contestants to a report."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dense_perception import cli
from dense_perception.core.errors import InputError
from dense_perception.evaluation import run
from dense_perception.evaluation.request import Request, evaluate, given_protocol
from dense_perception.evaluation.run import usual_protocol
from dense_perception.evaluation.sources import name_sources, open_source
from dense_perception.evaluation.table import report_table
from dense_perception.evaluation.truth import TruthOptions
from dense_perception.metrics.protocols import KITTI
from test.support import recordings as bags
from test.support.walks import COUNT, OTHER, RUN, STEP_NS, TRUTH, replaced, values, walk

pytestmark = pytest.mark.usefixtures("own_cache")


def truths(bag: Path, *, by_part: bool = False) -> list[Any]:
    """The frames of a bag, or those of each part that are judged in full."""
    (name,) = name_sources([str(bag)])
    source = open_source(name, TruthOptions(recorded=(OTHER,)))
    found = [list(source.frames(part)) for part in source.parts()]
    source.close()
    return [frame for frames in found for frame in frames[:: 4 if by_part else 1]]


def test_models_topics_and_baselines_are_compared(tmp_path: Path, model: str) -> None:
    bag = walk(tmp_path / "bag", other=1.1)
    out = tmp_path / "out"
    request = Request((model, f"topic:{OTHER}"), (str(bag),), RUN, out=out)
    report = evaluate(request).report
    assert report == json.loads((out / "report.json").read_text())
    own, other = values(report, "red_depth fp32"), values(report, OTHER)
    assert own["depth.metric.absrel"] < 1e-5
    assert own["depth.metric.d1"] == own["depth.coverage"] == 1
    assert other["depth.metric.absrel"] == pytest.approx(0.1, abs=1e-5)
    assert other["depth.scale"] == pytest.approx(1.1, abs=1e-5)
    assert other["temporal.scale_jitter"] < 1e-4
    for baseline in ("row prior", "constant"):
        # Red is noise: neither its row nor its mean says anything about it.
        assert values(report, baseline)["depth.aligned.absrel"] > 0.2
    # The constant by distance, over every fourth pixel of every fourth frame of a part.
    true_m = np.concatenate(
        [frame.depth_m.ravel()[::4] for frame in truths(bag, by_part=True)]
    ).astype(np.float64)
    prior = float(np.median([np.median(f.depth_m) for f in truths(bag)]))
    by_distance = [
        (each["bin"], each["value"])
        for each in report["slices"]["constant"]["distance"]
        if each["figure"] == "depth.metric.absrel"
    ]
    assert len(by_distance) > 2
    for name, value in by_distance:
        low, high = map(float, name.split("-"))
        here = true_m[(true_m >= low) & (true_m < high)]
        assert value == pytest.approx(np.mean(np.abs(prior - here) / here), rel=1e-4)
    (data,) = report["data"]
    assert (data["frames"], data["scored"], data["skipped"]) == (COUNT, COUNT, [])
    kinds = {each["name"]: each["kind"] for each in report["contestants"]}
    assert kinds[OTHER] == "topic"
    assert kinds["red_depth fp32"] == "artefact"
    page = (out / "report.html").read_text()
    assert "red_depth fp32" in page
    assert "of 4 successive frames of a recording, the first is judged by" in page
    assert report["verdict"]
    rows = (out / "frames.csv").read_text().splitlines()
    assert len(rows) == 1 + 4 * COUNT
    shown = {(each["contestant"], each["rank"]) for each in report["frames_shown"]}
    assert {(OTHER, "worst"), (OTHER, "median"), (OTHER, "best")} <= shown
    for each in report["frames_shown"]:
        assert all((out / path).is_file() for path in each["panels"].values())


def test_images_that_a_live_node_skipped_are_counted_and_no_problem(
    tmp_path: Path, model: str
) -> None:
    bag = walk(tmp_path / "bag", other=1.1, unanswered=3)
    report = evaluate(Request((model, f"topic:{OTHER}"), (str(bag),), RUN)).report
    (other,) = (each for each in report["contestants"] if each["name"] == OTHER)
    assert other["frames"] == COUNT - 3
    assert [each["count"] for each in other["failed"]] == [3]
    assert report["problems"] == []
    # Parts of 7, 7 and 6 frames, of which the first and the fifth are judged in full, whatever a
    # contestant did not answer; a change counts from the frame before alone.
    shared = {pair["figure"]: pair["n_frames"] for pair in report["pairs"] if pair["b"] == OTHER}
    assert shared["depth.boundary.f1"] == 5
    assert report["figures"][OTHER]["depth.boundary.f1"]["n_frames"] == 5
    assert report["figures"]["red_depth fp32"]["depth.boundary.f1"]["n_frames"] == 6
    assert shared["temporal.scale_jitter"] == 3 + 6 + 5


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_parts_of_a_bag_are_the_whole_bag(tmp_path: Path, storage: str) -> None:
    bag = walk(tmp_path / "bag", storage=storage)
    (name,) = name_sources([str(bag)])
    source = open_source(name, TruthOptions())
    parts = source.parts()
    assert len(parts) == 3
    assert sum(part.frames for part in parts) == COUNT
    # In another order than they were recorded: each part is read by itself.
    stamps = {p.number: [f.frame.stamp_ns for f in source.frames(p)] for p in reversed(parts)}
    found = [stamp for number in sorted(stamps) for stamp in stamps[number]]
    assert found == [(index + 1) * STEP_NS for index in range(COUNT)]
    source.close()


def test_what_is_broken_is_named_and_the_rest_goes_on(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, cut = walk(tmp_path / "whole"), walk(tmp_path / "cut")
    file = bags.storage_file(cut)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    dark, empty = walk(tmp_path / "dark", depth=False), tmp_path / "empty.mcap"
    empty.write_bytes(b"")
    words = ["evaluate", model, "--backend", "onnxruntime", "--threads", "1", "--json", "--data"]
    assert cli.main([*words, *map(str, (whole, cut, dark, empty))]) == 1
    said = capsys.readouterr()
    report = json.loads(said.out)
    scored = {each["name"]: each["scored"] for each in report["data"]}
    assert scored["whole"] == COUNT
    assert 0 < scored["cut"] < COUNT
    assert scored["dark"] == scored["empty"] == 0
    assert "cut: cut.mcap is cut off or damaged" in said.err
    assert ": dark has images on /cam/color/image_raw and no truth beside them" in said.err
    assert "empty: " in said.err
    assert cli.main([*words, str(dark)]) == 2
    assert "name a topic with --depth-topic" in capsys.readouterr().err


def test_depth_without_calibration_is_compared_and_said(tmp_path: Path, model: str) -> None:
    bag = walk(tmp_path / "bag", calibrated=False)
    report = evaluate(Request((model,), (str(bag),), RUN)).report
    assert any("has no camera_info" in problem for problem in report["problems"])
    assert values(report, "red_depth fp32")["depth.aligned.absrel"] < 1e-4
    assert "depth.normals.mean_deg" not in report["figures"]["red_depth fp32"]


def test_stamps_that_do_not_overlap_are_named(tmp_path: Path, model: str) -> None:
    bag = walk(tmp_path / "bag", other=1.0)
    request = Request((model,), (str(bag),), RUN, TruthOptions(depth_topic=TRUTH, tolerance_ms=0.0))
    assert evaluate(request).report["data"][0]["scored"] == COUNT  # stamps are equal here
    late = []
    for index in range(3):
        stamp = (index + 1) * STEP_NS
        rgb = np.zeros((48, 64, 3), np.uint8)
        late.append(("/cam/color/image_raw", stamp, bags.image(rgb, "rgb8", stamp)))
        depth = np.ones((48, 64), np.float32)
        late.append((TRUTH, stamp + 1, bags.image(depth, "32FC1", stamp + 40_000_000)))
    with pytest.raises(InputError, match="raise --tolerance-ms"):
        evaluate(Request((model,), (str(bags.write_bag(tmp_path / "late", late)),), RUN))
    for _, _, image in late[1::2]:
        image.header.stamp.sec += 3600
    with pytest.raises(InputError, match=r"first stamps are 3600\.04 s apart: .* by one clock"):
        evaluate(Request((model,), (str(bags.write_bag(tmp_path / "clocks", late)),), RUN))


def test_data_that_no_contestant_answers_are_named(tmp_path: Path, model: str) -> None:
    """Labels alone, and a model of depth."""
    folder = tmp_path / "labelled"
    for name in ("color", "labels"):
        (folder / name).mkdir(parents=True)
        cv2.imwrite(str(folder / name / "a.png"), np.ones((48, 64), np.uint8))
    frames = {"a": {"fx": 60, "fy": 60, "cx": 31.5, "cy": 23.5}}
    (folder / "frames.json").write_text(json.dumps(frames))
    sources = (str(walk(tmp_path / "bag")), str(folder))
    report = evaluate(Request((model,), sources, RUN)).report
    assert report["problems"] == ["labelled: no contestant answers what it has the truth of"]
    assert f"{COUNT} frames of 1 recording; 1 other could not be used" in report_table(report)


def test_conditions_fail_a_build(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = walk(tmp_path / "bag", truth=1.25)  # absrel is 0.2, as is what must be beaten
    words = ["evaluate", model, "--backend", "onnxruntime", "--threads", "1", "--data", str(bag)]
    out = ["--out", str(tmp_path / "out")]
    assert cli.main([*words, *out, "--fail-if", "depth.metric.absrel > 0.21"]) == 0
    assert cli.main([*words, *out, "--fail-if", "depth.metric.absrel > 0.19"]) == 3
    assert "depth.metric.absrel of red_depth fp32 is 0.2" in capsys.readouterr().err
    assert cli.main([*words, *out, "--fail-if", "depth.absrel > 1"]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert cli.main([*words, "--json", "--fail-if", "labels.miou < 0.5"]) == 2
    said = capsys.readouterr()
    assert "no contestant has this figure" in said.err
    # What was scored for so long is not lost.
    assert json.loads(said.out)["figures"]


def test_an_earlier_report_is_compared_with(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bag, out = walk(tmp_path / "bag"), tmp_path / "out"
    before = evaluate(Request((model,), (str(bag),), RUN, out=out)).report
    assert before["changes"] == []
    again = Request((model,), (str(bag),), RUN, compare=out / "report.json")
    after = evaluate(again).report
    assert after["compared_with"] == str(out / "report.json")
    assert {each["verdict"] for each in after["changes"]} == {"same"}
    assert any(each["figure"] == "depth.metric.absrel" for each in after["changes"])
    # What does not fit is refused before anything is scored.
    monkeypatch.setattr(run, "run_jobs", None)
    for changed in ({"max_depth_m": 4.0}, {"crop": "eigen_nyu"}):
        with pytest.raises(InputError, match="true depth counted up to 20 m, all pixels, here"):
            evaluate(replaced(again, **changed))


def test_what_is_not_said_of_the_truth_stays_the_data_set_s() -> None:
    """One field of the protocol given leaves the others as the papers have them."""
    assert usual_protocol("kitti:/data") == KITTI
    assert usual_protocol("kitti") == usual_protocol("rooms")  # a folder of that name
    given = Request(models=(), data=(), max_depth_m=10.0)
    assert replace(KITTI, **given_protocol(given)) == replace(KITTI, max_m=10.0)
    given = Request(models=(), data=(), crop="none")
    assert replace(KITTI, **given_protocol(given)) == replace(KITTI, crop=None)


def test_a_folder_that_somebody_else_made_is_left_alone(tmp_path: Path, model: str) -> None:
    bag, out = walk(tmp_path / "bag"), tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("other files are no matter")
    request = Request((model,), (str(bag),), RUN, TruthOptions(limit=2), out=out)
    (out / "report.html").write_text("mine")
    with pytest.raises(InputError, match=r"has report.html that no evaluation of this version"):
        evaluate(request)
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "thesis.txt"]
    (out / "report.html").unlink()
    evaluate(request)
    shutil.rmtree(out / "parts")  # as the note on other settings says
    assert evaluate(request).report["data"][0]["scored"] == 2
