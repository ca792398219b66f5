"""ONNX Runtime's TensorRT provider: what it is told, and where its engine is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dense_perception import cli
from dense_perception.backends import engine_cache, select
from dense_perception.backends import onnxruntime as ort_module
from dense_perception.backends import onnxruntime_tensorrt as provider_module
from dense_perception.backends.engine_cache import Engine, failed_build, find_engine
from dense_perception.backends.onnxruntime import OnnxRuntimeBackend
from dense_perception.backends.onnxruntime_tensorrt import OnnxRuntimeTensorRtBackend
from dense_perception.backends.opening import installed_backends, open_backend
from dense_perception.core.errors import BackendError, EngineRefusedError
from dense_perception.core.onnx_file import OnnxFile
from test.backends.test_contract import expected_depth, feeds_of
from test.support.artefacts import write_red_artefact
from test.support.models import write_model
from test.support.pretended_cuda import Fault, _Session, pretend_cuda_provider


@pytest.fixture
def red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "red.onnx"
    write_red_artefact(path)
    return path


@pytest.mark.parametrize(
    ("precision", "fp16", "int8"), [("fp32", "0", "0"), ("fp16", "1", "0"), ("int8", "1", "1")]
)
def test_the_engine_is_built_once_as_the_card_asks_and_kept_in_our_cache(
    red: Path, monkeypatch: pytest.MonkeyPatch, precision: str, fp16: str, int8: str
) -> None:
    write_red_artefact(red, precision=precision)
    seen = pretend_cuda_provider(monkeypatch, tensorrt=101300)
    missing = OnnxRuntimeTensorRtBackend.engine_key(OnnxFile.read(red), "gpu", 4)
    assert missing is not None
    assert isinstance(find_engine(missing), str)
    assert missing.version.endswith(", TensorRT 101300")
    for _ in range(2):
        backend = open_backend("onnxruntime_tensorrt", red, device="gpu", batch=4)
        feeds = feeds_of(3)
        np.testing.assert_allclose(backend.infer(feeds)["depth"], expected_depth(feeds), rtol=1e-5)
        backend.close()
    assert [each.get("trt_dump_ep_context_model") for each in seen.settings] == ["1", None, None]
    built = seen.settings[0]
    assert (built["trt_fp16_enable"], built["trt_int8_enable"]) == (fp16, int8)
    assert built["trt_profile_max_shapes"] == "image:4x48x64x3,focal_px:4"
    assert built["trt_profile_min_shapes"] == "image:1x48x64x3,focal_px:1"
    assert missing.path.is_file()
    assert isinstance(find_engine(missing), Engine)
    # Nothing of the build is left beside it.
    assert {path.suffix for path in missing.path.parent.iterdir()} == {".engine", ".lock"}


def test_it_is_a_candidate_only_where_tensorrt_has_no_python(
    red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_cuda_provider(monkeypatch, tensorrt=101300)
    assert installed_backends("gpu")[0] == "onnxruntime_tensorrt"
    assert "onnxruntime_tensorrt" not in installed_backends("cpu")
    monkeypatch.setattr(
        "dense_perception.backends.opening.installed_runtimes", lambda: ("tensorrt",)
    )
    assert "onnxruntime_tensorrt" not in installed_backends("gpu")
    pretend_cuda_provider(monkeypatch, tensorrt=0)
    assert "onnxruntime_tensorrt" not in installed_backends("gpu")
    with pytest.raises(BackendError, match=r"needs TensorRT's libraries \(libnvinfer"):
        open_backend("onnxruntime_tensorrt", red, device="gpu")


def test_what_tensorrt_leaves_runs_in_cuda_as_exactly_as_alone(
    red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = pretend_cuda_provider(monkeypatch, tensorrt=101300)
    open_backend("onnxruntime_tensorrt", red, device="cuda:1").close()
    for tensorrt, *others in seen.providers:
        assert (tensorrt[0], tensorrt[1]["device_id"]) == ("TensorrtExecutionProvider", "1")
        assert others == [
            ("CUDAExecutionProvider", {"device_id": "1", "use_tf32": "0"}),
            ("CPUExecutionProvider", {}),
        ]


def test_more_images_than_the_engine_takes_run_in_parts(
    red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_cuda_provider(monkeypatch, tensorrt=101300)
    at_once: list[int] = []
    run = OnnxRuntimeBackend._run

    def counted(
        self: OnnxRuntimeBackend, feeds: Mapping[str, np.ndarray], names: Sequence[str]
    ) -> dict[str, np.ndarray]:
        at_once.append(len(feeds["image"]))
        return run(self, feeds, names)

    monkeypatch.setattr(OnnxRuntimeBackend, "_run", counted)
    backend = open_backend("onnxruntime_tensorrt", red, device="gpu", batch=2)
    feeds = feeds_of(5)
    np.testing.assert_allclose(backend.infer(feeds)["depth"], expected_depth(feeds), rtol=1e-5)
    assert at_once == [2, 2, 1]
    backend.close()


def test_a_failed_build_is_kept_until_compile_tries_it_again(
    red: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fault = Fault("load")
    seen = pretend_cuda_provider(monkeypatch, fault, tensorrt=101300)
    key = OnnxRuntimeTensorRtBackend.engine_key(OnnxFile.read(red), "gpu", 4)
    assert key is not None
    words = ["compile", str(red), "--backend", "onnxruntime_tensorrt", "--max-batch", "4"]
    assert cli.main(words) == 2
    assert "CUDNN_STATUS_NOT_INITIALIZED" in failed_build(key)
    fault.how, tried = "", len(seen.settings)
    with pytest.raises(BackendError, match="fp32 --max-batch 4` tries it again"):
        open_backend("onnxruntime_tensorrt", red, device="gpu", batch=4)
    assert len(seen.settings) == tried
    capsys.readouterr()
    assert cli.main([*words, "--json"]) == 0
    assert failed_build(key) == ""
    (row,) = json.loads(capsys.readouterr().out)
    assert row["runtime"].startswith("onnxruntime_tensorrt ")
    assert (row["device"], row["check"], row["problem"]) == ("gpu", "agrees with ONNX Runtime", "")
    assert row["seconds"] >= 0
    # The one of the batch that was asked for, and no other.
    assert list(key.path.parent.glob("*.engine")) == [key.path]
    assert cli.main(words) == 0
    assert "onnxruntime_tensorrt" in capsys.readouterr().out


def test_compile_goes_on_after_a_precision_that_cannot_be_built(
    red: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend_cuda_provider(monkeypatch, tensorrt=101300)
    card = write_model(red.parent / "models", precisions=("fp32", "fp16", "int8"))
    build = OnnxRuntimeTensorRtBackend._build

    def build_but_fp16(self: object, file: OnnxFile, *rest: Any) -> bytes:
        if "fp16" in file.path.name:
            raise BackendError("no kernel for node 7")
        return build(self, file, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(OnnxRuntimeTensorRtBackend, "_build", build_but_fp16)
    words = ["compile", str(card), "--backend", "onnxruntime_tensorrt"]
    assert cli.main([*words, "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    checks = {row["precision"]: row["check"] for row in rows}
    right = "agrees with ONNX Runtime"
    assert checks == {"fp32": right, "fp16": "not built", "int8": right}
    assert [row["problem"] for row in rows if row["problem"]] == ["no kernel for node 7"]
    assert cli.main(words) == 1
    said = capsys.readouterr()
    assert "no kernel for node 7" in said.out
    assert "Traceback" not in said.err
    # Without its runtime no precision can be built: that is said once, and not for each.
    monkeypatch.setattr(provider_module, "library_version", lambda: 0)
    assert cli.main(words) == 2
    assert capsys.readouterr().err.count("needs TensorRT's libraries") == 1


def test_a_provider_that_does_not_start_is_no_failed_build(
    red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_cuda_provider(monkeypatch, tensorrt=101300)
    key = OnnxRuntimeTensorRtBackend.engine_key(OnnxFile.read(red), "gpu")
    assert key is not None
    with monkeypatch.context() as patch:
        patch.setattr(_Session, "get_providers", lambda self: ["CPUExecutionProvider"])
        with pytest.raises(BackendError, match="could not start TensorrtExecutionProvider"):
            open_backend("onnxruntime_tensorrt", red, device="gpu")
    assert failed_build(key) == ""
    open_backend("onnxruntime_tensorrt", red, device="gpu").close()


def no_disk(*_: object) -> object:
    raise OSError(28, "No space left on device")


def no_gpu(*_: object) -> object:
    raise BackendError("cudaSetDevice failed")


def other_answers(_card: object, _file: object, backend: Any, *_: object) -> None:
    if backend.name == "onnxruntime_tensorrt":
        raise EngineRefusedError("its answers differ")


@pytest.mark.parametrize(
    ("where", "name", "instead", "code", "column", "said"),
    [
        (ort_module, "find_gpu", no_gpu, 0, "note", "copies from and to pageable memory"),
        (engine_cache, "atomic_write", no_disk, 1, "problem", "was not stored"),
        (select, "self_check", other_answers, 1, "problem", "its answers differ"),
    ],
)
def test_compile_fails_for_what_is_refused_or_not_stored_and_notes_what_is_slower(
    where: object,
    name: str,
    instead: object,
    code: int,
    column: str,
    said: str,
    red: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pretend_cuda_provider(monkeypatch, tensorrt=101300)
    monkeypatch.setattr(where, name, instead)
    words = ["compile", str(red), "--backend", "onnxruntime_tensorrt"]
    assert cli.main([*words, "--json"]) == code
    (row,) = json.loads(capsys.readouterr().out)
    assert said in row.pop(column)
    assert said not in json.dumps(row)
    assert cli.main(words) == code
    assert said in capsys.readouterr().out


def test_options_of_compile_that_the_provider_does_not_take(
    red: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend_cuda_provider(monkeypatch, tensorrt=101300)
    words = ["compile", str(red), "--backend", "onnxruntime_tensorrt", "--max-batch"]
    assert cli.main([*words, "4", "--workspace", "64"]) == 2
    assert "got --workspace with --backend onnxruntime_tensorrt" in capsys.readouterr().err
    assert cli.main([*words, "0"]) == 2
    assert "max_batch is 0, expected 1 to 4096" in capsys.readouterr().err
