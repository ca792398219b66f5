"""Backends whose speed a test sets, in place of opening and measuring."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from dense_perception.backends import select
from dense_perception.backends.base import Backend, TensorSpec
from dense_perception.backends.engine_cache import (
    EngineKey,
    EngineMissingError,
)
from dense_perception.core.errors import EngineRefusedError
from dense_perception.core.onnx_file import OnnxFile

FOUR = {
    ("onnxruntime", "fp32"): 40.0,
    ("onnxruntime", "int8"): 30.0,
    ("openvino", "fp32"): 20.0,
    ("openvino", "int8"): 25.0,
}


class FakeBackend(Backend):
    """A graph of the red artefact's shape; its speed is set by the test."""

    inputs = (
        TensorSpec("image", np.dtype(np.uint8), (None, 48, 64, 3)),
        TensorSpec("focal_px", np.dtype(np.float32), (None,)),
    )
    outputs = (TensorSpec("depth", np.dtype(np.float32), (None, 48, 64)),)

    def __init__(self, name: str, file: OnnxFile) -> None:
        self.name = name
        self.precision = file.path.stem.rpartition("_")[2]
        self.description = f"fake {name}"
        self.closed = False

    def _run(self, feeds: object, names: object) -> dict[str, np.ndarray]:
        return {"depth": np.ones((1, 48, 64), np.float32)}

    def close(self) -> None:
        self.closed = True


class Bench:
    """Replaces opening and measuring; ``speeds`` gives milliseconds, or an error to raise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.speeds: dict[tuple[str, str], float | Exception] = {}
        self.opened: list[FakeBackend] = []
        self.measured: list[tuple[str, str]] = []
        monkeypatch.setattr(
            select, "installed_backends", lambda device="cpu": ("onnxruntime", "openvino")
        )
        monkeypatch.setattr(select, "open_backend", self.open)
        monkeypatch.setattr(select, "measure_ms", self.measure)
        self.others = 0.0
        monkeypatch.setattr(select, "OtherWork", lambda: SimpleNamespace(share=self.share))
        monkeypatch.setattr(select, "self_check", self.check)
        self.wrong: set[str] = set()
        self.lacks: dict[str, EngineKey | None] = {}

    def share(self) -> float:
        return self.others

    def open(
        self,
        name: str,
        file: OnnxFile,
        *,
        device: str,
        threads: int,
        batch: int = 1,
        build: bool = True,
    ) -> FakeBackend:
        backend = FakeBackend(name, file)
        key = self.lacks.get(backend.precision) if name == "tensorrt" else None
        if key is not None and not build:
            raise EngineMissingError(key, "net.engine is damaged", batch)
        speed = self.speeds[name, backend.precision]
        if isinstance(speed, Exception):
            raise speed
        self.opened.append(backend)
        return backend

    def check(self, card: object, file: OnnxFile, backend: FakeBackend, identity: str) -> None:
        if backend.name in self.wrong:
            raise EngineRefusedError(f"{backend.name} differs by 0.3")

    def measure(self, backend: FakeBackend, card: object) -> float:
        key = (backend.name, backend.precision)
        self.measured.append(key)
        speed = self.speeds[key]
        assert isinstance(speed, float)
        return speed
