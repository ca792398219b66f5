"""The parity table on a model whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dense_perception import cli
from dense_perception.benchmarks.parity import compare
from test.benchmarks.gpu_table import summary
from test.support.models import write_model


def test_every_cell_is_measured_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = write_model(tmp_path, precisions=("fp32", "int8"))
    picture = tmp_path / "parity.png"
    caller_holds = np.ones(1 << 30, np.uint8)
    words = ["benchmark", "parity", str(card), "--runs", "3", "--picture", str(picture), "--json"]
    assert cli.main(words) == 0
    del caller_holds
    summary = json.loads(capsys.readouterr().out)
    names = [row["name"] for row in summary["rows"]]
    assert names[:2] == ["onnxruntime/fp32", "openvino/fp32"]
    assert "onnxruntime/int8" in names
    for row in summary["rows"]:
        assert row["max_of_range"] < 1e-5
        assert row["d1"] == 1.0
        assert 0 < row["median_ms"] <= row["p95_ms"]
        assert row["build_s"] > 0
        # The cell's own memory: a process with NumPy and a runtime, however large its caller is.
        assert 30 < row["peak_mb"] < 700
    image = cv2.imread(str(picture))
    assert image is not None
    assert image.shape[0] > 150 * len(names)
    # The model's depth grows with red, so the reddest pixels are far, and far is blue.
    blueness = image[150:300, 590:-200, 0].astype(int) - image[150:300, 590:-200, 2]
    red = image[:150, 590:-200, 2]
    assert blueness[red >= np.percentile(red, 98)].mean() > 0
    assert blueness[red <= np.percentile(red, 2)].mean() < 0


def test_a_picture_has_a_name_that_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = write_model(tmp_path)
    assert cli.main(["benchmark", "parity", str(card), "--picture", str(tmp_path / "x.jpg")]) == 2
    assert "expected a name ending in .png" in capsys.readouterr().err


def test_errors_by_hand() -> None:
    want = np.array([[[1.0, 2.0], [4.0, 5.0]]])
    found = compare({"depth": want * [[[1.0, 1.1], [1.0, 1.3]]]}, {"depth": want})
    assert found["max_of_range"] == pytest.approx(1.5 / 4)
    assert found["mean_of_range"] == pytest.approx(1.7 / 16, abs=1e-6)
    assert found["abs_rel"] == pytest.approx(0.1)
    assert found["d1"] == 0.75
    labels = np.array([[[1, 2], [3, 4]]], np.uint8)
    assert compare({"labels": labels.clip(0, 3)}, {"labels": labels}) == {"agreement": 0.75}


def test_the_table_says_what_the_ratios_are() -> None:
    rows: list[Any] = [
        {"name": "onnxruntime/fp32 cpu", "file_mb": 1.0, "median_ms": 90.0, "build_s": 1.0},
        {"name": "tensorrt/fp16", "file_mb": 1.0, "median_ms": 2.0, "build_s": 80.0, "gpu_mb": 300,
         "mean_of_range": 8e-4},
        {"name": "onnxruntime/fp16", "file_mb": 1.0, "median_ms": 2.8, "build_s": 3.0,
         "agreement": 0.999, "problem": "copies"},
        {"name": "torch_tensorrt/fp16", "file_mb": 1.0, "error": "needs torch"},
    ]  # fmt: skip
    result: Any = {"model": "dpt", "network": "384x384", "rows": rows, "bound_ms": {"fp16": 1.0}}
    lines = summary([result], "H100").splitlines()
    (ort,) = (line for line in lines if line.startswith("onnxruntime/fp16"))
    assert ort.split()[1:] == ["3.0", "2.80", "-", "0.9990", "1.40", "2.80"]
    (trt,) = (line for line in lines if line.startswith("tensorrt/fp16"))
    assert trt.split()[1:] == ["80.0", "2.00", "300", "8.0e-04", "1.00", "2.00"]
    assert any("copies" in line for line in lines)
    assert any("needs torch" in line for line in lines)
