"""A stored engine that cannot be used is as missing as none: who waits for another is asked first.

The GPU and its runtimes are pretended; the cache is real.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest

from dense_perception import cli
from dense_perception.backends import device as device_module
from dense_perception.backends import engine_cache
from dense_perception.backends import onnxruntime_tensorrt as provider_module
from dense_perception.backends.engine_cache import (
    Engine,
    EngineKey,
    compile_command,
    failed_build,
    find_engine,
    obtain_engine_once,
    remember_failure,
    store_engine,
)
from dense_perception.backends.nvidia import backend as backend_module
from dense_perception.backends.nvidia import engine as engine_module
from dense_perception.backends.nvidia import module
from dense_perception.backends.nvidia.build import _save_timings
from dense_perception.backends.opening import backend_class
from dense_perception.backends.select import select_backend
from dense_perception.core.errors import ArtefactError, BackendError, UnavailableError
from dense_perception.core.onnx_file import OnnxFile
from dense_perception.core.registry import find_model
from test.backends.test_contract import expected_depth, feeds_of
from test.support.artefacts import write_red_artefact
from test.support.pretended_cuda import GPU, Fault, pretend_cuda_provider, pretend_tensorrt

BACKENDS = ("tensorrt", "onnxruntime_tensorrt")


@pytest.fixture
def red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "red.onnx"
    write_red_artefact(path)
    return path


def pretend(name: str, monkeypatch: pytest.MonkeyPatch, fault: Fault | None = None) -> list[object]:
    """A machine with that backend; what is built there."""
    built: list[object] = []
    if name == "tensorrt":
        pretend_tensorrt(monkeypatch, fault)
        monkeypatch.setattr(module, "load_runtime", backend_module.load_runtime)
        place: object = engine_module
        function = "build_engine"
    else:
        pretend_cuda_provider(monkeypatch, fault, tensorrt=101300)
        place, function = provider_module.OnnxRuntimeTensorRtBackend, "_build"
    real: Callable[..., bytes] = getattr(place, function)

    def build(*arguments: object, **options: object) -> bytes:
        built.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(place, function, build)
    return built


def key_of(name: str, red: Path) -> EngineKey:
    key = backend_class(name).engine_key(OnnxFile.read(red), "gpu")
    assert key is not None
    return key


def flipped(key: EngineKey) -> None:
    """One bit in the middle: the length is right, the checksum is not."""
    content = bytearray(key.path.read_bytes())
    content[-100] ^= 4
    key.path.write_bytes(content)


def foreign(key: EngineKey) -> None:
    """Whole, and the runtime does not load it."""
    store_engine(key, b"of another device")


DAMAGES = {"damaged": flipped, "not load": foreign}


@pytest.mark.parametrize("said", DAMAGES)
@pytest.mark.parametrize("name", BACKENDS)
def test_nobody_waits_for_another_unless_asked(
    name: str, said: str, red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = pretend(name, monkeypatch)
    model, key = find_model(red), key_of(name, red)
    select_backend(model, backend=name)[0].close()
    assert len(built) == 1
    DAMAGES[said](key)
    spoiled = key.path.read_bytes()

    backend, _, selection = select_backend(model, backend=name, engine_build="background")
    assert selection.backend in ("onnxruntime", "openvino")  # whichever is faster today
    (missing,) = selection.missing
    assert missing.key == key
    assert said in missing.reason
    backend.close()

    backend, _, selection = select_backend(model, backend=name, engine_build="never")
    assert not selection.missing
    (warning,) = selection.warnings
    assert said in warning
    assert f"engine_build is never: build it with `dense-perception compile {red}" in warning
    backend.close()
    assert len(built) == 1
    assert key.path.read_bytes() == spoiled, "who does not build leaves it to who does"

    backend, _, selection = select_backend(model, backend=name, engine_build="block")
    assert selection.backend == name
    assert len(built) == 2
    feeds = feeds_of(1)
    np.testing.assert_allclose(backend.infer(feeds)["depth"], expected_depth(feeds), rtol=1e-5)
    backend.close()
    assert not select_backend(model, backend=name, engine_build="background")[2].missing
    assert len(built) == 2


@pytest.mark.parametrize("build", ["never", "block"])
def test_of_several_engines_the_one_that_loads_is_taken_and_the_other_is_named(
    build: str, red: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    built = pretend("tensorrt", monkeypatch)
    model = find_model(red)
    select_backend(model, backend="tensorrt", batch=2)[0].close()
    other = key_of("tensorrt", red)
    foreign(other)
    backend, _, selection = select_backend(model, backend="tensorrt", engine_build=build)
    assert selection.backend == "tensorrt"
    assert len(built) == 1
    assert caplog.text.count(f"does not load {other.path.name}") == 1
    backend.close()


@pytest.mark.parametrize("name", BACKENDS)
def test_what_is_deleted_as_it_does_not_load_is_said_once(
    name: str, red: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pretend(name, monkeypatch)
    key = key_of(name, red)
    foreign(key)
    backend, _, _ = select_backend(find_model(red), backend=name)
    assert caplog.text.count(f"does not load {key.path.name}") == 1
    assert "no engine of this graph" not in backend.description
    backend.close()


def test_an_engine_that_does_not_open_leaves_no_stream(
    red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cudart = pretend_tensorrt(monkeypatch)
    monkeypatch.setattr(
        backend_module.TensorRtBackend, "_largest_batch", MagicMock(side_effect=RuntimeError)
    )
    with pytest.raises(RuntimeError):
        backend_module.TensorRtBackend(OnnxFile.read(red))
    assert cudart.calls["cudaStreamCreateWithFlags"] == cudart.calls["cudaStreamDestroy"] == 1


@pytest.mark.parametrize("name", BACKENDS)
def test_what_does_not_load_right_after_its_build_is_not_built_at_each_start(
    name: str, red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, key = pretend(name, monkeypatch), None
    for place in (engine_module, provider_module):
        monkeypatch.setattr(
            place, "obtain_engine_once", lambda key, *_, **__: Engine(key, b"x", "", True, "")
        )
    key = key_of(name, red)
    with pytest.raises(BackendError, match=r"does not load .* though it was built just now"):
        select_backend(find_model(red), backend=name)
    assert "does not load" in failed_build(key)
    _, _, selection = select_backend(find_model(red), backend=name, engine_build="background")
    assert not selection.missing
    assert any("could not be built" in each for each in selection.warnings)
    assert not built


KEY = EngineKey("a" * 64, "tensorrt", "10.3", "Orin", "fp16", "batch 1..1")


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (BackendError("no kernel"), True),
        (RuntimeError("assertion in the builder"), True),
        (UnavailableError("libnvinfer is missing"), False),
        (ArtefactError("the file changed meanwhile"), False),
        (OSError(28, "No space left on device", "/tmp/context.onnx"), False),
    ],
)
def test_only_failures_of_the_build_itself_are_remembered(
    error: Exception, kept: bool, red: Path
) -> None:
    tried: list[int] = []

    def build() -> bytes:
        tried.append(1)
        raise error

    for _ in range(2):
        with pytest.raises(Exception, match=getattr(error, "strerror", None) or str(error)):
            obtain_engine_once(KEY, build, retry="`compile`")
    assert len(tried) == (1 if kept else 2)
    assert bool(failed_build(KEY)) is kept
    assert obtain_engine_once(KEY, lambda: b"engine", retry="", again=True).built
    assert isinstance(find_engine(KEY), Engine)
    assert failed_build(KEY) == ""


@pytest.mark.parametrize("again", [True, False])
def test_who_waited_for_a_build_that_failed_does_not_repeat_it(
    again: bool, red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes that want one engine: minutes of a build in vain are enough."""
    began, go_on = threading.Event(), threading.Event()

    def fails() -> bytes:
        began.set()
        assert go_on.wait(10)
        raise BackendError("no kernel")

    def never() -> bytes:
        raise AssertionError("it was built a second time")

    with ThreadPoolExecutor() as pool:
        first = pool.submit(obtain_engine_once, KEY, fails, retry="`compile`")
        assert began.wait(10)
        asked = threading.Event()
        for name in ("forget_failure", "failed_build"):
            real = getattr(engine_cache, name)
            monkeypatch.setattr(
                engine_cache, name, lambda key, real=real: (real(key), asked.set())[0]
            )
        second = pool.submit(obtain_engine_once, KEY, never, retry="`compile`", again=again)
        assert asked.wait(10)
        go_on.set()
        with pytest.raises(BackendError, match="no kernel"):
            first.result(10)
        with pytest.raises(BackendError, match="another process has just found: no kernel; `comp"):
            second.result(10)


