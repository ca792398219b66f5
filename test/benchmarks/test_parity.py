"""The parity table on a model whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from dense_perception import cli
from dense_perception.benchmarks.parity import compare
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
