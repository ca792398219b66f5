"""ONNX Runtime's TensorRT provider: what it is told, and where its engine is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dense_perception.backends.onnxruntime_tensorrt import OnnxRuntimeTensorRtBackend
from dense_perception.backends.opening import installed_backends, open_backend
from dense_perception.core.errors import BackendError
from dense_perception.core.onnx_file import OnnxFile
from test.backends.test_contract import expected_depth, feeds_of
from test.support.artefacts import write_red_artefact
from test.support.pretended_cuda import pretend_cuda_provider


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
    missing = OnnxRuntimeTensorRtBackend.missing_engine(OnnxFile.read(red), "gpu", 4)
    assert missing is not None
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
    assert OnnxRuntimeTensorRtBackend.missing_engine(OnnxFile.read(red), "gpu", 4) is None
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
