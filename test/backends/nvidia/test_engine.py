"""Up to the device: which engine fits, what is refused, what the verb says."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from dense_perception import cli
from dense_perception.backends import device as device_module
from dense_perception.backends.device import Gpu, find_gpu, parse_device
from dense_perception.backends.engine_cache import (
    Engine,
    EngineKey,
    engines_dir,
    failed_build,
    store_engine,
)
from dense_perception.backends.nvidia import backend as backend_module
from dense_perception.backends.nvidia import build as build_module
from dense_perception.backends.nvidia import module
from dense_perception.backends.nvidia.build import TensorRtOptions
from dense_perception.backends.nvidia.engine import (
    compile_engine,
    engine_key,
    fits,
    fp8_refusal,
    missing_engine,
    stored_engines,
)
from dense_perception.backends.opening import installed_backends, open_backend
from dense_perception.backends.select import select_backend
from dense_perception.core.errors import BackendError, UnavailableError
from dense_perception.core.onnx_file import OnnxFile
from dense_perception.core.registry import find_model
from dense_perception.export import compile as compile_module
from test.support.artefacts import write_red_artefact

GPU = Gpu("RTX 4090", "8.9", "12.6")
TRT = SimpleNamespace(__version__="10.3.0")


@pytest.fixture
def red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OnnxFile:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "red.onnx"
    write_red_artefact(path)
    return OnnxFile.read(path)


@pytest.fixture
def red8(red: OnnxFile) -> OnnxFile:
    """A file that says it is fp8."""
    write_red_artefact(red.path, precision="fp8")
    return OnnxFile.read(red.path)


@pytest.mark.parametrize(
    ("options", "other", "version", "expected"),
    [
        ({}, GPU, "10.3.0", True),
        ({}, replace(GPU, driver="13.0"), "10.3.0", False),
        ({}, replace(GPU, name="RTX 4080"), "10.3.0", False),
        ({}, GPU, "10.4.0", False),
        ({"version_compatible": True}, GPU, "10.4.0", True),
        ({"version_compatible": True}, GPU, "11.0.0", False),
        ({"hardware_compatible": "ampere_plus"}, Gpu("A", "8.6", "1"), "10.3.0", True),
        ({"hardware_compatible": "ampere_plus"}, Gpu("A", "7.5", "1"), "10.3.0", False),
        ({"hardware_compatible": "same_compute_capability"}, Gpu("A", "8.9", "1"), "10.3.0", True),
        ({"hardware_compatible": "same_compute_capability"}, Gpu("A", "8.6", "1"), "10.3.0", False),
        ({"compute_capability": "8.6"}, Gpu("A", "8.6", "1"), "10.3.0", True),
        ({"compute_capability": "8.6"}, GPU, "10.3.0", False),
        ({"dla_core": 0}, GPU, "10.3.0", False),
    ],
)
def test_which_engine_fits(
    red: OnnxFile, options: dict[str, object], other: Gpu, version: str, expected: bool
) -> None:
    key = engine_key(red, "tensorrt", TRT, TensorRtOptions(**options), GPU)  # type: ignore[arg-type]
    assert fits(key, SimpleNamespace(__version__=version), other) is expected


def payloads(file: OnnxFile, trt: SimpleNamespace, options: TensorRtOptions) -> list[bytes]:
    """Of the stored engines that may be used, in the order in which they are."""
    found = stored_engines(file, "tensorrt", trt, GPU, options)
    return [each.payload for each in found if isinstance(each, Engine)]


def test_the_fitting_engine_is_taken_whatever_its_batch(red: OnnxFile) -> None:
    key = engine_key(red, "tensorrt", TRT, TensorRtOptions(max_batch=4), GPU)
    store_engine(key, b"engine")
    assert payloads(red, TRT, TensorRtOptions()) == [b"engine"]


def test_what_would_have_to_be_built(red: OnnxFile, red8: OnnxFile) -> None:
    missing = missing_engine(red, "tensorrt", TRT, GPU, TensorRtOptions(), "it is damaged")
    assert missing.key == engine_key(red, "tensorrt", TRT, TensorRtOptions(), GPU)
    assert str(missing) == "it is damaged"
    # Refused at once, so that nobody builds for it.
    with pytest.raises(BackendError, match="fp8 needs compute capability"):
        missing_engine(red8, "tensorrt", TRT, AMPERE, TensorRtOptions(), "")


@pytest.mark.parametrize("damage", ["cut", "longer"])
def test_an_engine_of_another_length_is_missing(red: OnnxFile, damage: str) -> None:
    """Else loading would find it damaged and build it at once, whatever engine_build says."""
    options = TensorRtOptions()
    key = engine_key(red, "tensorrt", TRT, options, GPU)
    store_engine(key, b"engine")
    assert payloads(red, TRT, options) == [b"engine"]
    whole = key.path.read_bytes()
    key.path.write_bytes({"cut": whole[:-1], "longer": whole + b"x"}[damage])
    (problem,) = stored_engines(red, "tensorrt", TRT, GPU, options)
    assert isinstance(problem, str)
    assert "damaged" in problem


def test_of_tensorrt_8_the_form_of_the_graph_decides(
    red: OnnxFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was built of the graph as it was, for want of onnx, gives way to the rewritten."""
    trt, options = SimpleNamespace(__version__="8.6.1"), TensorRtOptions(max_batch=2)

    def key_of(version: SimpleNamespace = trt) -> EngineKey:
        return engine_key(red, "tensorrt", version, options, GPU)

    rewritten = key_of()
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "onnx", None)  # as if it were not installed
        raw = key_of()
        assert key_of(TRT).options == raw.options == ""
        store_engine(raw, b"raw")
        assert payloads(red, trt, options) == [b"raw"]
        assert fits(rewritten, trt, GPU)
    assert key_of(TRT).options == ""
    assert rewritten.options == "opset 17"
    assert not fits(raw, trt, GPU)
    assert fits(key_of(TRT), TRT, GPU)
    assert payloads(red, trt, options) == []
    assert missing_engine(red, "tensorrt", trt, GPU, options, "").key == rewritten
    store_engine(rewritten, b"rewritten")
    assert payloads(red, trt, options) == [b"rewritten"]


