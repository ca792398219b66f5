"""Mask2Former as a graph: eager against both runtimes, merging at its limits; TensorRT builds."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dense_perception.backends.nvidia.build import TensorRtOptions, build_engine
from dense_perception.core.card import ModelCard
from dense_perception.core.card_specs import InputSpec, InstancesSpec, SegmentationSpec
from dense_perception.core.reference_frames import reference_feeds
from dense_perception.export.graph_file import write_onnx
from dense_perception.export.onnx_graph import to_onnx, torch_outputs
from dense_perception.nets import zoo
from dense_perception.nets.mask2former import merging
from test.export.conftest import runtimes
from test.support.mask2former_reference import TINY
from test.support.randomise import randomise
from test.support.tensorrt8 import keeps_the_rules_of_tensorrt8
from test.support.tiny_detectors import Strided
from test.support.tiny_families import FAMILIES, HALF

NAMES = ("floor", "chair", "table", "wall", "person", "sky")
THINGS = (1, 2, 4)
ROWS = 100
# ViT-CoMer is in the graph of Mask R-CNN, too, and takes half of the time here.
FULL = os.environ.get("DENSE_PERCEPTION_ENDURANCE") == "full"

PANOPTIC = ModelCard(
    name="tiny_panoptic",
    family="mask2former",
    variant="swin_tiny",
    task="multitask",
    summary="Random weights.",
    input=InputSpec(64, 96),
    network={
        "family": "mask2former",
        "variant": "swin_tiny",
        **{key: list(v) if isinstance(v, tuple) else v for key, v in TINY.items()},
        "depths": [1, 1, 1, 1],
        "pixel_layers": 1,
        "query_layers": 2,
        "panoptic_threshold": 0.2,
        "overlap_threshold": 0.3,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    },
    segmentation=SegmentationSpec("own", names=NAMES),
    instances=InstancesSpec("own", 7, False, True, ("floor", "table", "wall")),
)
_SMALL = {key: TINY[key] for key in ("classes", "count", "channels", "attention_heads", "queries")}
INSTANCE = ModelCard(
    name="tiny_instance",
    family="mask2former",
    variant="vit_comer_tiny",
    task="instances",
    summary="Random weights.",
    input=InputSpec(64, 96),
    network={
        **{k: v for k, v in FAMILIES["vit_comer"]["network"].items() if "channels" not in k},
        **_SMALL,
        "family": "mask2former",
        "variant": "vit_comer_tiny",
        "predicts": "instance",
        "instance_threshold": 0.05,
        "pixel_layers": 1,
        "pixel_hidden": 24,
        "query_layers": 1,
        "query_hidden": 40,
        **HALF,
    },
    instances=InstancesSpec("own", 7, True, False, NAMES),
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("card", [PANOPTIC, INSTANCE], ids=["swin", "vit_comer"])
def test_both_runtimes_compute_what_eager_computes_and_tensorrt_builds(
    card: ModelCard, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = zoo.build(card.network).eval()
    if card is INSTANCE and not FULL:
        network.backbone = Strided(*network.backbone.channels).eval()
    randomise(network)
    path = tmp_path / "network.onnx"
    model = to_onnx(network, card)
    write_onnx(model, path)
    assert not {"GridSample", "NonZero", "Loop", "If"} & {n.op_type for n in model.graph.node}
    feeds = reference_feeds(card, 4)
    expected = torch_outputs(network, card, feeds)
    if card is PANOPTIC:
        assert 0 < (expected["labels"] == 255).mean() < 1
    assert (expected["box_scores"] > 0).any()
    for run in runtimes(path).values():
        for batch in (1, 4):
            got = run({name: value[:batch] for name, value in feeds.items()})
            for (name, want), value in zip(expected.items(), got, strict=True):
                one = {"box_scores": 1e-4, "confidence": 1, "masks": 1, "boxes": 0}.get(name, 0)
                apart = np.abs(value.astype(np.float64) - want[:batch]) > one
                # A pixel at which two masks are equally likely may go to either.
                assert apart.mean() <= (2e-3 if value.shape[-2:] == (64, 96) else 0), name
    assert len(build_engine(path, TensorRtOptions(compute_capability="8.6", max_batch=4))) > 10_000
    keeps_the_rules_of_tensorrt8(model, reference_feeds(PANOPTIC, 1), ties=2e-3)


class Merge(nn.Module):
    """The merging of a task alone: class and mask logits in, its entries out."""

    def __init__(self, predicts: str) -> None:
        super().__init__()
        self.predicts = predicts

    def forward(self, classes: Tensor, masks: Tensor) -> dict[str, Tensor]:
        masks = merging.enlarge(masks, (39, 48))
        if self.predicts == "semantic":
            return merging.semantic(classes, masks)
        if self.predicts == "instance":
            return merging.instances(classes, masks, ROWS, 0.5)
        return merging.panoptic(classes, masks, ROWS, 0.5, 0.3, THINGS)


def limits() -> tuple[Tensor, Tensor]:
    """Four frames of 102 queries: nothing found, 100 things side by side, one whose mask goes over
    all borders, and noise in a dozen."""
    generator = torch.Generator().manual_seed(0)
    queries = ROWS + 2
    classes = torch.zeros(4, queries, len(NAMES) + 1)
    masks = torch.full((4, queries, 10, 12), -6.0)
    classes[:3, :, -1] = 9
    rows = torch.arange(ROWS)
    classes[1, :ROWS, -1] = 0
    classes[1, rows, torch.tensor(THINGS).repeat(34)[:ROWS]] = 6 + rows / 50
    masks[1].flatten(1)[rows, rows] = 6
    classes[2, 0, -1] = 0
    classes[2, 0, 4] = 9
    masks[2, 0] = 6
    classes[3] = 5 * torch.randn(queries, len(NAMES) + 1, generator=generator)
    classes[3, 12:, -1] = 50
    masks[3] = 4 * torch.randn(queries, 10, 12, generator=generator)
    return classes, masks


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("predicts", ["semantic", "instance", "panoptic"])
def test_merging_in_a_graph_at_its_limits(predicts: str, tmp_path: Path) -> None:
    classes, masks = limits()
    module = Merge(predicts).eval()
    expected = module(classes, masks)
    if predicts != "semantic":
        assert [int((row > 0).sum()) for row in expected["box_scores"]][:3] == [0, ROWS, 1]
        assert expected["boxes"][2, 0].tolist() == [0, 0, 48, 39]
        assert not expected["instance_ids"][0].any()
    batch = {0: torch.export.Dim("N", min=1, max=64)}
    path = tmp_path / "merge.onnx"
    torch.onnx.export(
        module,
        (classes, masks),
        path,
        dynamo=True,
        opset_version=18,
        input_names=["class_logits", "mask_logits"],
        output_names=list(expected),
        dynamic_shapes=(batch, batch),
        verbose=False,
    )
    for run in runtimes(path).values():
        for count in (1, 4):
            got = run(
                {"class_logits": classes[:count].numpy(), "mask_logits": masks[:count].numpy()}
            )
            for (name, want), value in zip(expected.items(), got, strict=True):
                assert value.shape == want[:count].shape
                np.testing.assert_allclose(value, want[:count], atol=1e-4, err_msg=name)