@pytest.mark.parametrize("name", BACKENDS)
def test_compile_replaces_what_does_not_load_whatever_failed_before(
    name: str, red: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built, key = pretend(name, monkeypatch), key_of(name, red)
    monkeypatch.setattr(device_module, "find_gpu", lambda index=0: GPU)
    foreign(key)
    remember_failure(key, "it did not load")
    assert cli.main(["compile", str(red), "--backend", name, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["check"] == "agrees with ONNX Runtime"
    assert len(built) == 1
    assert select_backend(find_model(red), backend=name, engine_build="never")[2].backend == name


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file where the cache would be: what root, who runs these tests, cannot write either."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))


@pytest.mark.parametrize("name", BACKENDS)
def test_without_a_cache_it_runs_and_says_what_is_not_kept(
    name: str,
    red: Path,
    no_cache: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    built = pretend(name, monkeypatch)
    backend, _, selection = select_backend(find_model(red), backend=name)
    assert (selection.backend, len(built)) == (name, 1)
    assert "was not stored in" in selection.note
    assert "Not a directory; free space there or make it writable" in selection.note
    assert "is not kept in" in caplog.text
    backend.close()
    select_backend(find_model(red), engine_build="background")[0].close()
    assert "the speeds of the backends were not kept in" in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("name", BACKENDS)
def test_compile_builds_what_it_cannot_store_once(
    name: str,
    red: Path,
    no_cache: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    built = pretend(name, monkeypatch)
    monkeypatch.setattr(device_module, "find_gpu", lambda index=0: GPU)
    assert cli.main(["compile", str(red), "--backend", name, "--json"]) == 1
    (row,) = json.loads(capsys.readouterr().out)
    assert "was not stored in" in row["problem"]
    assert not row.get("engine")
    assert len(built) == 1


def test_a_disk_that_is_full_of_half_an_engine_is_no_failed_build(
    red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend("onnxruntime_tensorrt", monkeypatch)
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
        with pytest.raises(UnavailableError, match="is full, so the engine is not whole"):
            select_backend(find_model(red), backend="onnxruntime_tensorrt", device="gpu")
    key = key_of("onnxruntime_tensorrt", red)
    assert not key.path.exists()
    assert failed_build(key) == ""


def test_only_what_free_space_or_rights_mend_is_advised_so(red: Path) -> None:
    def build() -> bytes:
        raise OSError(5, "Input/output error")

    with pytest.raises(UnavailableError, match=r"Input/output error$"):
        obtain_engine_once(KEY, build, retry="")


def test_a_failure_that_is_not_kept_is_said(
    no_cache: None, caplog: pytest.LogCaptureFixture
) -> None:
    remember_failure(KEY, "no kernel")
    (record,) = caplog.records
    assert "each start tries it again" in record.getMessage()


def test_the_command_takes_a_name_as_it_is() -> None:
    command = compile_command("my models/a.onnx", "tensorrt", "fp16").strip("`")
    assert shlex.split(command)[2] == "my models/a.onnx"


def test_what_a_killed_build_left_goes_with_the_next(
    red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend("onnxruntime_tensorrt", monkeypatch)
    store_engine(KEY, b"engine")
    left = KEY.path.parent / "building_left"
    left.mkdir()
    os.utime(left, (0, 0))
    select_backend(find_model(red), backend="onnxruntime_tensorrt")[0].close()
    assert not left.exists()


def test_timings_that_are_not_kept_are_said(
    tmp_path: Path, no_cache: None, caplog: pytest.LogCaptureFixture
) -> None:
    _save_timings(MagicMock(), tmp_path / "file" / "engines" / "timings.cache")
    (record,) = caplog.records
    assert "TensorRT's timings were not kept in" in record.getMessage()
    assert "(Not a directory): later builds take as long" in record.getMessage()
