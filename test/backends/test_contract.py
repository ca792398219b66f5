"""One contract, inherited by every backend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from dense_perception.backends.base import Backend, TensorSpec, check_graph
from dense_perception.backends.device import find_gpu
from dense_perception.backends.engine_cache import store_engine
from dense_perception.backends.nvidia.module import load_runtime
from dense_perception.backends.nvidia.torch import load_modules, program_key, versions
from dense_perception.backends.opening import open_backend
from dense_perception.core.errors import BackendError, CardError
from dense_perception.core.onnx_file import OnnxFile
from test.support.artefacts import red_card, red_depth, write_red_artefact
from test.support.pretended_cuda import pretend_cuda_provider, pretend_tensorrt


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    path = tmp_path / "red_depth.onnx"
    write_red_artefact(path)
    return path


def feeds_of(batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        "image": generator.integers(0, 256, (batch, 48, 64, 3), np.uint8),
        "focal_px": generator.uniform(30, 90, batch).astype(np.float32),
    }


def expected_depth(feeds: dict[str, np.ndarray]) -> np.ndarray:
    return np.stack([red_depth(image, focal) for image, focal in zip(*feeds.values(), strict=True)])


class BackendContract:
    """What every backend owes its caller."""

    name: str
    device = "cpu"

    @pytest.fixture
    def backend(self, artefact: Path) -> Backend:
        return open_backend(self.name, artefact, device=self.device, threads=1)

    def test_declares_the_graph(self, backend: Backend) -> None:
        by_name = {spec.name: spec for spec in (*backend.inputs, *backend.outputs)}
        assert by_name == {
            "image": TensorSpec("image", np.dtype(np.uint8), (None, 48, 64, 3)),
            "focal_px": TensorSpec("focal_px", np.dtype(np.float32), (None,)),
            "depth": TensorSpec("depth", np.dtype(np.float32), (None, 48, 64)),
        }
        check_graph(red_card(), backend, "test")
        assert backend.name == self.name
        assert self.name in backend.description
        assert self.device != "cpu" or "1 threads" in backend.description

    def test_batches_of_any_size_in_any_order(self, backend: Backend) -> None:
        for seed, batch in enumerate((1, 3, 1, 2, 5, 3)):
            feeds = feeds_of(batch, seed)
            depth = backend.infer(feeds)["depth"]
            assert depth.dtype == np.float32
            np.testing.assert_allclose(depth, expected_depth(feeds), rtol=1e-5)

    def test_repeats_itself(self, backend: Backend) -> None:
        feeds = feeds_of(1)
        first = backend.infer(feeds)["depth"].copy()
        backend.infer(feeds_of(1, seed=1))
        assert np.array_equal(backend.infer(feeds)["depth"], first)

    def test_leaves_its_inputs_alone(self, backend: Backend) -> None:
        feeds = feeds_of(1)
        copies = {name: array.copy() for name, array in feeds.items()}
        backend.infer(feeds)
        for name, array in feeds.items():
            assert np.array_equal(array, copies[name])

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"image": np.zeros((1, 48, 64, 3), np.float32)}, ["float32", "uint8 (?, 48, 64, 3)"]),
            ({"image": np.zeros((1, 64, 48, 3), np.uint8)}, ["(1, 64, 48, 3)", "(?, 48, 64, 3)"]),
            ({"image": np.zeros((48, 64, 3), np.uint8)}, ["(48, 64, 3)", "(?, 48, 64, 3)"]),
            ({"focal_px": np.float64([50])}, ["float64", "float32"]),
            ({"surplus": np.zeros(1)}, ["surplus", "focal_px"]),
        ],
    )
    def test_wrong_input_is_named(
        self, backend: Backend, change: dict[str, np.ndarray], words: list[str]
    ) -> None:
        with pytest.raises(BackendError) as caught:
            backend.infer({**feeds_of(1), **change})
        for word in words:
            assert word in str(caught.value)
        good = feeds_of(1)
        np.testing.assert_allclose(backend.infer(good)["depth"], expected_depth(good), rtol=1e-5)

    def test_missing_input_is_named(self, backend: Backend) -> None:
        with pytest.raises(BackendError, match="focal_px"):
            backend.infer({"image": feeds_of(1)["image"]})

    def test_batches_that_disagree_are_refused(self, backend: Backend) -> None:
        mixed = {"image": feeds_of(2)["image"], "focal_px": feeds_of(3)["focal_px"]}
        with pytest.raises(BackendError):
            backend.infer(mixed)

    def test_close_twice_then_infer(self, backend: Backend) -> None:
        backend.close()
        backend.close()
        with pytest.raises(BackendError, match="closed"):
            backend.infer(feeds_of(1))

    @pytest.mark.parametrize("kept", [0, 10, 200, -1])
    def test_damaged_file(self, artefact: Path, tmp_path: Path, kept: int) -> None:
        damaged = tmp_path / "damaged.onnx"
        damaged.write_bytes(artefact.read_bytes()[:kept])
        with pytest.raises(BackendError, match=r"damaged\.onnx"):
            open_backend(self.name, damaged, device=self.device)

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(BackendError, match=r"nothing\.onnx"):
            open_backend(self.name, tmp_path / "nothing.onnx", device=self.device)

    def test_unknown_device(self, artefact: Path) -> None:
        with pytest.raises(BackendError, match=r"'abacus'.*cpu|'abacus'.*CPU"):
            open_backend(self.name, artefact, device="abacus")

    @pytest.mark.parametrize("threads", [0, 2])
    def test_thread_settings_do_not_change_the_answer(self, artefact: Path, threads: int) -> None:
        feeds = feeds_of(1)
        backend = open_backend(self.name, artefact, device=self.device, threads=threads)
        np.testing.assert_allclose(backend.infer(feeds)["depth"], expected_depth(feeds), rtol=1e-5)

    def test_negative_threads(self, artefact: Path) -> None:
        with pytest.raises(BackendError, match="-1"):
            open_backend(self.name, artefact, device=self.device, threads=-1)

    def test_does_not_load_torch_or_the_other_runtimes(self, artefact: Path) -> None:
        import subprocess
        import sys

        code = (
            "import sys; from pathlib import Path\n"
            "from dense_perception.backends.opening import open_backend\n"
            f"open_backend({self.name!r}, Path({str(artefact)!r}), device={self.device!r})\n"
            "heavy = {'torch', 'onnx', 'onnxruntime', 'openvino', 'cv2'} & set(sys.modules)\n"
            f"assert heavy <= {{{self.name!r}}}, heavy\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


class TestOnnxRuntime(BackendContract):
    name = "onnxruntime"

    @pytest.mark.filterwarnings("ignore:Specified provider")
    def test_a_gpu_that_does_not_start_is_not_the_cpu(
        self, artefact: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """This build has no CUDA: it goes on without, as one does whose CUDA is missing."""
        import onnxruntime

        monkeypatch.setattr(
            onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"]
        )
        with pytest.raises(BackendError, match=r"could not start CUDA.* would run on CPU"):
            open_backend(self.name, artefact, device="gpu")


class TestOnnxRuntimeOnPretendedCuda(BackendContract):
    """Bound memory and CUDA graphs, as far as a CPU can tell."""

    name = "onnxruntime"
    device = "gpu"

    @pytest.fixture(autouse=True)
    def _there_is_a_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pretend_cuda_provider(monkeypatch)

    def test_does_not_load_torch_or_the_other_runtimes(self, artefact: Path) -> None:
        pytest.skip("another process has nothing pretended")

    def test_unknown_device(self, artefact: Path) -> None:
        with pytest.raises(BackendError, match=r"'abacus' is not available"):
            open_backend(self.name, artefact, device="abacus")


class TestPretendedTensorRt(BackendContract):
    """Our own code up to the last call of TensorRT and CUDA."""

    name = "tensorrt"
    device = "gpu"

    @pytest.fixture(autouse=True)
    def _there_is_a_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pretend_tensorrt(monkeypatch)

    def test_does_not_load_torch_or_the_other_runtimes(self, artefact: Path) -> None:
        pytest.skip("another process has nothing pretended")


class TestOpenVino(BackendContract):
    name = "openvino"

    def test_damaged_compilation_cache_is_rebuilt(self, artefact: Path, tmp_path: Path) -> None:
        feeds = feeds_of(1)
        open_backend(self.name, artefact).close()
        blobs = list((tmp_path / "cache").rglob("*.engine"))
        assert blobs, "nothing was cached"
        for blob in blobs:
            blob.write_bytes(blob.read_bytes()[: blob.stat().st_size // 2])
        backend = open_backend(self.name, artefact)
        np.testing.assert_allclose(backend.infer(feeds)["depth"], expected_depth(feeds), rtol=1e-5)

    def test_disk_that_takes_no_cache(
        self, artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "a_file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a_file"))
        feeds = feeds_of(1)
        backend = open_backend(self.name, artefact)
        np.testing.assert_allclose(backend.infer(feeds)["depth"], expected_depth(feeds), rtol=1e-5)


@pytest.mark.gpu
class TestTensorRt(BackendContract):
    name = "tensorrt"
    device = "gpu"

    @pytest.fixture(autouse=True)
    def _there_is_a_gpu(self) -> None:
        try:
            load_runtime()
            find_gpu()
        except BackendError as error:
            pytest.skip(str(error))


@pytest.mark.gpu
class TestTorchTensorRt(BackendContract):
    name = "torch_tensorrt"
    device = "gpu"

    @pytest.fixture(autouse=True)
    def _there_is_a_gpu(self) -> None:
        try:
            load_modules()
            find_gpu()
        except BackendError as error:
            pytest.skip(str(error))

    @pytest.fixture
    def artefact(self, tmp_path: Path) -> Path:
        path = tmp_path / "red_depth.onnx"
        write_red_artefact(path)
        store_red_program(path)
        return path

    def test_does_not_load_torch_or_the_other_runtimes(self, artefact: Path) -> None:
        pytest.skip("it is the one backend that runs in PyTorch")


def store_red_program(path: Path) -> None:
    """Compile the red graph, written in PyTorch, into the cache under the key of ``path``."""
    import torch

    from dense_perception.export.torch_program import to_tensorrt

    class Red(torch.nn.Module):
        def forward(self, image: torch.Tensor, focal_px: torch.Tensor) -> tuple[torch.Tensor]:
            red_nhw = image.to(torch.float32)[..., 0]
            return ((1 + red_nhw * (9 / 255)) * (focal_px / 64)[:, None, None],)

    example = tuple(torch.from_numpy(array).cuda() for array in feeds_of(1).values())
    program = torch.export.export(Red(), example)
    key = program_key(OnnxFile.read(path), versions(*load_modules()), str(find_gpu()), "fp32")
    store_engine(key, to_tensorrt(program, example, "fp32"))


def test_unknown_backend(artefact: Path) -> None:
    with pytest.raises(BackendError, match=r"'tensorflow'.*onnxruntime"):
        open_backend("tensorflow", artefact)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("precision", "cure"),
    [
        ("fp8", r", which is fp8: .*; update {}, or take another precision, such as int8"),
        ("int8", r": .*; get the file again, or export it with this version of the package"),
    ],
)
def test_a_graph_that_a_runtime_does_not_read(
    name: str, precision: str, cure: str, tmp_path: Path
) -> None:
    """As OpenVINO 2026.0 does not read fp8: the cure is another one than of a damaged file."""
    path = tmp_path / "red.onnx"
    write_red_artefact(path, precision=precision)
    model = onnx.load(path)
    model.graph.node[0].op_type = "Nowhere"
    onnx.save(model, path)
    with pytest.raises(BackendError, match=rf"^{name} [\d.]+ refuses \S+{cure.format(name)}\Z"):
        open_backend(name, path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"height": 32}, ["image", "(?, 48, 64, 3)", "(N, 32, 64, 3)"]),
        ({"focal": False}, ["inputs", "focal_px"]),
    ],
)
def test_card_that_contradicts_its_graph(
    artefact: Path, changes: dict[str, object], words: list[str]
) -> None:
    from dataclasses import replace

    card = red_card()
    wrong = replace(card, input=replace(card.input, **changes))  # type: ignore[arg-type]
    backend = open_backend("onnxruntime", artefact)
    with pytest.raises(CardError) as caught:
        check_graph(wrong, backend, "model red")
    for word in ["contradicts its graph", *words]:
        assert word in str(caught.value)
