"""Segmenter with object embeddings: its decoder against a naive loop, its answers, its graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dense_perception.backends.nvidia.build import TensorRtOptions, build_engine
from dense_perception.backends.openvino import openvino_core
from dense_perception.core.card import ModelCard
from dense_perception.core.card_specs import InputSpec, InstancesSpec, SegmentationSpec
from dense_perception.core.errors import CardError
from dense_perception.core.reference_frames import reference_feeds
from dense_perception.export.graph_file import write_onnx
from dense_perception.export.onnx_graph import to_onnx, torch_outputs
from dense_perception.nets import zoo
from dense_perception.nets.segmenter import Segmenter
from dense_perception.nets.segmenter_objects import SegmenterObjects
from test.support.randomise import randomise
from test.support.tensorrt8 import keeps_the_rules_of_tensorrt8

NETWORK: dict[str, Any] = {
    "family": "segmenter_objects",
    "variant": "tiny",
    "height": 64,
    "width": 96,
    "dim": 64,
    "heads": 2,
    "layers": 1,
    "classes": 4,
    "thing_classes": [1, 3],
    "queries": 6,
    "count": 5,
    "panoptic_threshold": 0.2,
    "overlap_threshold": 0.0,
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
}


def network(**changes: Any) -> SegmenterObjects:
    built = zoo.build({**NETWORK, **changes}).eval()
    assert isinstance(built, SegmenterObjects)
    randomise(built)
    return built


def test_scores_are_cosines_of_patches_and_objects() -> None:
    net = network().double()
    decoder = net.decoder
    tokens = torch.randn(2, 24, 64, dtype=torch.float64)
    with torch.no_grad():
        layers = decoder(tokens)
        for frame in range(2):
            both = torch.cat([decoder.embed(tokens[frame]), decoder.object_embeddings_1qc[0]])
            for block, (classes, masks) in zip(decoder.blocks, layers, strict=True):
                both = block(both[None])[0]
                normed = decoder.norm(both)
                for query in range(6):
                    token = normed[24 + query]
                    torch.testing.assert_close(
                        classes[frame, query],
                        decoder.classify.weight @ token + decoder.classify.bias,
                    )
                    for patch in range(24):
                        cosine = torch.nn.functional.cosine_similarity(
                            normed[patch] @ decoder.patch_projection_cc,
                            token @ decoder.object_projection_cc,
                            dim=0,
                        )
                        expected = decoder.factor * cosine + decoder.offset
                        torch.testing.assert_close(masks[frame, query, patch], expected)


def test_the_encoder_is_segmenter_s() -> None:
    plain = {k: NETWORK[k] for k in ("height", "width", "dim", "heads", "layers", "classes")}
    segmenter = zoo.build({"family": "segmenter", "variant": "tiny", **plain})
    assert isinstance(segmenter, Segmenter)
    network().encoder.load_state_dict(segmenter.encoder.state_dict())


@pytest.mark.parametrize("predicts", ["semantic", "instance", "panoptic"])
def test_every_task_answers_at_the_image_s_size(predicts: str) -> None:
    net = network(predicts=predicts)
    with torch.no_grad():
        found = net(torch.randn(2, 3, 60, 90))  # no multiples of the patch
    shapes = {name: tuple(value.shape) for name, value in found.items()}
    if predicts == "semantic":
        assert shapes == {"logits": (2, 4, 60, 90)}
        return
    assert shapes["boxes"] == (2, 5, 4)
    assert shapes["instance_ids"] == (2, 60, 90)
    assert ("labels" in shapes) == (predicts == "panoptic")
    assert (found["boxes"] <= torch.tensor([90, 60, 90, 60])).all()


def test_a_gradient_reaches_every_parameter() -> None:
    net = network()
    loss = torch.zeros(())
    for classes, masks in net.raw(torch.randn(1, 3, 64, 96)):
        loss = loss + classes.square().sum() + masks.square().sum()
    loss.backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None]


def test_what_objects_have_not_is_refused() -> None:
    with pytest.raises(CardError, match="leave both out"):
        zoo.build({**NETWORK, "decoder": "linear"})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_graph_computes_what_eager_computes_and_builds(tmp_path: Path) -> None:
    import onnxruntime

    card = ModelCard(
        name="tiny_objects",
        family="segmenter_objects",
        variant="tiny",
        task="multitask",
        summary="Random weights.",
        input=InputSpec(64, 96),
        network=NETWORK,
        segmentation=SegmentationSpec("own", names=("floor", "chair", "wall", "table")),
        instances=InstancesSpec("own", 5, False, True, ("chair", "table")),
    )
    net = network()
    path = tmp_path / "objects.onnx"
    model = to_onnx(net, card)
    write_onnx(model, path)
    feeds = reference_feeds(card, 4)
    expected = torch_outputs(net, card, feeds)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    compiled = openvino_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for batch in (1, 4):
        feed = feeds["image"][:batch]
        for got in (session.run(None, {"image": feed}), list(compiled(feed).values())):
            for (name, want), value in zip(expected.items(), got, strict=True):
                one = {"box_scores": 1e-4, "confidence": 1}.get(name, 0)
                apart = np.abs(value.astype(np.float64) - want[:batch]) > one
                assert apart.mean() <= (2e-3 if value.shape[1:] == (64, 96) else 0), name
    assert len(build_engine(path, TensorRtOptions(compute_capability="8.6", max_batch=4))) > 10_000
    keeps_the_rules_of_tensorrt8(model, reference_feeds(card, 1), ties=2e-3)
