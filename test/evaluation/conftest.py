"""The red artefact, and a machine that remembers nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from dense_perception.evaluation import bag_truth
from test.support.artefacts import write_red_artefact


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bags are cut into parts of a few frames besides."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(bag_truth, "PART_FRAMES", 8)


@pytest.fixture
def model(tmp_path: Path) -> str:
    """Its file."""
    path = tmp_path / "red_depth.onnx"
    write_red_artefact(path)
    return str(path)
