"""Lists of things leave PyTorch as the contract says, and coarse files are judged by them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dense_perception.backends.base import promised
from dense_perception.core.card import ModelCard
from dense_perception.core.card_specs import InputSpec, InstancesSpec, SegmentationSpec
from dense_perception.core.errors import CardError
from dense_perception.core.reference_frames import reference_feeds
from dense_perception.export.model_folder import Plan
from dense_perception.export.onnx_graph import ExportedGraph, to_onnx
from dense_perception.export.package import export_model

CARD = ModelCard(
    name="blobs",
    family="test",
    variant="blobs",
    task="instances",
    summary="Boxes around cells of a grid.",
    input=InputSpec(32, 64),
    network={"mean": [0.5] * 3, "std": [0.5] * 3},
    instances=InstancesSpec("own", 5, True, False, ("chair", "table", "person")),
)


class Blobs(nn.Module):
    """The best of 4 x 8 cells as boxes, each with a mask around its middle."""

    def __init__(self, rows: int = 5) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rows = rows
        self.config = SimpleNamespace(things=3, tasks=("instances",))
        self.hidden = nn.Conv2d(3, 8, 8, 8)
        self.classes = nn.Conv2d(8, 3, 1)
        self.sides = nn.Conv2d(8, 4, 1)
        y, x = torch.meshgrid(torch.arange(4), torch.arange(8), indexing="ij")
        self.register_buffer("middles", torch.stack([x, y, x, y], -1).reshape(1, 32, 4) * 8.0 + 4)
        self.register_buffer("columns", torch.arange(64.0) + 0.5)
        self.register_buffer("lines", torch.arange(32.0) + 0.5)
        self.register_buffer("limits", torch.tensor([64.0, 32.0, 64.0, 32.0]))
        self.register_buffer("signs", torch.tensor([-1.0, -1.0, 1.0, 1.0]))
        self.middles: Tensor
        self.columns: Tensor
        self.lines: Tensor
        self.limits: Tensor
        self.signs: Tensor

    def forward(self, image_nchw: Tensor) -> dict[str, Tensor]:
        hidden = functional.relu(self.hidden(image_nchw))
        best_nc, classes_nc = self.classes(hidden).sigmoid().flatten(2).max(dim=1)
        scores_nm, cells_nm = best_nc.topk(self.rows)
        sides_nc4 = 6 + 5 * torch.tanh(self.sides(hidden)).flatten(2).transpose(1, 2)
        boxes_nc4 = self.middles + self.signs * sides_nc4
        boxes_nc4 = torch.minimum(boxes_nc4.clamp(min=0), self.limits)
        boxes_nm4 = boxes_nc4.gather(1, cells_nm.unsqueeze(2).expand(-1, -1, 4))
        inside = [
            torch.sigmoid(boxes_nm4[..., 2, None] - self.columns).unsqueeze(2),
            torch.sigmoid(self.columns - boxes_nm4[..., 0, None]).unsqueeze(2),
            torch.sigmoid(boxes_nm4[..., 3, None] - self.lines).unsqueeze(3),
            torch.sigmoid(self.lines - boxes_nm4[..., 1, None]).unsqueeze(3),
        ]
        masks = inside[0] * inside[1] * inside[2] * inside[3]
        ranks = torch.arange(self.rows, 0, -1, dtype=torch.float32)
        first = (masks > 0.5).float() * ranks.reshape(1, -1, 1, 1)
        ids = first.amax(dim=1)
        return {
            "boxes": boxes_nm4,
            "box_scores": scores_nm,
            "box_classes": classes_nc.gather(1, cells_nm),
            "masks": masks,
            "instance_ids": torch.where(ids > 0, self.rows + 1 - ids, ids),
        }


@pytest.mark.filterwarnings("ignore")
def test_a_network_of_things_is_exported_compared_and_quantised(tmp_path: Path) -> None:
    frames = [{"image": image[None]} for image in reference_feeds(CARD, 6, seed=3)["image"]]
    done = export_model(Blobs(), CARD, tmp_path / "out", Plan(("int8",), frames, max_drop=1.0))
    assert {row.runtime for row in done.rows} >= {"onnxruntime", "openvino"}
    against = [row for row in done.rows if row.against == "PyTorch"]
    assert against
    assert all(row.difference.max_of_range < 1e-4 for row in against)
    record = done.card.provenance["precision"]["int8"]
    assert 0 < record["drop"] <= 1, "no whole byte is exact"
    assert ModelCard.from_onnx(tmp_path / "out" / "blobs_int8.onnx").instances == CARD.instances


def test_the_outputs_are_of_the_promised_types() -> None:
    feeds = torch.from_numpy(reference_feeds(CARD, 2)["image"])
    graph = ExportedGraph(Blobs(), CARD).eval()
    with torch.no_grad():
        found = dict(zip(graph.names, graph(feeds), strict=True))
    for spec in promised(CARD)[1]:
        assert spec.admits(found[spec.name].numpy()), spec
    boxes_n4 = found["boxes"][0].round().int().tolist()
    ids_hw, masks_mhw = found["instance_ids"][0], found["masks"][0]
    # Row by row, the later ones only where nobody is yet: what ids have to mean.
    naive = torch.zeros_like(ids_hw)
    for row in range(len(boxes_n4)):
        naive[(masks_mhw[row] > 127) & (naive == 0)] = row + 1
    assert torch.equal(ids_hw, naive)


def test_a_card_of_other_rows_or_classes_is_named() -> None:
    assert CARD.instances is not None
    few = replace(CARD, instances=replace(CARD.instances, names=("chair",)))
    with pytest.raises(CardError, match="1 class of things, the network has 3"):
        to_onnx(Blobs(), few)
    with pytest.raises(CardError, match="count is 5, the network gives 4 boxes"):
        to_onnx(Blobs(rows=4), CARD)
    network = Blobs()
    network.config = SimpleNamespace(things=3, tasks=("depth",))
    with pytest.raises(CardError, match=r"promises \['instances', 'instance_ids'\]"):
        to_onnx(network, replace(CARD, task="multitask"))


class Panoptic(Blobs):
    def forward(self, image_nchw: Tensor) -> dict[str, Tensor]:
        found = super().forward(image_nchw)
        ids_nhw = found.pop("instance_ids").long()
        of_row_nm = torch.cat(
            [torch.full_like(found["box_classes"][:, :1], 255), found["box_classes"]], dim=1
        )
        labels = of_row_nm.gather(1, ids_nhw.flatten(1)).reshape(ids_nhw.shape)
        certain = found.pop("masks").amax(dim=1)
        return {**found, "instance_ids": ids_nhw, "labels": labels, "confidence": certain}


def test_things_of_a_merge_are_named_in_the_order_of_its_labels() -> None:
    names = ("table", "chair", "person")
    things = InstancesSpec("own", 5, panoptic=True, names=("chair", "person"))
    labelled = SegmentationSpec("own", names=names)
    card = replace(CARD, task="multitask", instances=things, segmentation=labelled)
    network = Panoptic()
    network.config = SimpleNamespace(
        things=2, thing_classes=(2, 1), classes=3, tasks=("segmentation", "instances")
    )
    with pytest.raises(CardError, match=r"class 0 of instances is 'chair', expected 'person'.*2"):
        to_onnx(network, card)


def test_labels_and_ids_of_one_merge_agree() -> None:
    assert CARD.instances is not None
    things = replace(CARD.instances, panoptic=True)
    labelled = SegmentationSpec("own", names=CARD.instances.names)
    card = replace(CARD, task="multitask", instances=things, segmentation=labelled)
    network = Panoptic()
    network.config = SimpleNamespace(things=3, classes=3, tasks=("segmentation", "instances"))
    graph = ExportedGraph(network, card).eval()
    assert graph.names == [
        *("labels", "confidence", "boxes", "box_scores", "box_classes", "instance_ids")
    ]
    with torch.no_grad():
        found = graph(torch.from_numpy(reference_feeds(card, 1)["image"]))
    answer = dict(zip(graph.names, found, strict=True))
    assert answer["labels"].dtype == answer["confidence"].dtype == torch.uint8
    for row in range(5):
        of_thing = answer["labels"][answer["instance_ids"] == row + 1]
        assert (of_thing == answer["box_classes"][0, row]).all()
    assert (answer["labels"][answer["instance_ids"] == 0] == 255).all()
