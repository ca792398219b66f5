"""What comes of an engine that is wrong, fails or is slow: one contract for every backend.

The faults are below our own code: in the session, the request, the execution context, the program.
"""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from dense_perception.backends import select
from dense_perception.backends.engine_cache import store_engine
from dense_perception.backends.nvidia import torch as torch_module
from dense_perception.backends.openvino import OpenVinoBackend
from dense_perception.backends.select import select_backend
from dense_perception.backends.speed import measure_ms
from dense_perception.core.errors import BackendError
from dense_perception.core.onnx_file import OnnxFile
from dense_perception.core.registry import Model, find_model
from dense_perception.runtime.perceiver import Perceiver
from test.backends.test_contract import expected_depth, feeds_of
from test.support.artefacts import write_red_artefact
from test.support.pretended_cuda import (
    GPU,
    Fault,
    pretend_cuda_provider,
    pretend_gpu,
    pretend_tensorrt,
)


@pytest.fixture
def red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "red.onnx"
    write_red_artefact(path)
    return path


class FaultContract:
    """``name`` runs on ``place`` by itself; ``can_move``: whether it also runs on the CPU."""

    name: str
    place = "gpu"

    @pytest.fixture
    def fault(self, red: Path, monkeypatch: pytest.MonkeyPatch) -> Fault:
        # On a busy machine the first candidate alone may take as long as all have.
        monkeypatch.setattr(select, "BUDGET_S", 60.0)
        fault = Fault()
        self.pretend(monkeypatch, fault, red)
        return fault

    @pytest.fixture
    def model(self, red: Path, fault: Fault) -> Model:
        return find_model(red)

    def pretend(self, monkeypatch: pytest.MonkeyPatch, fault: Fault, red: Path) -> None:
        raise NotImplementedError

    def test_a_right_one_is_taken(self, model: Model) -> None:
        backend, _, selection = select_backend(model, backend=self.name)
        assert (selection.backend, selection.device) == (self.name, self.place)
        assert not selection.warnings
        feeds = feeds_of(2)
        np.testing.assert_allclose(backend.infer(feeds)["depth"], expected_depth(feeds), rtol=1e-5)
        backend.close()

    @pytest.mark.parametrize(
        ("how", "words"),
        [
            ("wrong", "differs from ONNX Runtime by"),
            ("nan", "by inf of the range"),
            ("shape", ""),
            ("infer", "fails on the reference frames of red_depth fp32"),
        ],
    )
    @pytest.mark.parametrize("backend", ["named", "auto"])
    def test_a_wrong_one_is_refused_and_another_answers(
        self, model: Model, fault: Fault, how: str, words: str, backend: str
    ) -> None:
        fault.how = how
        named = self.name if backend == "named" or self.name == "torch_tensorrt" else "auto"
        taken, _, selection = select_backend(model, backend=named)
        assert (selection.backend, selection.device) != (self.name, self.place)
        # ONNX Runtime's providers share the pretended GPU, and its fault.
        warning = selection.warnings[0]
        assert warning.startswith(f"{self.name} ")
        assert all("is refused" in each for each in selection.warnings)
        assert words in warning
        assert "\n" not in warning
        feeds = feeds_of(1)
        np.testing.assert_allclose(taken.infer(feeds)["depth"], expected_depth(feeds), rtol=1e-5)
        taken.close()

    def test_one_that_does_not_load_is_named(self, model: Model, fault: Fault) -> None:
        fault.how = "load"
        with pytest.raises(BackendError) as caught:
            select_backend(model, backend=self.name, device=self.place)
        assert self.name in str(caught.value)
        assert "\n" not in str(caught.value)
        if self.name != "torch_tensorrt":  # which auto never takes
            taken, _, selection = select_backend(model)
            assert (selection.backend, selection.device) != (self.name, self.place)
            said = f"{selection.summary()} {selection.warnings}"
            assert self.name in said
            taken.close()

    @pytest.mark.parametrize("how", ["infer", "lost"])
    def test_one_that_fails_as_it_runs_can_be_replaced(
        self, model: Model, fault: Fault, how: str
    ) -> None:
        image = np.full((48, 64, 3), 100, np.uint8)
        perceiver = Perceiver.load(model.source, backend=self.name)
        first = perceiver(image).depth
        assert first is not None
        fault.how, fault.after = how, fault.runs
        for count in (1, 2):
            with pytest.raises(BackendError) as caught:
                perceiver(image)
            assert "\n" not in str(caught.value)
            assert (perceiver.failures, perceiver.last_failure) == (count, str(caught.value))
        broken = {(self.name, self.place): perceiver.last_failure}
        with Perceiver.load(model.source, backend=self.name, broken=broken) as other:
            assert (other.selection.backend, other.selection.device) != (self.name, self.place)
            warning = other.selection.warnings[0]
            assert f"{self.name} on {self.place} failed again and again" in warning
            second = other(image).depth
        assert second is not None
        np.testing.assert_allclose(second.metres(), first.metres(), rtol=1e-5)
        fault.how = ""
        perceiver(image)
        assert perceiver.failures == 0
        fault.how, fault.after = how, 0
        perceiver.close()
        perceiver.close()

    def test_a_slow_one_is_measured_as_slow(self, model: Model, fault: Fault) -> None:
        backend, card, _ = select_backend(model, backend=self.name)
        fault.how, fault.after = "slow", fault.runs
        assert measure_ms(backend, card, seconds=0.0) > 25
        backend.close()


