"""The self-check measures what is wrong, and remembers what it measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dense_perception.backends.base import Backend
from dense_perception.backends.opening import open_backend
from dense_perception.backends.self_check import (
    check_sizes,
    frames_of,
    self_check,
    worst_difference,
)
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import EngineRefusedError
from dense_perception.core.onnx_file import OnnxFile
from test.support.artefacts import red_card, write_red_artefact
from test.support.instance_artefacts import colour_answer, colour_card


class Wrong(Backend):
    """A real runtime whose metres are a little off, as a miscompiled engine's."""

    name, description = "wrong", "wrong engine 1.0"

    def __init__(self, file: OnnxFile, factor: float) -> None:
        self.inner = open_backend("onnxruntime", file)
        self.inputs, self.outputs = self.inner.inputs, self.inner.outputs
        self.factor, self.runs = factor, 0

    def _run(self, feeds: object, names: object) -> dict[str, np.ndarray]:
        self.runs += 1
        depth = self.inner.infer(feeds)["depth"]  # type: ignore[arg-type]
        return {"depth": depth * np.float32(self.factor)}

    def close(self) -> None:
        self.inner.close()


@pytest.fixture
def red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OnnxFile:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "red.onnx"
    write_red_artefact(path)
    return OnnxFile.read(path)


def test_a_wrong_engine_is_refused_and_stays_refused(red: OnnxFile) -> None:
    card = ModelCard.from_onnx(red)
    backend = Wrong(red, 1.1)
    for _ in range(2):
        with pytest.raises(EngineRefusedError, match=r"wrong engine 1\.0 is refused.*1\.[0-9]e-01"):
            self_check(card, red, backend, "wrong")
    assert backend.runs == 3, "the second time it is remembered"
    assert self_check(card, red, Wrong(red, 1.0), "right").max_of_range == 0
    with pytest.raises(EngineRefusedError, match="inf"):
        self_check(card, red, Wrong(red, float("nan")), "not a number")


def test_a_check_of_another_size_that_is_not_kept_is_said(
    red: OnnxFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (red.path.parent / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(red.path.parent / "file"))
    backend = Wrong(red, 1.0)
    check_sizes(ModelCard.from_onnx(red), backend)
    assert backend.size_check is not None
    backend.size_check(red, "sized", (1, 48, 64), backend.infer)
    assert "each start compares it again" in caplog.text


def test_the_cards_tolerance_decides(red: OnnxFile) -> None:
    parity = {"frames": 2, "seed": 1, "max_of_range": 0.5, "mean_of_range": 0.5}
    card = write_red_artefact(red.path, parity=parity)
    backend = Wrong(red, 1.1)
    assert 0.05 < self_check(card, red, backend, "tolerated").max_of_range < 0.2
    assert backend.runs == 2


def test_the_worst_frame_counts_against_its_own_range() -> None:
    flat, deep = np.array([[[1.0, 2.0]]]), np.array([[[1.0, 11.0]]])
    want = frames_of({"depth": np.concatenate([flat, deep])})
    got = frames_of({"depth": np.concatenate([flat + 0.5, deep + 0.5])})
    found = worst_difference(red_card(), got, want)
    assert found.max_of_range == pytest.approx(0.5), "not 0.5 of the 10 m that both span"


def test_openvino_agrees_with_the_reference(red: OnnxFile) -> None:
    backend = open_backend("openvino", red)
    assert backend.identity
    assert self_check(ModelCard.from_onnx(red), red, backend, backend.identity).max_of_range < 1e-5
    assert open_backend("openvino", red).identity == backend.identity


def test_near_ties_of_things_may_swap_and_lost_ones_may_not() -> None:
    card = colour_card()
    rgb = np.zeros((48, 64, 3), np.uint8)
    rgb[4:10, 6:20, 0], rgb[20:40, 30:64, 2] = 200, 250
    want = {name: array[None] for name, array in colour_answer(rgb).items()}
    want["box_scores"][0, :2] = 0.5
    swapped = {name: array.copy() for name, array in want.items()}
    for name in ("boxes", "box_classes", "masks"):
        swapped[name][0, :2] = want[name][0, 1::-1]
    swapped["box_scores"][0, 0] += 1e-6
    assert worst_difference(card, [swapped], [want]).max_of_range < 1e-5
    lost = {name: array.copy() for name, array in want.items()}
    lost["box_scores"][0, 0] = 0.9
    assert worst_difference(card, [lost], [want]).max_of_range == pytest.approx(0.4)
