"""Evaluation on a bag whose depth is what the model answers, changed in known ways."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dense_perception import cli
from dense_perception.evaluation.bags import PairSource, evaluate_pairs, row_prior_metrics
from dense_perception.runtime.perceiver import Perceiver
from test.support import recordings as bags
from test.support.artefacts import red_depth, write_red_artefact

FOCAL = 64.0
COUNT = 5
STEP_NS = 100_000_000


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "red_depth.onnx"
    write_red_artefact(path)
    return str(path)


def picture(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (48, 64, 3), np.uint8)


def coloured(index: int, bits: int) -> tuple[np.ndarray, str]:
    """The picture, of more than 8 bits in the low bits of 16, as cameras deliver them."""
    if bits == 8:
        return picture(index), "rgb8"
    return picture(index).astype(np.uint16) << (bits - 8), "rgb16"


def depth_bag(
    folder: Path,
    change: Any = lambda depth: depth,
    *,
    delay_ns: int = 0,
    depth_focal: float = FOCAL,
    encoding: str = "32FC1",
    bits: int = 8,
) -> Path:
    messages: list[tuple[str, int, Any]] = []
    for index in range(COUNT):
        stamp = (index + 1) * STEP_NS
        true_m = change(red_depth(picture(index), FOCAL))
        if encoding != "32FC1":
            stored = np.rint(np.nan_to_num(true_m) * 1000).astype(np.uint16)
        else:
            stored = true_m.astype(np.float32)
        messages += [
            ("/cam/color/camera_info", stamp, bags.camera_info(64, 48, FOCAL, stamp)),
            ("/cam/color/image_raw", stamp, bags.image(*coloured(index, bits), stamp)),
            ("/cam/depth/camera_info", stamp, bags.camera_info(64, 48, depth_focal, stamp)),
            ("/cam/depth/image_raw", stamp + 1, bags.image(stored, encoding, stamp + delay_ns)),
        ]
    return bags.write_bag(folder, messages)


def evaluate(
    model: str, bag: Path, capsys: pytest.CaptureFixture[str], *options: str, code: int = 0
) -> dict[str, Any]:
    words = ["evaluate", model, "--bag", str(bag), "--backend", "onnxruntime", "--json"]
    assert cli.main([*words, "--threads", "1", *options]) == code
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


@pytest.mark.parametrize(("encoding", "tolerance"), [("32FC1", 1e-5), ("16UC1", 6e-4)])
def test_a_perfect_model_has_no_error(
    tmp_path: Path, model: str, capsys: Any, encoding: str, tolerance: float
) -> None:
    bag = depth_bag(tmp_path / "bag", encoding=encoding)
    report = evaluate(model, bag, capsys, "--per-frame")
    assert report["frames"] == COUNT
    assert report["unmatched"] == report["intrinsics_assumed"] == 0
    means = report["means"]
    assert means["abs_rel"] <= tolerance
    assert means["aligned_abs_rel"] <= tolerance
    assert means["d1"] == means["aligned_d1"] == means["coverage"] == 1
    # Red is noise: the pixel row says nothing about it.
    assert report["row_prior"]["aligned_abs_rel"] > 0.2
    assert [frame["stamp_ns"] for frame in report["per_frame"]] == [
        (index + 1) * STEP_NS for index in range(COUNT)
    ]


def test_wrong_scale_is_seen_and_aligned_away(tmp_path: Path, model: str, capsys: Any) -> None:
    bag = depth_bag(tmp_path / "bag", lambda depth: depth * 1.5)
    means = evaluate(model, bag, capsys)["means"]
    assert means["abs_rel"] == pytest.approx(1 / 3, abs=1e-3)
    assert means["d1"] == 0
    assert means["aligned_abs_rel"] < 1e-4


@pytest.mark.parametrize(
    ("factor", "says"),
    [
        (1000, ["the median depth is", "about 1/1000 of the true depth"]),
        (0.1, ["about 10 times the true depth"]),
        (3, []),
    ],
)
def test_another_unit_of_the_truth_is_named(
    tmp_path: Path, model: str, factor: float, says: list[str]
) -> None:
    source = PairSource(depth_bag(tmp_path / "bag", lambda depth: depth * factor))
    with closing(source), Perceiver.load(model, backend="onnxruntime", threads=1) as perceiver:
        report = evaluate_pairs(perceiver, source, 1e5)
    problems = [line for line in report.problems if line.startswith("/cam/depth/image_raw")]
    assert len(problems) == len(says)
    assert all(text in line for text, line in zip(says, problems, strict=True))


def test_shift_in_inverse_depth_is_aligned_away(tmp_path: Path, model: str, capsys: Any) -> None:
    bag = depth_bag(tmp_path / "bag", lambda depth: 1 / (0.7 / depth + 0.05))
    means = evaluate(model, bag, capsys)["means"]
    assert means["abs_rel"] > 0.05
    assert means["aligned_abs_rel"] < 1e-4


def test_holes_and_far_truth_do_not_count(tmp_path: Path, model: str, capsys: Any) -> None:
    def spoil(depth: np.ndarray) -> np.ndarray:
        depth[:10] = np.nan
        depth[10:20] = 50.0
        return depth

    means = evaluate(model, depth_bag(tmp_path / "bag", spoil), capsys)["means"]
    assert means["abs_rel"] < 1e-5


def test_stamps_may_differ_by_the_tolerance(tmp_path: Path, model: str, capsys: Any) -> None:
    bag = depth_bag(tmp_path / "bag", delay_ns=4_000_000)
    assert evaluate(model, bag, capsys)["frames"] == COUNT
    late = depth_bag(tmp_path / "late", delay_ns=40_000_000)
    assert cli.main(["evaluate", model, "--bag", str(late)]) == 2
    assert "raise --tolerance-ms" in capsys.readouterr().err
    report = evaluate(model, late, capsys, "--tolerance-ms", "45")
    assert report["frames"] == COUNT
    assert report["means"]["abs_rel"] < 1e-5


def test_stamps_that_repeat_are_matched_by_the_time_of_recording(tmp_path: Path) -> None:
    """All are 0, and the first picture's depth is missing: it does not get the next one's."""
    messages: list[tuple[str, int, Any]] = []
    for index in range(COUNT):
        time_ns = (index + 1) * STEP_NS
        messages.append(("/c/image", time_ns, bags.image(picture(index), "rgb8", 0)))
        if index:
            depth = np.full((48, 64), 1000 + index, np.uint16)
            messages.append(("/c/depth", time_ns + 1, bags.image(depth, "16UC1", 0)))
    source = PairSource(bags.write_bag(tmp_path / "bag", messages))
    for index, pair in enumerate(source, start=1):
        assert abs(float(pair.true_m[0, 0]) - 1 - index / 1000) < 1e-5
        assert np.array_equal(pair.frame.rgb_hwc, picture(index))
    assert source.unmatched == 1
    assert any("repeat the stamp 0 ns" in problem for problem in source.problems)
    source.close()


def test_depth_of_another_view_is_said(tmp_path: Path, model: str, capsys: Any) -> None:
    bag = depth_bag(tmp_path / "bag", depth_focal=80.0)
    report = evaluate(model, bag, capsys, code=1)
    assert report["frames"] == COUNT
    assert "not aligned with the picture" in report["problems"][0]


@pytest.mark.parametrize("value", [0.0, np.inf, 25.0])
def test_frames_without_truth_are_refused(
    tmp_path: Path, model: str, capsys: Any, value: float
) -> None:
    bag = depth_bag(tmp_path / "bag", lambda depth: np.full_like(depth, value))
    words = ["evaluate", model, "--bag", str(bag), "--backend", "onnxruntime", "--threads", "1"]
    assert cli.main(words) == 2
    assert "have no depth from 0 to 20 m and were left out" in capsys.readouterr().err


def test_depth_that_calls_itself_mono16_has_to_be_named(
    tmp_path: Path, model: str, capsys: Any
) -> None:
    bag = depth_bag(tmp_path / "bag", encoding="mono16")
    assert cli.main(["evaluate", model, "--bag", str(bag)]) == 2
    assert "has several picture topics" in capsys.readouterr().err
    report = evaluate(model, bag, capsys, "--depth-topic", "/cam/depth/image_raw")
    assert report["topic"] == "/cam/color/image_raw"
    assert report["means"]["abs_rel"] < 1e-3


def test_pictures_of_12_bits(tmp_path: Path, model: str, capsys: Any) -> None:
    bag = depth_bag(tmp_path / "bag", bits=12)
    report = evaluate(model, bag, capsys, code=1)
    assert "only use 12 bits" in report["problems"][0]
    assert report["means"]["abs_rel"] > 0.1
    report = evaluate(model, bag, capsys, "--bits", "12")
    assert report["means"]["abs_rel"] < 1e-5


def test_bag_cut_in_half(tmp_path: Path, model: str, capsys: Any) -> None:
    file = bags.storage_file(depth_bag(tmp_path / "bag"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    report = evaluate(model, tmp_path / "bag", capsys, code=1)
    assert 1 <= report["frames"] < COUNT
    assert report["means"]["abs_rel"] < 1e-5
    assert "cut off" in report["problems"][-1]


def test_table_for_eyes(tmp_path: Path, model: str, capsys: Any) -> None:
    bag = depth_bag(tmp_path / "bag")
    assert cli.main(["evaluate", model, "--bag", str(bag), "--limit", "2"]) == 0
    out = capsys.readouterr().out
    for words in ("2 frames of /cam/color/image_raw", "row prior", "abs_rel", "d1"):
        assert words in out


def test_bag_without_depth(tmp_path: Path, model: str, capsys: Any) -> None:
    bag = bags.write_bag(tmp_path / "bag", [("/image", 1, bags.image(picture(0), "rgb8", 1))])
    assert cli.main(["evaluate", model, "--bag", str(bag)]) == 2
    assert "no depth topic" in capsys.readouterr().err


def test_row_prior_knows_rows_and_nothing_else() -> None:
    rows = np.linspace(1, 5, 12)[:, None]
    floor = np.repeat(rows, 16, axis=1)
    truths = [floor, floor * 2, 1 / (0.5 / floor + 0.02)]
    for metrics in row_prior_metrics(truths):
        assert metrics["aligned_abs_rel"] < 1e-6
    columns = [truth.T.copy() for truth in truths]
    for metrics in row_prior_metrics(columns):
        assert metrics["aligned_abs_rel"] > 0.2
    holed = [np.where(np.arange(12)[:, None] < 3, np.nan, truth) for truth in truths]
    for metrics in row_prior_metrics(holed):
        assert metrics["aligned_abs_rel"] < 1e-6
