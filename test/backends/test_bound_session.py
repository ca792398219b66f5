"""Bound memory and CUDA graphs in ONNX Runtime: the same answers, nothing allocated per run."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import onnx
import pytest

from dense_perception.backends.bound_session import KEPT_SHAPES
from dense_perception.backends.opening import open_backend
from test.backends.test_contract import expected_depth, feeds_of
from test.support.artefacts import write_red_artefact
from test.support.pretended_cuda import GPU, JETSON, Fault, pretend_cuda_provider


@pytest.fixture
def red(tmp_path: Path) -> Path:
    path = tmp_path / "red.onnx"
    write_red_artefact(path)
    return path


@pytest.mark.parametrize("gpu", [GPU, JETSON], ids=["own memory", "shared memory"])
@pytest.mark.parametrize("refuses_graphs", [False, True])
def test_each_batch_keeps_its_memory_until_it_is_closed(
    red: Path, monkeypatch: pytest.MonkeyPatch, gpu: object, refuses_graphs: bool
) -> None:
    seen = pretend_cuda_provider(monkeypatch, gpu=gpu, refuses_graphs=refuses_graphs)  # type: ignore[arg-type]
    backend = open_backend("onnxruntime", red, device="gpu")
    how = "bound memory" if refuses_graphs else "CUDA graph"
    assert backend.description.endswith(f", cuda, all cores, {how}")
    assert ("not on the CUDA execution provider" in backend.problem) is refuses_graphs
    for seed, batch in enumerate((1, 3, 1, 2)):
        feeds = feeds_of(batch, seed)
        answer = backend.infer(feeds)["depth"]
        np.testing.assert_allclose(answer, expected_depth(feeds), rtol=1e-5)
    calls = seen.cudart.calls
    held, allocated = set(seen.cudart.memory), calls["cudaHostAlloc"]
    addresses = set()
    for seed in range(4):
        feeds = {
            "image": backend.input_buffer("image", (2, 48, 64, 3)),
            "focal_px": np.ones(2, "f"),
        }
        feeds["image"][...] = feeds_of(2, seed)["image"]
        answer = backend.infer(feeds)["depth"]
        np.testing.assert_allclose(answer, expected_depth(feeds), rtol=1e-5)
        addresses |= {feeds["image"].ctypes.data, answer.ctypes.data}
    assert len(addresses) == 2
    assert (set(seen.cudart.memory), calls["cudaHostAlloc"]) == (held, allocated)
    # The image is written where the copy begins, or where the GPU reads.
    assert min(addresses) in held
    assert (calls["cudaMemcpyAsync"] == 0) is (gpu is JETSON)
    backend.close()
    backend.close()
    assert np.isfinite(answer).all()  # whoever still holds an answer may read it
    del answer, feeds
    gc.collect()
    assert not seen.cudart.memory


def test_beyond_so_many_shapes_the_oldest_memory_goes(
    red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = pretend_cuda_provider(monkeypatch)
    backend = open_backend("onnxruntime", red, device="gpu")
    for batch in (*range(1, KEPT_SHAPES + 4), 1):
        feeds = feeds_of(batch, batch)
        np.testing.assert_allclose(backend.infer(feeds)["depth"], expected_depth(feeds), rtol=1e-5)
    gc.collect()
    assert len(seen.cudart.memory) == KEPT_SHAPES * 3 * 2
    # Numbers that were given to graphs are never given to others, and their number has an end.
    assert set(seen.sessions[0].captured) == {str(n) for n in range(1, KEPT_SHAPES + 1)}


def test_only_what_is_wanted_is_copied(red: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx.load(red)
    model.graph.node.append(onnx.helper.make_node("Neg", ["depth"], ["behind"]))
    kind = model.graph.output[0].type
    model.graph.output.append(onnx.ValueInfoProto(name="behind", type=kind))
    onnx.save(model, red)
    for refuses_graphs in (True, False):
        seen = pretend_cuda_provider(monkeypatch, refuses_graphs=refuses_graphs)
        backend = open_backend("onnxruntime", red, device="gpu")
        feeds = feeds_of(1)
        both = {name: array.copy() for name, array in backend.infer(feeds).items()}
        assert np.array_equal(both["behind"], -both["depth"])
        before = seen.cudart.calls["cudaMemcpyAsync"]
        feeds = feeds_of(1, seed=1)
        (name,) = answer = backend.infer(feeds, ["behind"])
        assert name == "behind"
        np.testing.assert_allclose(-answer["behind"], expected_depth(feeds), rtol=1e-5)
        assert seen.cudart.calls["cudaMemcpyAsync"] == before + 3
        backend.close()


def test_free_sides_are_bound_without_a_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "free.onnx"
    write_red_artefact(path)
    model = onnx.load(path)
    for value in (model.graph.input[0], model.graph.output[0]):
        for side in value.type.tensor_type.shape.dim[1:3]:
            side.ClearField("dim_value")
    onnx.save(model, path)
    seen = pretend_cuda_provider(monkeypatch)
    backend = open_backend("onnxruntime", path, device="gpu")
    assert backend.description.endswith(", bound memory")
    for height in (48, 32, 48):
        feeds = feeds_of(1, height)
        feeds["image"] = np.ascontiguousarray(feeds["image"][:, :height])
        np.testing.assert_allclose(backend.infer(feeds)["depth"], expected_depth(feeds), rtol=1e-5)
    assert not seen.sessions[0].captured


@pytest.mark.parametrize("wrong", ["stale input", "stale output", "no pinned memory"])
def test_memory_that_does_not_work_is_done_without_and_said(
    red: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    wrong: str,
) -> None:
    seen = pretend_cuda_provider(monkeypatch)
    backend = open_backend("onnxruntime", red, device="gpu")
    cudart = seen.cudart
    copy = cudart._cudaMemcpyAsync

    def sometimes(to: object, of: object, size: object, kind: object, stream: object) -> None:
        stale = {"stale input": 1, "stale output": 2}.get(wrong)
        if getattr(kind, "value", None) != stale or cudart.calls["cudaMemcpyAsync"] <= 3:
            copy(to, of, size, kind, stream)

    cudart._cudaMemcpyAsync = sometimes
    if wrong == "no pinned memory":
        cudart._cudaHostAlloc = lambda *_: 2
    for seed in (0, 1):
        feeds = feeds_of(1, seed)
        np.testing.assert_allclose(backend.infer(feeds)["depth"], expected_depth(feeds), rtol=1e-5)
    why = "cudaHostAlloc failed" if wrong == "no pinned memory" else "differs from a plain one by"
    assert why in backend.problem
    assert caplog.text.count(why) == 1
    backend.close()


def test_without_cuda_s_runtime_it_copies(red: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = pretend_cuda_provider(monkeypatch)
    seen.cudart.fault = Fault("lost", after=-1)
    backend = open_backend("onnxruntime", red, device="cuda:0")
    assert "pageable memory: cudaSetDevice failed" in backend.problem
    seen.cudart.fault = Fault()
    feeds = feeds_of(2)
    np.testing.assert_allclose(backend.infer(feeds)["depth"], expected_depth(feeds), rtol=1e-5)
    assert seen.settings[0]["device_id"] == "0"


def test_the_second_gpu_is_named_to_the_runtime(red: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = pretend_cuda_provider(monkeypatch)
    open_backend("onnxruntime", red, device="cuda:1").close()
    assert seen.settings[0]["device_id"] == "1"
    assert seen.cudart.device == 1


def test_a_later_failure_is_answered_by_a_plain_run(
    red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = pretend_cuda_provider(monkeypatch)
    backend = open_backend("onnxruntime", red, device="gpu")
    backend.infer(feeds_of(1))
    seen.cudart._cudaMemcpyAsync = lambda *_: 2
    feeds = {**feeds_of(1, seed=1), "image": backend.input_buffer("image", (1, 48, 64, 3))}
    feeds["image"][...] = feeds_of(1, seed=1)["image"]
    np.testing.assert_allclose(backend.infer(feeds)["depth"], expected_depth(feeds), rtol=1e-5)
    assert "cudaMemcpyAsync failed" in backend.problem


def test_answers_of_changing_size_are_not_bound(red: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx.load(red)
    model.graph.node.append(onnx.helper.make_node("NonZero", ["depth"], ["places"]))
    places = onnx.helper.make_tensor_value_info("places", onnx.TensorProto.INT64, [3, "found"])
    model.graph.output.append(places)
    onnx.save(model, red)
    pretend_cuda_provider(monkeypatch)
    backend = open_backend("onnxruntime", red, device="gpu")
    assert "the sizes of its answers are not fixed" in backend.problem
    feeds = feeds_of(2)
    np.testing.assert_allclose(backend.infer(feeds)["depth"], expected_depth(feeds), rtol=1e-5)
