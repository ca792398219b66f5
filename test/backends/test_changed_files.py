"""A model file that changes: what is hashed is what runs, whatever the file system says."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from dense_perception.backends.engine_cache import engines_dir, stored_keys
from dense_perception.backends.nvidia.build import TensorRtOptions
from dense_perception.backends.nvidia.engine import engine_key
from dense_perception.backends.opening import open_backend
from dense_perception.backends.select import select_backend
from dense_perception.core import onnx_file
from dense_perception.core.errors import ArtefactError, BackendError
from dense_perception.core.onnx_file import OnnxFile
from dense_perception.core.registry import find_model
from test.support.artefacts import write_red_artefact
from test.support.models import write_model

RED = {"image": np.full((1, 48, 64, 3), 255, np.uint8), "focal_px": np.array([64], np.float32)}
"""Depth is 10 m: 1 m and the gain of 9/255 for each step of red."""
RUNTIMES = ["onnxruntime", "openvino"]


@pytest.fixture(params=["in memory", "large"])
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Small files are read whole; large ones stay open and are loaded by their descriptor."""
    if request.param == "large":
        monkeypatch.setattr(onnx_file, "_LARGE", 0)
    return str(request.param)


both = pytest.mark.usefixtures("size")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def red(tmp_path: Path) -> Path:
    path = tmp_path / "red.onnx"
    write_red_artefact(path)
    return path


def change_secretly(path: Path, gain: float = 18 / 255) -> None:
    """Another gain in the graph; the size and the modification time stay."""
    status, content = path.stat(), path.read_bytes()
    old = np.float32(9 / 255).tobytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, np.float32(gain).tobytes()))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (status.st_size, status.st_mtime_ns)


def answer(path: Path | OnnxFile, name: str) -> tuple[float, str]:
    backend = open_backend(name, path)
    try:
        return float(backend.infer(RED)["depth"].mean()), backend.identity
    finally:
        backend.close()


@both
@pytest.mark.parametrize("name", RUNTIMES)
def test_the_changed_file_answers_not_the_old_engine(red: Path, name: str) -> None:
    first, first_engine = answer(red, name)
    assert first == pytest.approx(10)
    change_secretly(red)
    second, second_engine = answer(red, name)
    assert second == pytest.approx(19)
    if name == "openvino":
        assert first_engine != second_engine
        assert len({key.graph for key in stored_keys(runtime="openvino")}) == 2
        change_secretly_back(red)
        assert answer(red, name) == (pytest.approx(10), first_engine)


def change_secretly_back(path: Path) -> None:
    content = path.read_bytes()
    old, new = np.float32(18 / 255).tobytes(), np.float32(9 / 255).tobytes()
    path.write_bytes(content.replace(old, new))


@both
def test_a_changed_file_of_a_card_is_refused_by_name(tmp_path: Path) -> None:
    model = find_model(write_model(tmp_path / "models"))
    for name in RUNTIMES:
        select_backend(model, backend=name)[0].close()
    path = tmp_path / "models/red_depth_fp32.onnx"
    change_secretly(path)
    for name in ("auto", *RUNTIMES):
        with pytest.raises(ArtefactError, match=r"red_depth_fp32\.onnx has SHA-256 .* its card"):
            select_backend(model, backend=name)
    with pytest.raises(ArtefactError, match=r"red_depth_fp32\.onnx has SHA-256"):
        model.artefact("fp32")


@both
def test_no_memory_of_hashes_is_believed(tmp_path: Path) -> None:
    """Earlier versions kept hashes by path, size and time in the cache folder."""
    model = find_model(write_model(tmp_path / "models"))
    path = tmp_path / "models/red_depth_fp32.onnx"
    described = yaml.safe_load((tmp_path / "models/red_depth.yaml").read_text())["files"]["fp32"]
    change_secretly(path)
    status = path.stat()
    memory = tmp_path / "cache/dense_perception/hashes.json"
    memory.parent.mkdir(parents=True)
    key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
    memory.write_text(f'{{"{key}": "{described["sha256"]}"}}')
    with pytest.raises(ArtefactError, match="its card says"):
        model.artefact("fp32")


@pytest.mark.parametrize("name", RUNTIMES)
def test_what_was_read_runs_although_the_file_is_another_by_now(red: Path, name: str) -> None:
    file = OnnxFile.read(red)
    change_secretly(red)
    backend = open_backend(name, file)
    assert backend.infer(RED)["depth"].mean() == pytest.approx(10)
    assert all(key.graph == file.sha256 for key in stored_keys())


@both
def test_another_batch_size_of_a_changed_file_is_refused(red: Path) -> None:
    backend = open_backend("openvino", red)
    change_secretly(red)
    two = {name: np.concatenate([array, array]) for name, array in RED.items()}
    with pytest.raises(BackendError, match=r"red\.onnx has changed since it was loaded"):
        backend.infer(two)
    assert backend.infer(RED)["depth"].mean() == pytest.approx(10), "the loaded one goes on"
    red.unlink()
    with pytest.raises(BackendError, match=r"cannot read the model file .*red\.onnx"):
        backend.infer(two)


@pytest.mark.parametrize("name", RUNTIMES)
def test_an_open_backend_does_not_hold_the_files_bytes(red: Path, name: str) -> None:
    file = OnnxFile.read(red)
    before = sys.getrefcount(file.source)
    backend = open_backend(name, file)
    after = sys.getrefcount(file.source)  # not in the assertion, which pytest takes apart
    assert after == before
    backend.close()


@both
def test_a_changed_file_has_another_tensorrt_engine(red: Path) -> None:
    class Runtime:
        __version__ = "10.3.0"

    options = TensorRtOptions(compute_capability="8.6")
    before = engine_key(OnnxFile.read(red), "tensorrt", Runtime, options, None)
    change_secretly(red)
    after = engine_key(OnnxFile.read(red), "tensorrt", Runtime, options, None)
    assert before.path != after.path
    assert before.path.parent == engines_dir()


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_large_file_that_is_replaced_runs_as_it_was_hashed(
    red: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "_LARGE", 0)
    file = OnnxFile.read(red)
    other = red.with_name("other.onnx")
    other.write_bytes(red.read_bytes())
    change_secretly(other)
    os.replace(other, red)
    assert answer(file, name)[0] == pytest.approx(10)
    assert answer(red, name)[0] == pytest.approx(19)


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_large_file_that_is_written_to_meanwhile_is_refused(
    red: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "_LARGE", 0)
    file = OnnxFile.read(red)
    change_secretly(red)
    with pytest.raises(BackendError, match=r"red\.onnx has changed while it was loaded"):
        open_backend(name, file)
    assert not list(stored_keys())


def test_the_descriptor_of_a_large_file_is_closed(
    red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "_LARGE", 0)
    file = OnnxFile.read(red)
    small = red.read_bytes()
    with file.open() as stream:
        assert stream.read() == small
    name = Path(str(file.source))
    assert name.exists()
    del file
    gc.collect()
    assert not name.exists()
