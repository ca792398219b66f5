"""Who lacks an engine is told the very command that makes it: typed as it stands, it cures.

The GPU, its DLA and its runtimes are pretended; the cache and ``compile`` are real.
"""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import pytest

from dense_perception import cli
from dense_perception.backends.engine_cache import compile_command, failed_build, remember_failure
from dense_perception.backends.nvidia import backend as backend_module
from dense_perception.backends.nvidia import module
from dense_perception.backends.opening import backend_class, installed_backends
from dense_perception.backends.select import select_backend
from dense_perception.backends.selection import Selection
from dense_perception.core.errors import BackendError, UnavailableError
from dense_perception.core.onnx_file import OnnxFile
from dense_perception.core.registry import find_model
from test.support.artefacts import write_red_artefact
from test.support.pretended_cuda import JETSON, pretend_cuda_provider, pretend_tensorrt

TENSORRT, PROVIDER = "tensorrt", "onnxruntime_tensorrt"
GPUS = ("auto", "gpu", "cuda", "cuda:1")
# What is installed, what is asked for, and where. A DLA is known to TensorRT's own module alone.
TABLE = [
    *itertools.product([TENSORRT], ["auto", TENSORRT], [*GPUS, "dla:0"]),
    *itertools.product([PROVIDER], ["auto", PROVIDER], GPUS),
]


@pytest.fixture
def red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "my red.onnx"
    write_red_artefact(path, precision="fp16")
    return path


def install(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Jetson with that runtime and a DLA core."""
    if runtime == PROVIDER:
        pretend_cuda_provider(monkeypatch, gpu=JETSON, tensorrt=101300)
        return
    pretend_tensorrt(monkeypatch, gpu=JETSON)
    monkeypatch.setattr(module, "load_runtime", backend_module.load_runtime)
    _, trt = backend_module.load_runtime()
    trt.Runtime.num_DLA_cores = 1


def select(red: Path, backend: str, device: str, build: str, batch: int = 1) -> Selection:
    opened, _, selection = select_backend(
        find_model(red), backend=backend, device=device, engine_build=build, batch=batch
    )
    opened.close()
    return selection


def told(red: Path, backend: str, device: str, build: str) -> str:
    """What somebody reads: the error, or the warnings of what runs instead."""
    try:
        return "; ".join(select(red, backend, device, build).warnings)
    except BackendError as error:
        return str(error)


def type_in(command: str) -> None:
    words = shlex.split(command.strip("`"))
    assert words[:2] == ["dense-perception", "compile"]
    assert cli.main(words[1:]) == 0


@pytest.mark.parametrize(("runtime", "backend", "device"), TABLE)
def test_the_command_that_is_named_makes_the_engine(
    runtime: str, backend: str, device: str, red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(runtime, monkeypatch)
    (missing,) = select(red, backend, device, "background").missing
    text = told(red, backend, device, "never")
    assert "engine_build is never" in text
    command = re.search(r"`[^`]*`$", text)
    assert command is not None, text
    where = "" if device in ("auto", "gpu", "cuda") else f" --device {device}"
    options = f"--backend {runtime} --precision fp16{where}"
    assert command[0] == f"`dense-perception compile '{red}' {options}`"
    assert command[0] == compile_command(str(red), runtime, "fp16", device=missing.device)
    type_in(command[0])
    for build in ("never", "background", "block"):
        selection = select(red, backend, device, build)
        assert selection.backend in (runtime, "onnxruntime")  # the latter may be faster, if auto
        assert backend == "auto" or selection.backend == runtime
        assert (selection.missing, selection.warnings) == ((), ())


@pytest.mark.parametrize(("runtime", "backend", "device"), TABLE)
def test_what_failed_before_is_tried_again_by_the_command_that_is_named(
    runtime: str, backend: str, device: str, red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(runtime, monkeypatch)
    place = "gpu" if device == "auto" else device
    key = backend_class(runtime).engine_key(OnnxFile.read(red), place)
    assert key is not None
    remember_failure(key, "no kernel")
    command = compile_command(str(red), runtime, "fp16", device=device)
    for build in ("background", "never"):
        text = told(red, backend, device, build)
        assert "no kernel" in text
        assert text.endswith(f"unless by {command}"), text
    type_in(command)
    assert not failed_build(key)
    assert told(red, backend, device, "never") == ""


@pytest.mark.parametrize("build", ["block", "never"])
def test_an_engine_for_fewer_images_names_the_command_for_more(
    build: str, red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(TENSORRT, monkeypatch)
    type_in(compile_command(str(red), TENSORRT, "fp16"))
    note = select(red, TENSORRT, "gpu", build, batch=4).note
    command = compile_command(str(red), TENSORRT, "fp16", 4)
    said = f"runs 1 of 4 images at once, for which its engine was built: build one with {command}"
    assert note.endswith(said)
    type_in(command)
    assert select(red, TENSORRT, "gpu", build, batch=4).note == ""


@pytest.mark.parametrize("build", ["block", "background", "never"])
def test_no_engine_is_asked_for_on_a_cpu(
    build: str, red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(TENSORRT, monkeypatch)
    selection = select(red, "auto", "cpu", build)
    assert (selection.device, selection.missing, selection.warnings) == ("cpu", (), ())
    with pytest.raises(BackendError, match=r"runs on gpu, cuda:N or dla:N, not on a cpu: set"):
        select(red, TENSORRT, "cpu", build)


@pytest.mark.parametrize(
    ("device", "cure"), [("cuda:0", "onnxruntime-gpu"), ("cpu", "onnxruntime or openvino")]
)
def test_where_nothing_is_installed_packages_are_named(
    device: str, cure: str, red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO may be there and is of no use on CUDA; none of our own names is a package."""
    monkeypatch.setattr("dense_perception.backends.select.installed_backends", lambda device: ())
    with pytest.raises(BackendError, match=f"no backend .* on {device} .*: pip install {cure}$"):
        select(red, "auto", device, "background")


def test_only_who_knows_a_device_is_tried_there(red: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as without:
        without.setattr("dense_perception.backends.opening.installed_runtimes", tuple)
        assert "openvino" not in installed_backends("cuda:0")
        assert installed_backends("dla:0") == (TENSORRT,)
    for backend, cure in (("onnxruntime", "the backend tensorrt"), ("openvino", "another backend")):
        with pytest.raises(UnavailableError, match=cure):
            select(red, backend, "dla:0", "background")
