"""The TensorRT backend on a pretended GPU: memory, batches, threads and the end."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dense_perception.backends import engine_cache
from dense_perception.backends.engine_cache import store_engine
from dense_perception.backends.nvidia import engine as engine_module
from dense_perception.backends.nvidia.build import TensorRtOptions
from dense_perception.backends.nvidia.engine import engine_key
from dense_perception.backends.opening import open_backend
from dense_perception.backends.select import select_backend
from dense_perception.core.camera import Frame
from dense_perception.core.errors import BackendError
from dense_perception.core.onnx_file import OnnxFile
from dense_perception.core.registry import find_model
from dense_perception.runtime.perceiver import Perceiver
from test.backends.test_contract import expected_depth, feeds_of
from test.support.artefacts import write_red_artefact
from test.support.pretended_cuda import GPU, JETSON, pretend_tensorrt


@pytest.fixture
def red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "red.onnx"
    write_red_artefact(path)
    return path


@pytest.mark.parametrize("gpu", [GPU, JETSON], ids=["own memory", "shared memory"])
def test_images_are_written_where_the_gpu_takes_them_from(
    red: Path, monkeypatch: pytest.MonkeyPatch, gpu: object
) -> None:
    cudart = pretend_tensorrt(monkeypatch, gpu=gpu)  # type: ignore[arg-type]
    backend = open_backend("tensorrt", red, device="gpu")
    for seed in (0, 1):
        feeds = feeds_of(1, seed)
        buffer = backend.input_buffer("image", (1, 48, 64, 3))
        assert buffer.ctypes.data in cudart.memory
        buffer[...] = feeds["image"]
        answer = backend.infer({**feeds, "image": buffer})["depth"]
        np.testing.assert_allclose(answer, expected_depth(feeds), rtol=1e-5)
    assert cudart.calls["cudaGraphLaunch"] == 2
    assert (cudart.calls["cudaMemcpyAsync"] == 0) is (gpu is JETSON)
    allocated = cudart.calls["cudaHostAlloc"]
    backend.infer(feeds)
    assert cudart.calls["cudaHostAlloc"] == allocated
    backend.close()
    for call in (
        lambda: backend.input_buffer("image", (1, 48, 64, 3)),
        lambda: backend.infer(feeds),
    ):
        with pytest.raises(BackendError, match="closed"):
            call()
    assert np.isfinite(answer).all()
    del answer, buffer
    gc.collect()
    assert not cudart.memory


def test_the_perceiver_resizes_into_the_memory_of_the_runtime(
    red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cudart = pretend_tensorrt(monkeypatch)
    with Perceiver.load(red, backend="tensorrt") as perceiver:
        taken = []
        infer = perceiver.backend.infer

        def watched(feeds: dict[str, np.ndarray], names: object) -> dict[str, np.ndarray]:
            taken.append(feeds["image"].ctypes.data in cudart.memory)
            return infer(feeds, names)  # type: ignore[arg-type]

        monkeypatch.setattr(perceiver.backend, "infer", watched)
        image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
        assert perceiver(image).depth is not None
    assert taken == [True]


def test_every_thread_uses_the_gpu_it_was_opened_on(
    red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread's GPU is at first number 0, and a node loads in another one than it answers in."""
    cudart = pretend_tensorrt(monkeypatch)
    backend = open_backend("tensorrt", red, device="cuda:1")
    cudart.device = 0
    worker = threading.Thread(target=lambda: backend.infer(feeds_of(1)))
    worker.start()
    worker.join()
    assert cudart.device == 1