class TestOnnxRuntimeCuda(FaultContract):
    name = "onnxruntime"

    def pretend(self, monkeypatch: pytest.MonkeyPatch, fault: Fault, red: Path) -> None:
        pretend_cuda_provider(monkeypatch, fault)


class TestOnnxRuntimeTensorRt(FaultContract):
    """Its engine is built anew in each test, where a fault of loading is one of building."""

    name = "onnxruntime_tensorrt"

    def pretend(self, monkeypatch: pytest.MonkeyPatch, fault: Fault, red: Path) -> None:
        pretend_cuda_provider(monkeypatch, fault, tensorrt=101300)


class TestTensorRt(FaultContract):
    name = "tensorrt"
    runtime = "tensorrt"

    def pretend(self, monkeypatch: pytest.MonkeyPatch, fault: Fault, red: Path) -> None:
        pretend_tensorrt(monkeypatch, fault, runtime=self.runtime)


class TestTensorRtRtx(TestTensorRt):
    runtime = "tensorrt_rtx"


class TestOpenVino(FaultContract):
    name = "openvino"
    place = "cpu"

    def pretend(self, monkeypatch: pytest.MonkeyPatch, fault: Fault, red: Path) -> None:
        compile_it = OpenVinoBackend._compile_cached

        def compiled(backend: OpenVinoBackend, *arguments: Any) -> Any:
            if fault.how == "load":
                raise RuntimeError("no kernel for node 7")
            real = compile_it(backend, *arguments)

            def infer(feeds: Any, **options: Any) -> list[np.ndarray]:
                results = request.infer(feeds, **options)
                answers = {spec.name: results[i] for i, spec in enumerate(backend.outputs)}
                spoiled = fault.spoil(answers)
                if fault.is_lost:
                    raise RuntimeError("the device is gone")
                return list(spoiled.values())

            request = real.create_infer_request()
            return SimpleNamespace(create_infer_request=lambda: SimpleNamespace(infer=infer))

        monkeypatch.setattr(OpenVinoBackend, "_compile_cached", compiled)


class _Tensor:
    """As much of a PyTorch tensor as a program is handed and gives."""

    def __init__(self, array: np.ndarray, device: str = "") -> None:
        self.array = array

    def cpu(self) -> _Tensor:
        return self

    def numpy(self) -> np.ndarray:
        return self.array


class TestTorchTensorRt(FaultContract):
    name = "torch_tensorrt"

    def pretend(self, monkeypatch: pytest.MonkeyPatch, fault: Fault, red: Path) -> None:
        def load(stream: io.BytesIO) -> Any:
            if fault.how == "load":
                raise RuntimeError("expected a newer torch")
            session = onnxruntime.InferenceSession(
                stream.read(), providers=["CPUExecutionProvider"]
            )
            names = [node.name for node in session.get_inputs()]
            outputs = [node.name for node in session.get_outputs()]

            def program(*tensors: _Tensor) -> tuple[_Tensor, ...]:
                feeds = {name: each.array for name, each in zip(names, tensors, strict=True)}
                values = session.run(outputs, feeds)
                spoiled = fault.spoil(dict(zip(outputs, values, strict=True)))
                if fault.is_lost:
                    raise RuntimeError("CUDA error: an illegal memory access was encountered")
                return tuple(map(_Tensor, spoiled.values()))

            return SimpleNamespace(module=lambda: program)

        torch = SimpleNamespace(
            __version__="2.9",
            export=SimpleNamespace(load=load),
            no_grad=contextlib.nullcontext,
            tensor=_Tensor,
            cuda=SimpleNamespace(device=lambda index: contextlib.nullcontext()),
        )
        runtime = SimpleNamespace(__version__="2.9")
        pretend_gpu(monkeypatch, fault)
        monkeypatch.setitem(sys.modules, "torch", torch)  # type: ignore[arg-type]
        monkeypatch.setattr(torch_module, "load_modules", lambda: (torch, runtime))
        monkeypatch.setattr(torch_module, "find_gpu", lambda index=0: GPU)
        versions = torch_module.versions(torch, runtime)
        key = torch_module.program_key(OnnxFile.read(red), versions, str(GPU), "fp32")
        store_engine(key, red.read_bytes())
