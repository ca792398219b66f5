"""What ``auto`` chooses, remembers and says."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dense_perception.backends import device as device_module
from dense_perception.backends import select
from dense_perception.backends.base import Backend, TensorSpec
from dense_perception.backends.device import Gpu
from dense_perception.backends.engine_cache import (
    EngineKey,
    EngineMissingError,
    remember_failure,
)
from dense_perception.backends.select import select_backend
from dense_perception.backends.speed import SpeedMemory
from dense_perception.core.errors import ArtefactError, BackendError, CardError, EngineRefusedError
from dense_perception.core.onnx_file import OnnxFile
from dense_perception.core.registry import Model, find_model
from test.support.models import write_model


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
            raise EngineMissingError(key, "net.engine is damaged")
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


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return find_model(write_model(tmp_path / "models", precisions=("fp32", "int8")))


FOUR = {
    ("onnxruntime", "fp32"): 40.0,
    ("onnxruntime", "int8"): 30.0,
    ("openvino", "fp32"): 20.0,
    ("openvino", "int8"): 25.0,
}


def test_fastest_wins_the_others_are_closed_and_named(bench: Bench, model: Model) -> None:
    bench.speeds = dict(FOUR)
    backend, card, selection = select_backend(model)
    assert (selection.backend, selection.precision) == ("openvino", "fp32")
    assert card.precision == "fp32"
    assert [fake for fake in bench.opened if not fake.closed] == [backend]
    summary = selection.summary()
    for word in ("openvino/fp32 on cpu", "20.0 ms measured", "onnxruntime/int8 30.0 ms"):
        assert word in summary


def test_emulated_fp8_is_not_tried_but_where_it_is_asked_for(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = find_model(write_model(tmp_path / "models", precisions=("fp32", "fp8")))
    bench.speeds = {(name, "fp32"): 20.0 for name in ("onnxruntime", "openvino")}
    bench.speeds |= {(name, "fp8"): 1.0 for name in ("onnxruntime", "openvino")}
    _, _, selection = select_backend(model)
    assert selection.precision == "fp32"
    assert {kind for _, kind in bench.measured} == {"fp32"}
    for name in ("onnxruntime", "openvino"):
        assert f"{name}/fp8 (fp8 is only emulated there" in selection.summary()
    assert select_backend(model, precision="fp8")[1].precision == "fp8"


GPU = Gpu("RTX 4090", "8.9", "12.6")


@pytest.fixture
def gpu(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> dict[str, EngineKey | None]:
    """A machine with a GPU; the engines that TensorRT lacks, by precision."""
    bench.lacks = {"fp32": None, "int8": None}
    monkeypatch.setattr(device_module, "find_gpu", lambda index=0: GPU)
    monkeypatch.setattr(
        select,
        "installed_backends",
        lambda place="cpu": (("tensorrt",) if place == "gpu" else ()) + ("onnxruntime", "openvino"),
    )
    bench.speeds = {("tensorrt", "fp32"): 2.0, ("tensorrt", "int8"): 1.0, **FOUR}
    return bench.lacks


def engine(version: str) -> EngineKey:
    return EngineKey("0" * 64, "tensorrt", version, str(GPU), "int8", "batch 1..1")


def test_auto_is_the_gpu_where_it_works_and_says_so(
    gpu: dict[str, EngineKey | None], model: Model
) -> None:
    _, _, selection = select_backend(model)
    assert (selection.backend, selection.device) == ("tensorrt", "gpu")
    assert "on gpu (found RTX 4090)" in selection.summary()


def test_auto_is_the_cpu_without_a_gpu(
    bench: Bench, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(index: int = 0) -> Gpu:
        raise BackendError("there is no NVIDIA driver here: install it")

    monkeypatch.setattr(device_module, "find_gpu", none)
    bench.speeds = dict(FOUR)
    summary = select_backend(model)[2].summary()
    assert "on cpu (there is no NVIDIA driver here): the fastest" in summary


def test_auto_is_the_cpu_where_nothing_runs_on_the_gpu(
    gpu: dict[str, EngineKey | None], bench: Bench, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = bench.open

    def open_backend(
        name: str, file: OnnxFile, *, device: str, threads: int, **_: object
    ) -> FakeBackend:
        if device == "gpu":
            raise BackendError(f"{name} does not know the GPU")
        return real(name, file, device=device, threads=threads)

    monkeypatch.setattr(select, "open_backend", open_backend)
    _, _, selection = select_backend(model)
    assert (selection.backend, selection.device) == ("openvino", "cpu")
    assert any("found RTX 4090, but the GPU is not used" in each for each in selection.warnings)
    with pytest.raises(BackendError, match="does not know the GPU"):
        select_backend(model, device="gpu")
    with pytest.raises(BackendError, match="tensorrt does not know the GPU"):
        select_backend(model, backend="tensorrt")
    # Another backend that was asked for stays the one that runs.
    _, _, selection = select_backend(model, backend="onnxruntime")
    assert (selection.backend, selection.device) == ("onnxruntime", "cpu")
    assert any("but the GPU is not used" in each for each in selection.warnings)


def test_auto_does_not_take_an_intel_gpu_for_nvidias(
    gpu: dict[str, EngineKey | None], bench: Bench, model: Model
) -> None:
    bench.speeds |= {("openvino", "fp32"): 0.1, ("openvino", "int8"): 0.1}
    assert select_backend(model)[2].backend == "tensorrt"
    assert select_backend(model, device="gpu")[2].backend == "openvino"


def test_what_has_no_engine_is_left_out_and_named(
    gpu: dict[str, EngineKey | None], bench: Bench, model: Model
) -> None:
    gpu["int8"] = engine("10.3")
    _, _, selection = select_backend(model, engine_build="background")
    assert (selection.backend, selection.precision) == ("tensorrt", "fp32")
    assert [str(each) for each in selection.missing] == ["tensorrt/int8"]
    assert [each.reason for each in selection.missing] == ["net.engine is damaged"]
    gpu["fp32"] = engine("10.4")
    _, _, selection = select_backend(model, backend="tensorrt", engine_build="background")
    assert (selection.backend, selection.device) == ("onnxruntime", "gpu")
    assert sorted(map(str, selection.missing)) == ["tensorrt/fp32", "tensorrt/int8"]
    assert select_backend(model, engine_build="block")[2].backend == "tensorrt"
    _, _, selection = select_backend(model, engine_build="never")
    assert not selection.missing
    assert any(
        "has no engine (net.engine is damaged), and engine_build is never" in each
        for each in selection.warnings
    )


def test_an_engine_that_could_not_be_built_is_said_and_not_wanted(
    gpu: dict[str, EngineKey | None], model: Model
) -> None:
    gpu["int8"] = engine("10.3")
    remember_failure(engine("10.3"), "no kernel")
    _, _, selection = select_backend(model, engine_build="background")
    assert not selection.missing
    assert any("no kernel" in each and "compile" in each for each in selection.warnings)
    assert "--max-batch" not in str(selection.warnings)
    _, _, selection = select_backend(model, engine_build="background", batch=4)
    assert any("--precision int8 --max-batch 4`" in each for each in selection.warnings)


def test_only_where_nothing_else_runs_an_engine_is_built_at_once(
    gpu: dict[str, EngineKey | None], bench: Bench, model: Model
) -> None:
    gpu.update(int8=engine("10.3"), fp32=engine("10.4"))
    for name in ("onnxruntime", "openvino"):
        for kind in ("fp32", "int8"):
            bench.speeds[name, kind] = BackendError(f"{name} refuses the graph")
    _, _, selection = select_backend(model, engine_build="background")
    assert (selection.backend, selection.device) == ("tensorrt", "gpu")
    assert not selection.missing


def test_second_start_remembers(bench: Bench, model: Model) -> None:
    bench.speeds = dict(FOUR)
    select_backend(model)
    bench.measured.clear()
    bench.opened.clear()
    _, _, selection = select_backend(model)
    assert (bench.opened[0].name, bench.opened[0].precision) == ("openvino", "fp32")
    assert not bench.opened[0].closed
    assert "remembered" in selection.reason
    # One of the losers is looked at again, and closed.
    assert len(bench.measured) == 1
    assert ("openvino", "fp32") not in bench.measured
    assert [fake.closed for fake in bench.opened[1:]] == [True]
    assert len(selection.considered) == 4


def test_other_threads_device_or_file_are_measured_anew(
    bench: Bench, model: Model, tmp_path: Path
) -> None:
    bench.speeds = dict(FOUR)
    select_backend(model)
    for changes in ({"threads": 1}, {"device": "gpu"}):
        bench.measured.clear()
        select_backend(model, **changes)  # type: ignore[arg-type]
        assert len(bench.measured) == 4


@pytest.mark.parametrize("junk", ["", "{", "[]", '{"a": "b"}', '{"a": NaN}'])
def test_damaged_memory_is_ignored_and_rewritten(
    bench: Bench, model: Model, tmp_path: Path, junk: str
) -> None:
    bench.speeds = dict(FOUR)
    memory = tmp_path / "cache/dense_perception/speeds.json"
    memory.parent.mkdir(parents=True)
    memory.write_text(junk)
    select_backend(model)
    assert len(bench.measured) == 4
    assert len(json.loads(memory.read_text())) >= 4


def test_read_only_cache_does_not_matter(
    bench: Bench, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.speeds = dict(FOUR)
    (tmp_path / "a_file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a_file"))
    _, _, selection = select_backend(model)
    assert selection.backend == "openvino"


def test_budget_ends_the_contest_and_the_next_start_goes_on(
    bench: Bench, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.speeds = dict(FOUR)
    monkeypatch.setattr(select, "BUDGET_S", -1.0)
    _, _, first = select_backend(model)
    assert len(bench.measured) == 1, "one candidate is measured however little time there is"
    assert (first.backend, first.precision) == bench.measured[0]
    assert "later start" in first.summary()
    for count in (2, 3, 4, 5):
        _, _, selection = select_backend(model)
        assert len(bench.measured) == count, "one more at each start, however slow the machine"
    assert sorted(bench.measured[:4]) == sorted(FOUR)
    assert (selection.backend, selection.precision) == ("openvino", "fp32")


def test_a_measurement_on_a_busy_machine_is_mended_at_later_starts(
    bench: Bench, model: Model
) -> None:
    bench.speeds = {**FOUR, ("openvino", "int8"): 90.0}
    assert select_backend(model)[2].precision == "fp32"
    bench.speeds["openvino", "int8"] = 10.0
    chosen = [select_backend(model)[2] for _ in range(60)]  # a loser in three: (2/3)^60 to fail
    assert (chosen[-1].backend, chosen[-1].precision) == ("openvino", "int8")
    bench.speeds["openvino", "int8"] = 90.0  # busy again: what was measured before stays
    assert select_backend(model)[2].precision == "int8"


def test_what_a_busy_machine_measured_is_measured_again_when_it_is_calm(
    bench: Bench, model: Model
) -> None:
    bench.others = 0.9
    bench.speeds = {**FOUR, ("openvino", "int8"): 213.0, ("openvino", "fp32"): 77.0}
    assert select_backend(model)[2].backend == "onnxruntime"
    bench.measured.clear()
    bench.speeds |= {("openvino", "int8"): 17.0, ("openvino", "fp32"): 33.0}
    select_backend(model)
    assert len(bench.measured) == 1, "as busy as before: only the usual second look at a loser"
    bench.others = 0.1
    bench.measured.clear()
    _, _, selection = select_backend(model)
    assert (selection.backend, selection.precision) == ("openvino", "int8")
    assert "17.0 ms measured" in selection.reason
    assert sorted(bench.measured) == sorted(FOUR)
    bench.measured.clear()
    assert "17.0 ms remembered" in select_backend(model)[2].reason
    assert len(bench.measured) == 1, "settled"


def test_speeds_that_earlier_versions_remembered_are_measured_once_more(
    bench: Bench, model: Model, tmp_path: Path
) -> None:
    bench.speeds = dict(FOUR)
    select_backend(model)
    memory = tmp_path / "cache/dense_perception/speeds.json"
    memory.write_text(json.dumps(dict.fromkeys(json.loads(memory.read_text()), 300.0)))
    bench.measured.clear()
    assert select_backend(model)[2].reason == "the fastest, 20.0 ms measured"
    assert sorted(bench.measured) == sorted(FOUR)


def test_live_times_that_contradict_have_everything_measured_again(
    bench: Bench, model: Model
) -> None:
    bench.speeds = {**FOUR, ("openvino", "fp32"): 5.0}
    watch = select_backend(model)[2].watch
    assert watch is not None
    SpeedMemory().doubt(watch._keys)
    bench.speeds = dict(FOUR)  # a slower power mode, say: what was measured before is void
    bench.speeds["onnxruntime", "int8"] = 15.0
    bench.measured.clear()
    _, _, selection = select_backend(model)
    assert (selection.backend, selection.precision) == ("onnxruntime", "int8")
    assert sorted(bench.measured) == sorted(FOUR)
    bench.measured.clear()
    assert "15.0 ms remembered" in select_backend(model)[2].reason


def test_a_fastest_one_that_fails_when_it_is_measured_again_gives_way(
    bench: Bench, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.speeds = dict(FOUR)
    watch = select_backend(model)[2].watch
    assert watch is not None
    SpeedMemory().doubt(watch._keys)
    measure = bench.measure

    def fail(backend: FakeBackend, card: object) -> float:
        if (backend.name, backend.precision) == ("openvino", "fp32"):
            raise BackendError("the device is gone")
        return measure(backend, card)

    monkeypatch.setattr(select, "measure_ms", fail)
    backend, _, selection = select_backend(model)
    assert (selection.backend, selection.precision) == ("openvino", "int8")
    assert "openvino/fp32 (the device is gone)" in selection.summary()
    live = [fake for fake in bench.opened if not fake.closed][-1]
    assert live is backend


def test_slow_losers_are_not_opened_again(bench: Bench, model: Model) -> None:
    bench.speeds = {key: value * 100 for key, value in FOUR.items()}
    select_backend(model)
    bench.opened.clear()
    select_backend(model)
    assert [(fake.name, fake.precision) for fake in bench.opened] == [("openvino", "fp32")]


def test_failures_are_passed_over_and_named(bench: Bench, model: Model) -> None:
    bench.speeds = {**FOUR, ("openvino", "fp32"): BackendError("too old for this graph")}
    _, _, selection = select_backend(model)
    assert (selection.backend, selection.precision) == ("openvino", "int8")
    assert "openvino/fp32 (too old for this graph)" in selection.summary()


def test_remembered_winner_that_fails_gives_way(bench: Bench, model: Model) -> None:
    bench.speeds = dict(FOUR)
    select_backend(model)
    bench.speeds["openvino", "fp32"] = BackendError("driver gone")
    _, _, selection = select_backend(model)
    assert (selection.backend, selection.precision) == ("openvino", "int8")


def test_damaged_precision_is_passed_over(bench: Bench, model: Model) -> None:
    bench.speeds = dict(FOUR)
    model.files["fp32"].write_bytes(b"damaged")
    _, _, selection = select_backend(model)
    assert selection.precision == "int8"
    assert "its card says" in selection.summary()


def test_nothing_runs(bench: Bench, model: Model) -> None:
    bench.speeds = {key: BackendError(f"no {key[0]}") for key in FOUR}
    with pytest.raises(BackendError, match=r"nothing can run red_depth.*no openvino"):
        select_backend(model)


def test_one_common_reason_is_raised_as_it_is(bench: Bench, model: Model) -> None:
    bench.speeds = dict(FOUR)
    model.files["int8"].write_bytes(b"damaged")
    with pytest.raises(ArtefactError, match="its card says"):
        select_backend(model, precision="int8")


def test_wish_is_granted_without_measuring(bench: Bench, model: Model) -> None:
    bench.speeds = dict(FOUR)
    backend, _, selection = select_backend(model, backend="onnxruntime", precision="fp32")
    assert (backend.name, selection.precision) == ("onnxruntime", "fp32")
    assert bench.measured == []


def test_wished_backend_leaves_the_precision_open(bench: Bench, model: Model) -> None:
    bench.speeds = dict(FOUR)
    _, _, selection = select_backend(model, backend="onnxruntime")
    assert (selection.backend, selection.precision) == ("onnxruntime", "int8")


def test_unknown_precision(bench: Bench, model: Model) -> None:
    with pytest.raises(CardError, match="no fp16 file"):
        select_backend(model, precision="fp16")


def test_real_runtimes(model: Model) -> None:
    backend, _, selection = select_backend(model, threads=1)
    try:
        feeds = {
            "image": np.full((1, 48, 64, 3), 255, np.uint8),
            "focal_px": np.float32([64]),
        }
        np.testing.assert_allclose(backend.infer(feeds)["depth"], 10.0, rtol=1e-5)
        assert selection.backend == backend.name
    finally:
        backend.close()


@pytest.mark.parametrize("wish", ["openvino", "auto"])
def test_a_backend_that_is_wrong_gives_way_with_a_warning(
    bench: Bench, model: Model, wish: str
) -> None:
    bench.speeds = dict(FOUR)
    bench.wrong = {"openvino"}
    backend, _, selection = select_backend(model, backend=wish, precision="fp32")
    assert backend.name == selection.backend == "onnxruntime"
    assert selection.warnings == ("openvino differs by 0.3",)
    assert "WARNING: openvino differs by 0.3" in selection.summary()
    assert [fake for fake in bench.opened if not fake.closed] == [backend]


def test_nothing_is_left_when_all_are_wrong(bench: Bench, model: Model) -> None:
    bench.speeds = dict(FOUR)
    bench.wrong = {"openvino", "onnxruntime"}
    with pytest.raises(BackendError, match=r"differs by 0\.3"):
        select_backend(model, backend="openvino", precision="fp32")


def test_trusted_engines_are_not_checked_and_that_is_said(bench: Bench, model: Model) -> None:
    bench.speeds = dict(FOUR)
    bench.wrong = {"openvino"}
    _, _, selection = select_backend(model, backend="openvino", precision="fp32", trust_engine=True)
    assert selection.backend == "openvino"
    assert "trust_engine is set" in selection.summary()
