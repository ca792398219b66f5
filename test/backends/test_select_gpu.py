"""What ``auto`` chooses on a machine with a GPU, and what it says of engines."""

from __future__ import annotations

import pytest

from dense_perception.backends import device as device_module
from dense_perception.backends import select
from dense_perception.backends.device import Gpu
from dense_perception.backends.engine_cache import (
    EngineKey,
    remember_failure,
)
from dense_perception.backends.select import select_backend
from dense_perception.core.errors import BackendError
from dense_perception.core.onnx_file import OnnxFile
from dense_perception.core.registry import Model
from test.support.bench import FOUR, Bench, FakeBackend

GPU = Gpu("RTX 4090", "8.9", "12.6")


@pytest.fixture
def gpu(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> dict[str, EngineKey | None]:
    """A machine with a GPU; the engines that TensorRT lacks, by precision."""
    bench.lacks = {"fp32": None, "int8": None}
    monkeypatch.setattr(device_module, "find_gpu", lambda index=0: GPU)
    monkeypatch.setattr(
        select,
        "installed_backends",
        lambda place="cpu": (("tensorrt",) if place == "gpu" else ()) + ("onnxruntime", "openvino"),
    )
    bench.speeds = {("tensorrt", "fp32"): 2.0, ("tensorrt", "int8"): 1.0, **FOUR}
    return bench.lacks


def engine(version: str) -> EngineKey:
    return EngineKey("0" * 64, "tensorrt", version, str(GPU), "int8", "batch 1..1")


def test_auto_is_the_gpu_where_it_works_and_says_so(
    gpu: dict[str, EngineKey | None], model: Model
) -> None:
    _, _, selection = select_backend(model)
    assert (selection.backend, selection.device) == ("tensorrt", "gpu")
    assert "on gpu (found RTX 4090)" in selection.summary()


def test_auto_is_the_cpu_without_a_gpu(
    bench: Bench, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(index: int = 0) -> Gpu:
        raise BackendError("there is no NVIDIA driver here: install it")

    monkeypatch.setattr(device_module, "find_gpu", none)
    bench.speeds = dict(FOUR)
    summary = select_backend(model)[2].summary()
    assert "on cpu (there is no NVIDIA driver here): the fastest" in summary


def test_auto_is_the_cpu_where_nothing_runs_on_the_gpu(
    gpu: dict[str, EngineKey | None], bench: Bench, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = bench.open

    def open_backend(
        name: str, file: OnnxFile, *, device: str, threads: int, **_: object
    ) -> FakeBackend:
        if device == "gpu":
            raise BackendError(f"{name} does not know the GPU")
        return real(name, file, device=device, threads=threads)

    monkeypatch.setattr(select, "open_backend", open_backend)
    _, _, selection = select_backend(model)
    assert (selection.backend, selection.device) == ("openvino", "cpu")
    assert any("found RTX 4090, but the GPU is not used" in each for each in selection.warnings)
    with pytest.raises(BackendError, match="does not know the GPU"):
        select_backend(model, device="gpu")
    with pytest.raises(BackendError, match="tensorrt does not know the GPU"):
        select_backend(model, backend="tensorrt")
    # Another backend that was asked for stays the one that runs.
    _, _, selection = select_backend(model, backend="onnxruntime")
    assert (selection.backend, selection.device) == ("onnxruntime", "cpu")
    assert any("but the GPU is not used" in each for each in selection.warnings)


def test_auto_does_not_take_an_intel_gpu_for_nvidias(
    gpu: dict[str, EngineKey | None], bench: Bench, model: Model
) -> None:
    bench.speeds |= {("openvino", "fp32"): 0.1, ("openvino", "int8"): 0.1}
    assert select_backend(model)[2].backend == "tensorrt"
    assert select_backend(model, device="gpu")[2].backend == "openvino"


def test_what_has_no_engine_is_left_out_and_named(
    gpu: dict[str, EngineKey | None], bench: Bench, model: Model
) -> None:
    gpu["int8"] = engine("10.3")
    _, _, selection = select_backend(model, engine_build="background")
    assert (selection.backend, selection.precision) == ("tensorrt", "fp32")
    assert [str(each) for each in selection.missing] == ["tensorrt/int8"]
    assert [each.reason for each in selection.missing] == ["net.engine is damaged"]
    gpu["fp32"] = engine("10.4")
    _, _, selection = select_backend(model, backend="tensorrt", engine_build="background")
    assert (selection.backend, selection.device) == ("onnxruntime", "gpu")
    assert sorted(map(str, selection.missing)) == ["tensorrt/fp32", "tensorrt/int8"]
    assert select_backend(model, engine_build="block")[2].backend == "tensorrt"
    _, _, selection = select_backend(model, engine_build="never")
    assert not selection.missing
    assert any(
        "has no engine (net.engine is damaged), and engine_build is never" in each
        for each in selection.warnings
    )


def test_an_engine_that_could_not_be_built_is_said_and_not_wanted(
    gpu: dict[str, EngineKey | None], model: Model
) -> None:
    gpu["int8"] = engine("10.3")
    remember_failure(engine("10.3"), "no kernel")
    _, _, selection = select_backend(model, engine_build="background")
    assert not selection.missing
    assert any("no kernel" in each and "compile" in each for each in selection.warnings)
    assert "--max-batch" not in str(selection.warnings)
    _, _, selection = select_backend(model, engine_build="background", batch=4)
    assert any("--precision int8 --max-batch 4`" in each for each in selection.warnings)


def test_only_where_nothing_else_runs_an_engine_is_built_at_once(
    gpu: dict[str, EngineKey | None], bench: Bench, model: Model
) -> None:
    gpu.update(int8=engine("10.3"), fp32=engine("10.4"))
    for name in ("onnxruntime", "openvino"):
        for kind in ("fp32", "int8"):
            bench.speeds[name, kind] = BackendError(f"{name} refuses the graph")
    _, _, selection = select_backend(model, engine_build="background")
    assert (selection.backend, selection.device) == ("tensorrt", "gpu")
    assert not selection.missing
    # Nor is an Intel GPU tried on the way back from the CPU.
    assert "openvino" not in {each.backend for each in selection.considered}
