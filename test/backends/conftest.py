"""Backends whose speed a test sets, and a model of two precisions."""

from __future__ import annotations

from pathlib import Path

import pytest

from dense_perception.core.registry import Model, find_model
from test.support.bench import Bench
from test.support.models import write_model


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return find_model(write_model(tmp_path / "models", precisions=("fp32", "int8")))
