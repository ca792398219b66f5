"""An exported model is a checkpoint to go on from: export, start from it, equal outputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from dense_perception.core.card import ModelCard
from dense_perception.core.errors import ArtefactError, CardError
from dense_perception.export.graph_file import embed_card, write_onnx
from dense_perception.export.onnx_graph import to_onnx
from dense_perception.nets import zoo
from dense_perception.nets.checkpoint import read_checkpoint
from dense_perception.nets.weights import load_weights
from dense_perception.training.initialisation import initialise
from dense_perception.training.loop import Task, fit
from test.export.conftest import TINY, tiny_card
from test.support.corpora import write_corpus
from test.training.test_loop import CONFIG, Corpus


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """A network whose every weight and statistic is random, and its file."""
    torch.manual_seed(7)
    network = zoo.build(TINY)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
            nn.init.uniform_(module.weight, 0.5, 1.5)
    for parameter in network.parameters():
        if parameter.ndim == 1:
            with torch.no_grad():
                parameter.add_(0.1 * torch.randn_like(parameter))
    card = tiny_card(provenance={"samples": 123, "command": "dense-perception train first"})
    path = tmp_path_factory.mktemp("artefact") / "tiny_fp32.onnx"
    write_onnx(to_onnx(network.eval(), card), path)
    return network, path


def outputs(network: nn.Module) -> torch.Tensor:
    image = torch.linspace(-1, 1, 2 * 3 * 64 * 96).sin().reshape(2, 3, 64, 96)
    with torch.no_grad():
        depth: torch.Tensor = network.eval()(image, torch.tensor([60.0, 90.0]))["depth"]
    return depth


def test_export_then_load_computes_the_same(exported: tuple[nn.Module, Path]) -> None:
    network, path = exported
    torch.manual_seed(8)
    again = zoo.build(TINY)
    assert not torch.allclose(outputs(again), outputs(network), rtol=1e-2)
    assert load_weights(again, path).layout == "dense_perception"
    assert read_checkpoint(path).card().name == "tiny"
    torch.testing.assert_close(outputs(again), outputs(network), rtol=1e-4, atol=1e-4)


def test_training_goes_on_from_it_and_says_so(
    exported: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    network, path = exported
    corpus = Corpus(write_corpus(tmp_path / "rooms", frames=8))
    # A rate of next to nothing: what comes out is what went in.
    config = replace(CONFIG, network=TINY, steps=1, learning_rate=1e-12, width=96)
    (tmp_path / "run").mkdir()
    fit(Task(config, corpus, corpus, [0], tmp_path / "run", {"data": "test"}, initial=path))
    content = torch.load(tmp_path / "run" / "model.pt", weights_only=True)
    assert content["training"]["initialisation"]["from"] == "tiny_fp32.onnx"
    assert content["training"]["initialisation"]["samples"] == 123
    continued = zoo.build(TINY)
    continued.load_state_dict(content["model"])
    torch.testing.assert_close(outputs(continued), outputs(network), rtol=1e-3, atol=1e-3)


def test_another_network_is_named(exported: tuple[nn.Module, Path]) -> None:
    wider = zoo.build({**TINY, "features": 24})
    before = {name: value.clone() for name, value in wider.state_dict().items()}
    with pytest.raises(ArtefactError, match=r"does not fit DPTLite .*of another shape"):
        load_weights(wider, exported[1])
    assert all(torch.equal(before[name], value) for name, value in wider.state_dict().items())


def test_another_network_takes_the_parts_that_fit(exported: tuple[nn.Module, Path]) -> None:
    network, path = exported
    mult = {key: TINY[key] for key in ("height", "width", "dim", "depth", "heads", "mean", "std")}
    mult |= {"family": "mult", "variant": "lite0", "tasks": ["normals"], "decoder_dim": 32}
    mult["windows"] = [2, 4, 4, 4]
    config = replace(CONFIG, network=mult)
    other = zoo.build(mult).eval()
    came_from = initialise(other, config, path)
    assert came_from["parts"] == ["stem", "transformer"]
    assert (came_from["model"], came_from["samples"]) == ("tiny", 123)
    image = torch.linspace(-1, 1, 3 * 64 * 96).sin().reshape(1, 3, 64, 96)
    with torch.no_grad():
        (shallow, tokens_bnc, _), (want, want_bnc, _) = other.encode(image), network.encode(image)
    torch.testing.assert_close(tokens_bnc, want_bnc, rtol=1e-4, atol=1e-4)
    for got, expected in zip(shallow, want, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    narrow = {**mult, "dim": 16}
    assert initialise(zoo.build(narrow), replace(config, network=narrow), path)["parts"] == ["stem"]


def test_what_is_no_fp32_artefact(exported: tuple[nn.Module, Path], tmp_path: Path) -> None:
    network = zoo.build(TINY)
    with pytest.raises(ArtefactError, match="cannot read"):
        load_weights(network, tmp_path / "missing.onnx")
    torn = tmp_path / "torn.onnx"
    torn.write_bytes(exported[1].read_bytes()[:5000])
    with pytest.raises((ArtefactError, CardError)):
        load_weights(network, torn)
    import onnx

    model = onnx.load(exported[1])
    embed_card(model, replace(ModelCard.from_onnx(exported[1]), precision="int8"))
    write_onnx(model, tmp_path / "int8.onnx")
    with pytest.raises(ArtefactError, match="give the fp32 file"):
        load_weights(network, tmp_path / "int8.onnx")
