"""Each ONNX file in this repository passes its own self-check in each runtime on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from dense_perception.backends.select import select_backend
from dense_perception.core.registry import find_model

MODELS = Path(__file__).parents[2] / "models"
SHIPPED = sorted(path.name.removesuffix("_int8.onnx") for path in MODELS.glob("*_int8.onnx"))


def test_there_are_some() -> None:
    assert {"dpt_tiny_indoor", "mult_tiny_indoor"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_every_precision_passes_its_self_check(
    name: str, runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = find_model(MODELS / f"{name}.yaml")
    assert set(model.precisions) >= {"fp32", "int8"}
    for precision in model.precisions:
        backend, card, selection = select_backend(model, backend=runtime, precision=precision)
        backend.close()
        assert (selection.backend, selection.precision) == (runtime, precision)
        assert not selection.warnings
        assert card.precision == precision
        assert card.network == model.card.network