def test_a_failed_build_is_not_tried_again_unless_asked(
    red: OnnxFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def build(*_: object, **__: object) -> bytes:
        tried.append(1)
        if len(tried) < 3:
            raise BackendError("no kernel")
        return b"engine"

    monkeypatch.setattr("dense_perception.backends.nvidia.engine.build_engine", build)
    key = engine_key(red, "tensorrt", TRT, TensorRtOptions(), GPU)
    for again in (False, False, True):
        with pytest.raises(BackendError, match="no kernel"):
            compile_engine(red, "tensorrt", TRT, TensorRtOptions(), GPU, again=again)
    assert len(tried) == 2
    with pytest.raises(BackendError, match="--device cuda:1` tries it again"):
        compile_engine(red, "tensorrt", TRT, TensorRtOptions(), GPU, device="cuda:1")
    other = SimpleNamespace(__version__="10.4.0")
    assert compile_engine(red, "tensorrt", other, TensorRtOptions(), GPU).built
    assert failed_build(key)
    assert compile_engine(red, "tensorrt", TRT, TensorRtOptions(), GPU, again=True).built
    assert not failed_build(key)


AMPERE = Gpu("RTX 3090", "8.6", "12.6")
ORIN = Gpu("Orin", "8.7", "12.6")


@pytest.mark.parametrize(
    ("device", "options", "version", "words"),
    [
        (AMPERE, {}, "10.3.0", ["RTX 3090, 8.6", "8.9 or above", "int8 or fp16 file"]),
        (Gpu("Orin", "8.7", "12.6"), {}, "10.3.0", ["Orin, 8.7"]),
        (GPU, {"hardware_compatible": "ampere_plus"}, "10.3.0", ["from compute capability 8.0"]),
        (GPU, {}, "8.6.1", ["TensorRT 10 or above", "8.6.1", "int8 or fp16 file"]),
        (None, {"compute_capability": "8.6"}, "10.3.0", ["GPU of compute capability 8.6"]),
    ],
)
def test_fp8_is_refused_where_it_has_no_arithmetic(
    red8: OnnxFile, device: Gpu | None, options: dict[str, object], version: str, words: list[str]
) -> None:
    trt = SimpleNamespace(__version__=version)
    with pytest.raises(BackendError) as caught:
        compile_engine(red8, "tensorrt", trt, TensorRtOptions(**options), device)  # type: ignore[arg-type]
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("capability", ["8.9", "9.0", "10.0", "12.0"])
def test_fp8_goes_on_from_ada(red8: OnnxFile, capability: str) -> None:
    device, options = Gpu("any", capability, "12.6"), TensorRtOptions()
    assert not fp8_refusal(engine_key(red8, "tensorrt", TRT, options, device), options, TRT, device)


def test_devices() -> None:
    assert parse_device("gpu", "tensorrt", dla=True) == (0, -1)
    assert parse_device("CUDA:1", "tensorrt", dla=True) == (1, -1)
    assert parse_device("dla:1", "tensorrt", dla=True) == (0, 1)
    with pytest.raises(BackendError, match="'abacus'"):
        parse_device("abacus", "tensorrt", dla=True)
    assert "tensorrt" not in installed_backends("cpu")


def test_without_a_gpu_the_reason_is_said(red: OnnxFile) -> None:
    try:
        find_gpu()
    except BackendError as error:
        reason = str(error)
    else:
        pytest.skip("there is a GPU here")
    assert "driver" in reason
    with pytest.raises(BackendError, match="device is 'cpu'"):
        open_backend("tensorrt", red)
    with pytest.raises(BackendError, match="driver"):
        open_backend("tensorrt", red, device="gpu")


def test_compile_verb_builds_once_for_gpus_elsewhere(
    red: OnnxFile, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "compile",
        str(red.path),
        "--backend",
        "tensorrt",
        "--compute-capability",
        "8.6",
        "12.0",
    ]
    for built in (True, False):
        assert cli.main([*words, "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)
        assert [row["built"] for row in rows] == [built, built]
        assert [row["device"][-3:] for row in rows] == ["8.6", "2.0"]
        assert all(Path(row["engine"]).is_file() for row in rows)
    assert cli.main(words) == 0
    assert "at its first load" in capsys.readouterr().out


def test_compile_verb_passes_over_gpus_without_fp8(
    red8: OnnxFile, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "compile",
        str(red8.path),
        "--backend",
        "tensorrt",
        "--compute-capability",
        "8.6",
        "8.9",
    ]
    assert cli.main([*words, "--json"]) == 0
    said = capsys.readouterr()
    (row,) = json.loads(said.out)
    assert row["device"].endswith("8.9")
    assert "passed over: fp8 needs compute capability 8.9" in said.err
    assert cli.main([*words, "--precision", "fp8", "--json"]) == 1
    refused, built = json.loads(capsys.readouterr().out)
    assert refused["check"] == "not built"
    assert "for any GPU of compute capability 8.6" in refused["problem"]
    assert built["device"].endswith("8.9")
    assert not built["problem"]
    assert cli.main([*words[:-1], "--precision", "fp8"]) == 2
    assert "for any GPU of compute capability 8.6" in capsys.readouterr().err


def test_compile_verb_checks_what_runs_here(
    red: OnnxFile, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compile", str(red.path), "--backend", "openvino", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["check"] == "agrees with ONNX Runtime"
    assert cli.main(["compile", str(red.path), "--backend", "openvino", "--precision", "fp16"]) == 2
    assert "no fp16 file" in capsys.readouterr().err


@pytest.mark.parametrize("backend", ["openvino", "torch_tensorrt"])
def test_options_of_tensorrt_are_refused_elsewhere(
    red: OnnxFile, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "compile",
        str(red.path),
        "--backend",
        backend,
        "--max-batch",
        "4",
        "--workspace",
        "64",
    ]
    assert cli.main(words) == 2
    message = capsys.readouterr().err
    assert f"got --max-batch, --workspace with --backend {backend}" in message
    assert "leave them out" in message


DLA = TensorRtOptions(dla_core=0)


@pytest.mark.parametrize(
    ("runtime", "precision", "words"),
    [
        ("tensorrt", "fp32", "a DLA computes fp16 and int8, this file is fp32"),
        ("tensorrt_rtx", "int8", "TensorRT for RTX has no DLA"),
    ],
)
def test_what_would_run_on_the_gpu_alone_is_no_engine_for_a_dla(
    red: OnnxFile, runtime: str, precision: str, words: str
) -> None:
    write_red_artefact(red.path, precision=precision)
    with pytest.raises(BackendError, match=words):
        compile_engine(OnnxFile.read(red.path), runtime, TRT, DLA, Gpu("Orin", "8.7", "12.6"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dla-core", "-3"], "dla_core is -3, expected 0 or more"),
        (["--dla-core", "0", "--max-batch", "2"], "expected 1 for a DLA"),
        (["--dla-core", "1", "--device", "dla:0"], "got --device dla:0 and --dla-core 1"),
        (["--dla-core", "0", "--device", "gpu"], "got --device gpu and --dla-core 0"),
        (["--device", "dla:2"], "got DLA core 2, expected 0 to 1"),
    ],
)
def test_what_a_dla_is_asked_for_is_obeyed_or_refused(
    words: list[str],
    said: str,
    red: OnnxFile,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_red_artefact(red.path, precision="int8")
    pretend_dla(monkeypatch, cores=2)
    assert cli.main(["compile", str(red.path), "--backend", "tensorrt", *words]) == 2
    assert said in capsys.readouterr().err


def pretend_dla(monkeypatch: pytest.MonkeyPatch, cores: int) -> MagicMock:
    """TensorRT whose builder and runtime count so many cores, and an Orin."""
    trt = MagicMock(__version__="10.3.0")
    trt.Builder.return_value.num_DLA_cores = trt.Runtime.return_value.num_DLA_cores = cores
    trt.Builder.return_value.create_network.return_value.num_inputs = 0
    trt.Builder.return_value.build_serialized_network.return_value = b"engine"
    for place in (build_module, module, backend_module):
        monkeypatch.setattr(place, "load_runtime", lambda name=None: ("tensorrt", trt))
    for place in (device_module, backend_module):
        monkeypatch.setattr(place, "find_gpu", lambda index=0: ORIN)
    return trt


def test_an_engine_for_a_dla_is_checked_there(
    red: OnnxFile, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_red_artefact(red.path, precision="int8")
    trt = pretend_dla(monkeypatch, cores=1)
    checked: list[object] = []

    def check(options: object, kind: str, row: dict[str, object]) -> dict[str, object]:
        checked.append(compile_module._device(options))  # type: ignore[arg-type]
        return row

    monkeypatch.setattr(compile_module, "_checked", check)
    words = ["compile", str(red.path), "--backend", "tensorrt", "--dla-core", "0", "--json"]
    assert cli.main(words) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert checked == ["dla:0"]
    config = trt.Builder.return_value.create_builder_config.return_value
    assert (config.DLA_core, config.default_device_type) == (0, trt.DeviceType.DLA)
    assert row["built"]


def test_for_several_cameras_a_dla_builds_for_one_image(
    red: OnnxFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_red_artefact(red.path, precision="int8")
    pretend_dla(monkeypatch, cores=1)
    opened, _, selection = select_backend(
        find_model(red.path), backend="tensorrt", device="dla:0", engine_build="background", batch=2
    )
    opened.close()
    (missing,) = selection.missing
    assert (missing.device, missing.batch) == ("dla:0", 1)


def test_a_stored_engine_that_a_dla_would_leave_to_the_gpu_is_not_loaded(
    red: OnnxFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = pretend_dla(monkeypatch, cores=1)
    store_engine(engine_key(red, "tensorrt", trt, DLA, ORIN), b"engine")
    with pytest.raises(BackendError, match="a DLA computes fp16 and int8, this file is fp32"):
        open_backend("tensorrt", red, device="dla:0")
    trt.Runtime.return_value.deserialize_cuda_engine.assert_not_called()


def test_without_a_dla_nothing_is_built_and_nothing_is_remembered(
    red: OnnxFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_red_artefact(red.path, precision="int8")
    trt, file = pretend_dla(monkeypatch, cores=0), OnnxFile.read(red.path)
    with pytest.raises(UnavailableError, match="TensorRT finds no DLA in this machine"):
        open_backend("tensorrt", file, device="dla:0", build=False)
    with pytest.raises(UnavailableError, match="use --device gpu"):
        open_backend("tensorrt", file, device="dla:0")
    trt.Builder.return_value.build_serialized_network.assert_not_called()
    assert not list(engines_dir().glob("*.failed.json"))
