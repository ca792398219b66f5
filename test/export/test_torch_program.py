"""Torch-TensorRT up to the device: everything but the conversion runs here, on the CPU."""

from __future__ import annotations

import io
import re
import stat
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from dense_perception import cli
from dense_perception.backends.device import Gpu, find_gpu, parse_device
from dense_perception.backends.engine_cache import Engine, engines_dir, store_engine
from dense_perception.backends.nvidia import torch as backend_module
from dense_perception.backends.nvidia.torch import (
    ExportedProgramBackend,
    program_key,
    stored_program,
)
from dense_perception.backends.opening import installed_backends, open_backend
from dense_perception.backends.select import select_backend
from dense_perception.core.card import ModelCard
from dense_perception.core.difference import Difference
from dense_perception.core.errors import BackendError
from dense_perception.core.reference_frames import reference_feeds
from dense_perception.core.registry import Model, find_model
from dense_perception.export.onnx_graph import torch_outputs
from dense_perception.export.torch_program import (
    compile_program,
    export_program,
    network_of,
    obtain_program,
)
from test.export.conftest import HYBRID, random_network, tiny_card, vit_card
from test.support.artefacts import write_red_artefact

VERSION = f"none, torch {torch.__version__}"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def model() -> Model:
    return find_model("dpt_tiny_indoor")


def unconverted(program: torch.export.ExportedProgram, example: tuple[Tensor, ...]) -> bytes:
    """In place of Torch-TensorRT's step: the program as it is, for any device of PyTorch."""
    stream = io.BytesIO()
    torch.export.save(program, stream)
    return stream.getvalue()


def obtain(model: Model) -> Engine:
    return obtain_program(model, "fp32", VERSION, "cpu", "cpu", unconverted)


@pytest.mark.slow
def test_the_default_model_through_the_cache_is_eager_pytorch(model: Model) -> None:
    assert obtain(model).built
    assert not obtain(model).built
    assert stat.S_IMODE(engines_dir().stat().st_mode) == 0o700
    file, card = model.artefact("fp32")
    engine = stored_program(program_key(file, VERSION, "cpu", "fp32"), card.name)
    backend = ExportedProgramBackend(engine, card, "cpu", "test")
    feeds = reference_feeds(card, 2, 5)
    got = backend.infer(feeds)
    eager = torch_outputs(network_of(model), card, feeds)
    reference = open_backend("onnxruntime", file).infer(feeds)
    assert set(got) == set(eager) == {"depth"}
    assert got["depth"].dtype == np.float32
    for want in (eager, reference):
        difference = Difference.between(got["depth"], want["depth"])
        assert difference.within(Difference(1e-4, 1e-5)), difference
    with pytest.raises(BackendError, match=r"float32.*uint8"):
        backend.infer({**feeds, "image": feeds["image"].astype(np.float32)})
    with pytest.raises(BackendError, match="batch sizes"):
        backend.infer({**feeds, "focal_px": feeds["focal_px"][:1]})
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        backend.infer(feeds)


def test_damaged_foreign_and_open_to_others(model: Model) -> None:
    file, card = model.artefact("fp32")
    key = program_key(file, VERSION, "cpu", "fp32")
    store_engine(key, bytes(1000))
    assert stored_program(key, card.name).payload == bytes(1000)
    with pytest.raises(BackendError, match=r"device 'cpu' instead of 'another'.*compile"):
        stored_program(replace(key, device="another"), card.name)
    with pytest.raises(BackendError, match=r"version .* instead of 'newer'.*compile"):
        stored_program(replace(key, version="newer"), card.name)
    other = replace(key, precision="fp16")
    other.path.write_bytes(key.path.read_bytes())
    with pytest.raises(BackendError, match=r"was built for another: precision 'fp32' instead"):
        stored_program(other, card.name)
    engines_dir().chmod(0o777)
    with pytest.raises(BackendError, match=r"others could have changed it|written by everybody"):
        stored_program(key, card.name)
    engines_dir().chmod(0o700)
    content = bytearray(key.path.read_bytes())
    content[len(content) // 2] ^= 1
    key.path.write_bytes(content)
    with pytest.raises(BackendError, match=r"damaged \(its checksum is wrong\).*compile"):
        stored_program(key, card.name)


def test_what_pytorch_does_not_load_is_named(model: Model) -> None:
    file, card = model.artefact("fp32")
    key = program_key(file, VERSION, "cpu", "fp32")
    store_engine(key, b"no program")
    with pytest.raises(BackendError, match="delete the file and compile again"):
        ExportedProgramBackend(stored_program(key, card.name), card, "cpu", "test")


def test_compile_names_the_precisions_that_it_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backend_module, "load_modules", lambda: (None, None))
    write_red_artefact(tmp_path / "red.onnx", precision="int8")
    words = ["compile", str(tmp_path / "red.onnx"), "--backend", "torch_tensorrt"]
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert "passed over: int8: torch_tensorrt takes fp32 and fp16" in said
    assert "can be built; the lines above say why" in said


