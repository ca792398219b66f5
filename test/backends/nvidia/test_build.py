"""Engines built with the real TensorRT for RTX, whose builder needs no GPU."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from unittest.mock import MagicMock

import onnx
import pytest

from dense_perception.backends.nvidia import build as build_module
from dense_perception.backends.nvidia.build import TensorRtOptions, build_engine, one_size_only
from dense_perception.backends.nvidia.module import installed_runtimes, load_runtime
from dense_perception.core.errors import BackendError
from dense_perception.core.registry import find_card
from test.support.artefacts import write_red_artefact

MODELS = Path(__file__).parents[3] / "models"


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("red") / "red_depth.onnx"
    write_red_artefact(path)
    return path


@pytest.mark.slow
def test_default_model_builds_for_each_gpu() -> None:
    sizes = {}
    for precision, capability in (
        ("fp32", "8.6"),
        ("int8", "8.6"),
        ("int8", "8.9"),
        ("int8", "12.0"),
    ):
        path = MODELS / f"dpt_tiny_indoor_{precision}.onnx"
        engine = build_engine(path, TensorRtOptions(compute_capability=capability, max_batch=2))
        sizes[precision, capability] = len(engine)
    # The weights are in it, in four bytes or, where the file is quantised, in one.
    fp32 = sizes.pop(("fp32", "8.6"))
    assert 18e6 < fp32 < 40e6
    assert max(sizes.values()) < 0.9 * fp32


def test_progress_and_timing_cache(red: Path, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    options = TensorRtOptions(compute_capability="8.9", workspace_mb=64)
    timings = tmp_path / "new/timings"
    build_engine(red, options, timing_cache=timings, on_progress=lambda *step: steps.append(step))
    assert steps
    assert all(0 <= done <= total for _, done, total in steps)
    timings.parent.mkdir(exist_ok=True)
    timings.write_bytes(b"of another version")
    assert build_engine(red, options, timing_cache=timings)


def test_each_option_changes_the_engine_and_nothing_else_does(red: Path) -> None:
    def build(**options: object) -> bytes:
        everywhere = {"compute_capability": "8.6", **options}
        return build_engine(red, TensorRtOptions(**everywhere))  # type: ignore[arg-type]

    plain = build()
    assert build() == plain, "the builder is not deterministic, so that a difference says nothing"
    for option in ({"compute_capability": "12.0"}, {"max_batch": 8}):
        assert build(**option) != plain, f"{option} changed nothing"


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    """In place of TensorRT 10: takes a graph with a free batch and keeps what it is told."""
    trt = MagicMock(__version__="10.3.0", ILogger=type("ILogger", (), {}))
    builder = trt.Builder.return_value
    network = builder.create_network.return_value
    network.num_inputs = 1
    network.get_input.return_value = MagicMock(shape=(-1, 48, 64, 3))
    network.get_input.return_value.name = "image"
    builder.build_serialized_network.return_value = b"engine"
    trt.config = builder.create_builder_config.return_value
    trt.profile = builder.create_optimization_profile.return_value
    monkeypatch.setattr(build_module, "load_runtime", lambda name: ("tensorrt", trt))
    return trt


def test_the_builder_is_told_every_option(red: Path, recorded: MagicMock) -> None:
    trt, config = recorded, recorded.config
    options = TensorRtOptions(
        max_batch=8,
        workspace_mb=64,
        version_compatible=True,
        hardware_compatible="ampere_plus",
    )
    assert build_engine(red, options) == b"engine"
    trt.profile.set_shape.assert_called_once_with(
        "image", (1, 48, 64, 3), (1, 48, 64, 3), (8, 48, 64, 3)
    )
    config.add_optimization_profile.assert_called_once_with(trt.profile)
    config.set_memory_pool_limit.assert_called_once_with(trt.MemoryPoolType.WORKSPACE, 64 << 20)
    assert config.hardware_compatibility_level == trt.HardwareCompatibilityLevel.AMPERE_PLUS
    flags = [call.args[0] for call in config.set_flag.call_args_list]
    assert flags == [trt.BuilderFlag.VERSION_COMPATIBLE]
    config.clear_flag.assert_called_once_with(trt.BuilderFlag.TF32)
    trt.OnnxParser.return_value.parse.assert_called_once_with(red.read_bytes())


def test_the_builder_is_told_of_a_dla(red: Path, recorded: MagicMock) -> None:
    trt, config = recorded, recorded.config
    trt.Builder.return_value.num_DLA_cores = 2
    build_engine(red, TensorRtOptions(dla_core=1), precision="int8")
    assert (config.default_device_type, config.DLA_core) == (trt.DeviceType.DLA, 1)
    config.set_flag.assert_called_once_with(trt.BuilderFlag.GPU_FALLBACK)


def test_the_builder_is_told_nothing_that_was_not_asked_for(red: Path, recorded: MagicMock) -> None:
    build_engine(red)
    config = recorded.config
    for call in (config.set_flag, config.set_memory_pool_limit, config.set_compute_capability):
        call.assert_not_called()
    shapes = recorded.profile.set_shape.call_args.args[1:]
    assert set(shapes) == {(1, 48, 64, 3)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"compute_capability": "9.0"}, ["compute_capability SM90", "SM86", "SM120"]),
        ({"compute_capability": "8.6", "dla_core": 0}, ["no DLA"]),
    ],
)
def test_what_the_runtime_does_not_know_is_named(
    red: Path, options: dict[str, object], words: list[str]
) -> None:
    with pytest.raises(BackendError) as caught:
        build_engine(red, TensorRtOptions(**options))  # type: ignore[arg-type]
    for word in words:
        assert word in str(caught.value)


def test_no_garbage_is_collected_while_tensorrt_may_call_back(red: Path) -> None:
    """A collection in its logger that frees an older builder waits for ever for TensorRT's lock."""
    enabled: list[bool] = []
    options = TensorRtOptions(compute_capability="8.6")
    build_engine(red, options, on_progress=lambda *step: enabled.append(gc.isenabled()))
    assert enabled
    assert not any(enabled)
    assert gc.isenabled()
    with pytest.raises(BackendError):
        build_engine(red.with_name("absent.onnx"), options)
    assert gc.isenabled()