def test_several_cameras_are_one_batch(red: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cudart = pretend_tensorrt(monkeypatch)
    frames = [Frame(np.full((48, 64, 3), shade, np.uint8)) for shade in (10, 90, 170, 250)]
    with Perceiver.load(red, backend="tensorrt", batch=4) as perceiver:
        assert not perceiver.selection.note
        perceiver.perceive(frames)
        launched = cudart.calls["cudaGraphLaunch"]
        together = [each.depth for each in perceiver.perceive(frames)]
        assert cudart.calls["cudaGraphLaunch"] == launched + 1
        alone = [perceiver.perceive([frame])[0].depth for frame in frames]
    for one, other in zip(together, alone, strict=True):
        assert one is not None
        assert other is not None
        np.testing.assert_allclose(one.metres(), other.metres(), rtol=1e-6)


def test_an_engine_for_fewer_images_runs_in_parts_and_a_better_one_is_wanted(
    red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_tensorrt(monkeypatch)
    model = find_model(red)
    select_backend(model, backend="tensorrt")[0].close()
    backend, _, selection = select_backend(
        model, backend="tensorrt", batch=4, engine_build="background"
    )
    assert "runs 1 of 4 images at once" in selection.summary()
    (missing,) = selection.missing
    assert (missing.batch, missing.key.profile) == (4, "batch 1..4")
    feeds = feeds_of(4)
    np.testing.assert_allclose(backend.infer(feeds)["depth"], expected_depth(feeds), rtol=1e-5)
    backend.close()
    store_engine(missing.key, b"4\n" + red.read_bytes())
    backend, _, selection = select_backend(
        model, backend="tensorrt", batch=4, engine_build="background"
    )
    assert not selection.missing
    assert not selection.note
    backend.close()
    for build in ("block", "never"):
        assert not select_backend(model, backend="tensorrt", batch=8, engine_build=build)[2].missing


def test_what_the_gpu_cannot_capture_is_run_step_by_step_and_said(
    red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cudart = pretend_tensorrt(monkeypatch)
    cudart._cudaStreamBeginCapture = lambda *_: 900  # cudaErrorStreamCaptureUnsupported
    backend, _, selection = select_backend(find_model(red), backend="tensorrt")
    assert "runs without a CUDA graph: cudaStreamBeginCapture failed" in selection.summary()
    feeds = feeds_of(2)
    np.testing.assert_allclose(backend.infer(feeds)["depth"], expected_depth(feeds), rtol=1e-5)
    backend.close()


def test_a_graph_that_fails_after_the_load_is_said_too(
    red: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At most starts the check of the engine is remembered: nothing has run when it is loaded."""
    cudart = pretend_tensorrt(monkeypatch)
    Perceiver.load(red, backend="tensorrt").close()
    cudart._cudaStreamBeginCapture = lambda *_: 900  # cudaErrorStreamCaptureUnsupported
    with Perceiver.load(red, backend="tensorrt") as perceiver:
        assert not perceiver.selection.note
        perceiver(np.zeros((48, 64, 3), np.uint8))
        said = "runs without a CUDA graph: cudaStreamBeginCapture failed"
        assert f"slower than it could be: {said}" in perceiver.selection.summary()
        assert caplog.text.count(said) == 1


def test_an_engine_is_read_once_at_a_start(red: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_tensorrt(monkeypatch)
    model = find_model(red)
    select_backend(model, backend="tensorrt")[0].close()
    read = []
    real = engine_cache._read
    monkeypatch.setattr(engine_cache, "_read", lambda path: read.append(path) or real(path))
    select_backend(model, backend="tensorrt", engine_build="background")[0].close()
    assert len(read) == 1


def test_timings_of_one_precision_are_not_another_s(
    red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []
    monkeypatch.setattr(
        engine_module,
        "build_engine",
        lambda *_, timing_cache, **__: kept.append(timing_cache) or b"1",
    )
    trt = SimpleNamespace(__version__="8.6.1")
    for precision in ("fp16", "int8"):
        write_red_artefact(red, precision=precision)
        file = OnnxFile.read(red)
        options = TensorRtOptions()
        engine_module.compile_engine(file, "tensorrt", trt, options, GPU)
        assert engine_key(file, "tensorrt", trt, options, GPU).path.is_file()
    assert len({path.name for path in kept}) == 2