@pytest.mark.parametrize("card", [tiny_card(), vit_card(HYBRID)])
def test_half_inside_stays_near_fp32(card: ModelCard) -> None:
    network = random_network(card)
    feeds = reference_feeds(card, 1, 3)
    program, example = export_program(network, card, "fp16", "cpu")
    weights = {tensor.dtype for tensor in program.state_dict.values() if tensor.ndim > 1}
    assert torch.float16 in weights
    assert torch.float32 not in weights
    got = program.module()(*(torch.from_numpy(array) for array in feeds.values()))[0].numpy()
    assert got.dtype == np.float32
    assert len(example) == len(feeds)
    want = torch_outputs(network, card, feeds)["depth"]
    assert Difference.between(got, want).within(Difference(0.05, 0.01))


def test_devices() -> None:
    assert parse_device("gpu", "torch_tensorrt") == (0, -1)
    assert parse_device("CUDA:1", "torch_tensorrt") == (1, -1)
    for wrong in ("cpu", "dla:0", "abacus"):
        with pytest.raises(BackendError, match=rf"'{wrong}'.*cuda:N"):
            parse_device(wrong, "torch_tensorrt")
    assert "torch_tensorrt" not in installed_backends("gpu")


def test_without_the_package_the_cure_is_said(
    model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    if find_spec("torch_tensorrt"):
        pytest.skip("torch_tensorrt is installed here")
    with pytest.raises(BackendError, match="pip install torch torch_tensorrt"):
        backend_module.load_modules()
    with pytest.raises(BackendError, match="needs the package torch_tensorrt"):
        select_backend(model, backend="torch_tensorrt", precision="fp32", device="gpu")
    words = ["compile", "dpt_tiny_indoor", "--backend", "torch_tensorrt"]
    assert cli.main(words) != 0
    assert "needs the package torch_tensorrt" in capsys.readouterr().err
    assert cli.main([*words, "--max-batch", "4"]) == 2
    assert "--max-batch" in capsys.readouterr().err


def test_without_a_gpu_or_a_program_the_cure_is_said(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wheel needs CUDA: only its version is put in its place, which is all that is asked."""
    package = SimpleNamespace(__version__="2.9.0")
    monkeypatch.setattr(backend_module, "load_modules", lambda: (torch, package))
    file, _ = model.artefact("fp32")
    try:
        find_gpu()
    except BackendError:
        with pytest.raises(BackendError, match="driver"):
            open_backend("torch_tensorrt", file, device="gpu")
    monkeypatch.setattr(backend_module, "find_gpu", lambda index: Gpu("RTX 4090", "8.9", "12.6"))
    with pytest.raises(
        BackendError,
        match=r"no Torch-TensorRT program of dpt_tiny_indoor for RTX 4090.*--precision fp32`$",
    ):
        open_backend("torch_tensorrt", file, device="gpu")
    with pytest.raises(BackendError, match=r"--precision fp32 --device cuda:1`$"):
        open_backend("torch_tensorrt", file, device="cuda:1")
    # A file of one's own that says it is that model: the other one's program is of no use to it.
    own = tmp_path / "own.onnx"
    graph = onnx.load(file.path)
    graph.doc_string = "trained further"
    onnx.save(graph, own)
    with pytest.raises(BackendError, match=rf"`dense-perception compile {re.escape(str(own))} "):
        open_backend("torch_tensorrt", own, device="gpu")


def test_int8_is_not_in_the_network(model: Model) -> None:
    with pytest.raises(BackendError, match=r"'int8'.*--backend tensorrt"):
        compile_program(model, "int8", "gpu")
