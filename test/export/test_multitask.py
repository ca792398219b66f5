"""A multitask network through the whole chain: graph, runtimes, int8, perceiver."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from dense_perception import Perceiver
from dense_perception.core.card import ModelCard
from dense_perception.core.card_specs import DepthSpec, InputSpec, SegmentationSpec
from dense_perception.core.errors import CardError
from dense_perception.core.prediction import DepthKind
from dense_perception.export.compare import card_feeds
from dense_perception.export.graph_file import output_names
from dense_perception.export.model_folder import Plan
from dense_perception.export.onnx_graph import ExportedGraph, to_onnx
from dense_perception.export.package import export_model
from dense_perception.export.sensitivity import Judge
from dense_perception.nets import zoo
from dense_perception.training.config import TrainingConfig
from dense_perception.training.initialisation import initialise

pytestmark = pytest.mark.slow  # exporting a decoder for each task takes its time

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
    "tasks": ["segmentation", "depth", "normals", "edges"],
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
    maps=("normals", "edges"),
    network=NETWORK,
)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """Random weights with heads strong enough that every map varies."""
    torch.manual_seed(0)
    built = zoo.build(NETWORK).eval()
    for head in built.heads.values():
        nn.init.normal_(head.out.weight, std=0.3)
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.01 * torch.randn_like(parameter))
        # What is added up learns equal biases.
        own = dict(built.named_parameters())
        for name in [name for name in own if name.endswith(".depth.reduce.bias")]:
            other = name.replace(".upsample.", ".skip.").replace(".reduce.", ".")
            own[other].copy_(own[name])
    return built


@pytest.fixture(scope="module")
def folder(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """export_model itself holds fp32 to 1e-4 of PyTorch in every runtime, and int8 across them."""
    output = tmp_path_factory.mktemp("models")
    feeds = card_feeds(CARD)
    frames = [{name: array[n : n + 1] for name, array in feeds.items()} for n in range(3)]
    export_model(network, CARD, output, Plan(("int8",), frames, max_drop=9.0))
    return output


def test_files_of_every_precision_answer_alike(folder: Path) -> None:
    image = card_feeds(CARD)["image"][0]
    answers = {}
    for precision in ("fp32", "int8"):
        path = folder / f"mult_test_{precision}.onnx"
        with Perceiver.load(path, backend="onnxruntime", threads=1) as perceiver:
            assert perceiver.card.outputs == CARD.outputs
            answers[precision] = perceiver(image)
    fp32, int8 = answers["fp32"], answers["int8"]
    assert fp32.normals is not None
    assert int8.normals is not None
    cosine = (fp32.normals.values_hwc * int8.normals.values_hwc).sum(-1)
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean() < 15
    assert fp32.edges is not None
    assert np.ptp(fp32.edges.values_hw) > 10


def test_a_network_of_things_starts_from_its_streams(network: nn.Module, folder: Path) -> None:
    """What both networks have is taken by name, and no layer's weights for another's."""
    recipe = "config/training/panoptic_tiny_indoor.yaml"
    config = TrainingConfig.from_yaml(Path(__file__).parents[2] / recipe)
    tasks = ["segmentation", "depth", "instances"]
    config = replace(
        config, network={**NETWORK, "family": "panoptic", "tasks": tasks, "stuff": [0]}
    )
    things = zoo.build(config.network)
    origin = initialise(things, config, folder / "mult_test_fp32.onnx")
    parts = origin["parts"]
    assert isinstance(parts, list)
    assert {"stem", "transformer", "heads.depth", "heads.segmentation"} <= set(parts)
    for part in ("upsample", "skip"):
        assert {f"stages.{n}.{part}.depth" for n in (1, 2, 3)} <= set(parts)
    assert not [part for part in parts if "instances" in part]
    ours, theirs = things.state_dict(), network.state_dict()
    taken = [key for key in ours if any(key.startswith(f"{p}.") for p in parts if p != "stem")]
    for key in taken:
        torch.testing.assert_close(ours[key], theirs[key], msg=key)


def test_the_graph_says_what_the_network_says(network: nn.Module, folder: Path) -> None:
    """Layouts and units of the graph, against the network's own outputs."""
    import onnxruntime

    feeds = card_feeds(CARD)
    session = onnxruntime.InferenceSession(folder / "mult_test_fp32.onnx")
    got = dict(zip(output_names(CARD), session.run(None, feeds), strict=True))
    image_nchw = torch.from_numpy(feeds["image"]).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        want = network(image_nchw, torch.from_numpy(feeds["focal_px"]))
    normals = want["normals"].permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(got["normals"], normals, atol=1e-3)
    assert np.abs(got["edges"] - 255 * want["edges"].numpy()).max() <= 0.51
    best = want["logits"].softmax(1).max(1)
    assert (got["labels"] == best.indices.numpy()).mean() > 0.999
    assert np.abs(got["confidence"] - 255 * best.values.numpy()).max() <= 1


def test_a_card_may_leave_tasks_out_but_not_promise_others() -> None:
    one = zoo.build({**NETWORK, "tasks": ["edges", "depth"]}).eval()
    few = replace(CARD, segmentation=None, maps=(), network={**NETWORK, "tasks": ["edges"]})
    feeds = {name: torch.from_numpy(array) for name, array in card_feeds(few).items()}
    with torch.no_grad():
        outputs = ExportedGraph(one, few)(**feeds)
    assert output_names(few) == ["depth"]
    assert [tuple(output.shape) for output in outputs] == [(3, 64, 96)]
    with pytest.raises(CardError, match=r"promises \['labels', 'normals'"):
        to_onnx(one, CARD)


def test_the_judge_sees_every_map(folder: Path) -> None:
    """A graph whose edges are off by a tenth has a drop of a tenth, whatever else is right."""
    feeds = card_feeds(CARD)
    judge = Judge(onnx.load(folder / "mult_test_fp32.onnx"), CARD, [feeds])
    want = judge.want[0]
    assert judge._between(want, want) == pytest.approx(0, abs=1e-3)
    gray = np.full_like(want["edges"], 100)
    assert judge._between({**want, "edges": gray + 51}, {**want, "edges": gray}) == pytest.approx(
        0.2
    )
    turned = {**want, "normals": -want["normals"]}
    assert judge._between(turned, want) == pytest.approx(2, abs=0.01)
