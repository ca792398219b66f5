"""The exported file: what it promises, and that it computes what eager PyTorch computes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from dense_perception.backends.base import check_graph
from dense_perception.backends.opening import open_backend
from dense_perception.core.card import ModelCard
from dense_perception.core.card_specs import DepthSpec, InputSpec
from dense_perception.core.errors import ArtefactError, CardError, InputError
from dense_perception.core.prediction import DepthKind
from dense_perception.core.reference_frames import reference_feeds
from dense_perception.export.compare import (
    Difference,
    compare_runtimes,
    runtime_outputs,
)
from dense_perception.export.graph_file import feed_names, write_onnx
from dense_perception.export.onnx_graph import ExportedGraph, to_onnx, torch_outputs
from test.export.conftest import HYBRID, VIT, random_network, tiny_card, vit_card


@dataclass
class Exported:
    card: ModelCard
    network: nn.Module
    model: onnx.ModelProto
    path: Path


CARDS = {
    "tiny": tiny_card(provenance={"seed": 7, "note": "ä"}),
    "vit": vit_card(VIT),
    "hybrid": vit_card(HYBRID),
}


@pytest.fixture(scope="module", params=list(CARDS))
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    card = CARDS[request.param]
    network = random_network(card)
    path = tmp_path_factory.mktemp("export") / f"{card.name}.onnx"
    model = to_onnx(network, card)
    write_onnx(model, path)
    return Exported(card, network, model, path)


@pytest.mark.parametrize("batch", [1, 3])
def test_every_runtime_agrees_with_eager(exported: Exported, batch: int) -> None:
    feeds = reference_feeds(exported.card, batch, seed=batch)
    want = torch_outputs(exported.network, exported.card, feeds)
    # The plain and the hybrid form store positions for 64x64: this is another size, not square.
    assert want["depth"].shape == (batch, 64, 96)
    assert np.ptp(want["depth"]) > 0.01
    found = compare_runtimes(exported.path, want, exported.card, feeds)
    assert set(found) == {"onnxruntime", "openvino"}
    for name, difference in found.items():
        assert difference.within(Difference(1e-4, 1e-5)), (name, difference)


def test_frames_of_a_batch_do_not_mix(exported: Exported) -> None:
    feeds = reference_feeds(exported.card, 3)
    for name in ("onnxruntime", "openvino"):
        backend = open_backend(name, exported.path)
        together = backend.infer(feeds)["depth"].copy()
        backend.close()
        alone = runtime_outputs(name, exported.path, feeds)["depth"]
        assert Difference.between(together, alone).max_of_range < 1e-5


def test_file_carries_its_card_and_keeps_its_promise(exported: Exported) -> None:
    inside = ModelCard.from_onnx(exported.path)
    assert inside.to_dict() == exported.card.to_dict()
    backend = open_backend("onnxruntime", exported.path)
    check_graph(inside, backend, str(exported.path))
    backend.close()


def test_cast_is_the_first_operation_and_bytes_go_nowhere_else(exported: Exported) -> None:
    users = [node for node in exported.model.graph.node if "image" in node.input]
    assert [node.op_type for node in users] == ["Cast"]
    order = [node.op_type for node in exported.model.graph.node]
    assert order.index("Cast") < order.index("Mul") < order.index("Transpose")


def test_only_plain_operators(exported: Exported) -> None:
    nodes = exported.model.graph.node
    assert {node.domain for node in nodes} == {""}
    found = {node.op_type for node in nodes}
    # Each has failed, or been silently wrong, in one of the runtimes.
    assert not found & {"GridSample", "BatchNormalization", "Loop", "If", "NonZero"}
    # Shape arithmetic only where group norm is spelled out, which opset 18 has no operator for.
    assert ("Shape" in found) == ("InstanceNormalization" in found)
    modes = [
        attribute.s.decode()
        for node in nodes
        if node.op_type == "Resize"
        for attribute in node.attribute
        if attribute.name == "mode"
    ]
    assert set(modes) == {"linear"}


def test_file_says_nothing_about_the_machine(exported: Exported) -> None:
    content = exported.path.read_bytes()
    for word in (b"site-packages", b".py", str(Path.cwd()).encode(), b"stack_trace"):
        assert word not in content
    assert exported.model.opset_import[0].version == 18
    assert exported.model.ir_version == 9


def test_export_does_not_touch_the_network(exported: Exported) -> None:
    fresh = random_network(exported.card)
    state = exported.network.state_dict()
    assert all((state[key] == value).all() for key, value in fresh.state_dict().items())
    assert [type(m) for m in fresh.modules()] == [type(m) for m in exported.network.modules()]


def test_normalisation_is_the_cards() -> None:
    card = tiny_card(
        network={**CARDS["tiny"].network, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.5]}
    )
    seen = []

    class Spy(nn.Module):
        def forward(self, image_nchw: object, focal_px: object) -> dict[str, object]:
            seen.append(image_nchw)
            return {"depth": image_nchw}

    feeds = reference_feeds(card, 2)

    ExportedGraph(Spy(), card)(*(torch.from_numpy(feeds[name]) for name in feed_names(card)))
    want = (feeds["image"] / 255.0 - [0.4, 0.5, 0.6]) / [0.2, 0.25, 0.5]
    np.testing.assert_allclose(seen[0].numpy(), want.transpose(0, 3, 1, 2), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"input": InputSpec(64, 96, focal=False)}, "the network needs focal length"),
        ({"depth": DepthSpec(DepthKind.RELATIVE)}, "depth.kind is relative, the network's is met"),
        ({"depth": DepthSpec(DepthKind.METRIC, 0.1, 10.0)}, "depth.max_m is 10.0, the network cl"),
        ({"depth": None, "task": "multitask"}, "promises no output"),
        ({"network": {}}, "network.mean is None"),
    ],
)
def test_card_that_contradicts_the_network(changes: dict[str, object], complaint: str) -> None:
    card = tiny_card()
    with pytest.raises(CardError, match=complaint):
        to_onnx(random_network(card), replace(card, **changes))


def test_weights_that_do_not_fit_one_file() -> None:
    """Said before minutes of tracing: some published networks are that large."""
    network = nn.Module()
    network.weight = nn.Parameter(torch.empty(585, 1000, 1000, device="meta"))
    with pytest.raises(ArtefactError, match=r"585\.0 million weights, 2\.3 GB in fp32; one ONNX"):
        to_onnx(network, tiny_card())


def test_size_the_network_cannot_take() -> None:
    card = tiny_card(input=InputSpec(64, 100, focal=True))
    with pytest.raises(InputError, match="100x64, expected multiples of 32: resize it to 96x64"):
        to_onnx(random_network(card), card)


def test_write_leaves_nothing_half_done(tmp_path: Path) -> None:
    model = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], []))
    with pytest.raises(ArtefactError, match="cannot write"):
        write_onnx(model, tmp_path / "missing" / "model.onnx")
    target = tmp_path / "model.onnx"
    target.mkdir()
    with pytest.raises(ArtefactError, match="cannot write"):
        write_onnx(model, target)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