def test_a_damaged_graph_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    write_red_artefact(path)
    model = onnx.load(path)
    model.graph.node[0].op_type = "Nowhere"
    onnx.save(model, path)
    with pytest.raises(BackendError, match=r"cannot parse .*broken\.onnx: .*[Pp]lugin not found"):
        build_engine(path, TensorRtOptions(compute_capability="8.6"))
    path.write_bytes(b"not a model")
    with pytest.raises(BackendError, match=r"broken\.onnx is not a whole ONNX model"):
        build_engine(path, TensorRtOptions(compute_capability="8.6"))


@pytest.mark.parametrize(
    "wrong", [{"max_batch": 0}, {"workspace_mb": -1}, {"hardware_compatible": "all"}]
)
def test_wrong_options(wrong: dict[str, object]) -> None:
    with pytest.raises(BackendError, match="expected"):
        TensorRtOptions(**wrong)  # type: ignore[arg-type]


def test_a_runtime_that_is_not_installed(tmp_path: Path) -> None:
    if "tensorrt" in installed_runtimes():
        pytest.skip("tensorrt is installed here")
    with pytest.raises(BackendError, match="tensorrt is not installed here: install"):
        load_runtime("tensorrt", folders=[tmp_path])


def test_the_systems_package_is_found_and_nothing_beside_it(tmp_path: Path) -> None:
    """As on JetPack, where a virtual environment does not see dist-packages."""
    if "tensorrt" in installed_runtimes():
        pytest.skip("tensorrt is installed here")
    package = tmp_path / "tensorrt"
    package.mkdir()
    (package / "__init__.py").write_text("from tensorrt.part import __version__\n")
    (package / "part.py").write_text("__version__ = '10.3.0'\n")
    (tmp_path / "numpy_of_the_system.py").write_text("")
    assert installed_runtimes([tmp_path])[0] == "tensorrt"
    path = list(sys.path)
    try:
        name, module = load_runtime(None, folders=[tmp_path])
        assert (name, module.__version__) == ("tensorrt", "10.3.0")
    finally:
        for loaded in ("tensorrt", "tensorrt.part"):
            sys.modules.pop(loaded, None)
    assert sys.path == path
    (package / "__init__.py").write_text("raise ImportError('libnvinfer.so.10 is missing')\n")
    with pytest.raises(BackendError, match=r"does not load \(libnvinfer\.so\.10 is missing\)"):
        load_runtime("tensorrt", folders=[tmp_path])
    assert "tensorrt" not in sys.modules


def test_a_graph_of_free_sizes_names_the_command_and_the_sizes() -> None:
    """Those of the table in docs/export.md."""
    page = (MODELS.parent / "docs" / "export.md").read_text()
    for name, column in (("depth_anything_v2_small", 0), ("dpt_large_midas", 1)):
        text = one_size_only("tensorrt 10.3", find_card(name))
        assert f"`dense-perception export {name} --size WxH`" in text
        for aspect in ("4:3", "3:2", "16:9"):
            (row,) = (line for line in page.splitlines() if line.startswith(f"| {aspect} |"))
            assert f"{row.split('|')[2 + column].strip()} for {aspect}" in text
