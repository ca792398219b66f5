"""A multitask network through the whole chain: graph, runtimes, int8, perceiver."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dense_perception import Perceiver
from dense_perception.core.card import (
    FURTHER_MAPS,
    DepthSpec,
    InputSpec,
    ModelCard,
    SegmentationSpec,
)
from dense_perception.core.errors import CardError
from dense_perception.core.prediction import DepthKind
from dense_perception.export.graph import output_names, to_onnx
from dense_perception.export.package import Plan, export_model
from dense_perception.export.parity import card_feeds
from dense_perception.export.sensitivity import Judge
from dense_perception.nets import zoo

NETWORK = {
    "family": "mult",
    "variant": "lite0",
    "height": 64,
    "width": 96,
    "dim": 32,
    "depth": 1,
    "heads": 2,
    "decoder_dim": 32,
    "windows": [2, 4, 4, 4],
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
}
CARD = ModelCard(
    name="mult_test",
    family="mult",
    variant="lite0",
    task="multitask",
    summary="A network with random weights.",
    input=InputSpec(height=64, width=96, focal=True),
    depth=DepthSpec(DepthKind.METRIC, 0.1, 20.0),
    segmentation=SegmentationSpec("generated_rooms"),
    maps=FURTHER_MAPS,
    network=NETWORK,
)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """Random weights with heads strong enough that every map varies."""
    torch.manual_seed(0)
    built = zoo.build(NETWORK).eval()
    for head in built.heads.values():
        nn.init.normal_(head.out.weight, std=0.3)
    return built


def test_files_of_every_precision_agree_and_answer(network: nn.Module, tmp_path: Path) -> None:
    """export_model itself holds fp32 to 1e-4 of PyTorch in every runtime, and int8 across them."""
    feeds = card_feeds(CARD)
    frames = [{name: array[n : n + 1] for name, array in feeds.items()} for n in range(3)]
    exported = export_model(network, CARD, tmp_path, Plan(("int8",), frames, max_drop=0.5))
    assert set(exported.card.files) == {"fp32", "int8"}
    image = card_feeds(CARD)["image"][0]
    answers = {}
    for precision in ("fp32", "int8"):
        path = tmp_path / f"mult_test_{precision}.onnx"
        with Perceiver.load(path, backend="onnxruntime", threads=1) as perceiver:
            assert perceiver.card.outputs == CARD.outputs
            answers[precision] = perceiver(image)
    fp32, int8 = answers["fp32"], answers["int8"]
    assert fp32.normals is not None
    assert int8.normals is not None
    cosine = (fp32.normals.values_hwc * int8.normals.values_hwc).sum(-1)
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean() < 15
    assert np.ptp(fp32.edges.values_hw) > 10


def test_the_graph_says_what_the_network_says(network: nn.Module) -> None:
    """Layouts and units of the graph, against the network's own outputs."""
    import onnxruntime

    feeds = card_feeds(CARD)
    model = to_onnx(network, CARD)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    got = dict(zip(output_names(CARD), session.run(None, feeds), strict=True))
    image_nchw = torch.from_numpy(feeds["image"]).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        want = network(image_nchw, torch.from_numpy(feeds["focal_px"]))
    normals = want["normals"].permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(got["normals"], normals, atol=1e-3)
    for name in ("edges", "keypoints", "reshading"):
        assert np.abs(got[name] - 255 * want[name].numpy()).max() <= 0.51
    best = want["logits"].softmax(1).max(1)
    assert (got["labels"] == best.indices.numpy()).mean() > 0.999
    assert np.abs(got["confidence"] - 255 * best.values.numpy()).max() <= 1


def test_a_subset_of_the_networks_tasks_may_be_exported_but_no_other(network: nn.Module) -> None:
    few = replace(CARD, segmentation=None, maps=("edges",))
    assert [output.name for output in to_onnx(network, few).graph.output] == ["depth", "edges"]
    two = zoo.build({**NETWORK, "tasks": ["depth", "edges"]}).eval()
    with pytest.raises(CardError, match=r"promises \['labels', 'normals'"):
        to_onnx(two, CARD)


def test_the_judge_sees_every_map(network: nn.Module) -> None:
    """A graph whose edges are off by a tenth has a drop of a tenth, whatever else is right."""
    feeds = card_feeds(CARD)
    judge = Judge(to_onnx(network, CARD), CARD, [feeds])
    want = judge.want[0]
    assert judge._between(want, want) == pytest.approx(0, abs=1e-6)
    gray = np.full_like(want["edges"], 100)
    assert judge._between({**want, "edges": gray + 51}, {**want, "edges": gray}) == pytest.approx(
        0.2
    )
    turned = {**want, "normals": -want["normals"]}
    assert judge._between(turned, want) == pytest.approx(2, abs=0.01)
