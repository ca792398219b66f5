"""What is kept while a model's files are made."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dense_perception.export import compare
from dense_perception.export.model_folder import FolderMaker
from test.export.conftest import tiny_card


def test_answers_are_forgotten_once_their_file_is_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for ONNX Runtime's of fp32, which the next files are held against."""
    asked: list[tuple[str, str]] = []
    kept: list[weakref.ref[np.ndarray]] = []

    def answer(name: str, path: Path, feeds: object) -> dict[str, np.ndarray]:
        depth = np.ones((3, 2, 2), np.float32)
        asked.append((name, path.name))
        kept.append(weakref.ref(depth))
        return {"depth": depth}

    monkeypatch.setattr(compare, "runtime_outputs", answer)
    monkeypatch.setattr(compare, "installed_backends", lambda: ("onnxruntime", "openvino"))
    want = {"depth": np.ones((3, 2, 2), np.float32)}
    maker = FolderMaker(tiny_card(), tmp_path, "fp32", lambda step, more: None)
    for precision in ("fp32", "int8"):
        node = helper.make_node("Identity", ["x"], ["y"], name=precision)
        sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
        model = helper.make_model(helper.make_graph([node], precision, sides[:1], sides[1:]))
        path = maker.write(onnx.ModelProto.FromString(model.SerializeToString()), precision)
        for _ in range(2):
            maker.compare(path, want, "itself")
        maker.enter(path, precision)
    assert len(asked) == 4  # once each
    assert [reference() is not None for reference in kept] == [True, False, False, False]
