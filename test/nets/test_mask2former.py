"""Mask2Former against ``transformers``, and its merging against naive loops."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dense_perception.core.errors import ArtefactError, CardError, InputError
from dense_perception.nets import zoo
from dense_perception.nets.checkpoint import read_checkpoint
from dense_perception.nets.mask2former import merging
from dense_perception.nets.mask2former.mask2former import Mask2Former, Mask2FormerConfig
from dense_perception.nets.weights import load_weights
from test.support import mask2former_reference as reference
from test.support import official_layouts
from test.support.randomise import randomise

# transformers' losses need it, and with them its class.
pytest.importorskip("scipy")


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    return reference.theirs()


@pytest.mark.parametrize("size_hw", [(64, 96), (100, 68)])
def test_every_layer_equals_the_independent_implementation(
    theirs: nn.Module, size_hw: tuple[int, int]
) -> None:
    ours = reference.loaded(theirs.state_dict())
    image = torch.randn(2, 3, *size_hw, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(image, output_auxiliary_logits=True, output_hidden_states=True)
        got = ours.raw(image)
    masks = [a["masks_queries_logits"] for a in expected.auxiliary_logits]
    for prediction, mask in zip(got, [*masks, expected.masks_queries_logits], strict=True):
        assert 0.1 < (mask < 0).double().mean() < 0.9  # so that attention is masked, not blind
        torch.testing.assert_close(prediction.mask_logits_bqhw, mask, atol=1e-10, rtol=0)
    torch.testing.assert_close(
        got[-1].class_logits_bqk, expected.class_queries_logits, atol=1e-10, rtol=0
    )


@pytest.mark.parametrize("predicts", ["semantic", "instance"])
def test_the_answer_at_the_image_s_size_is_the_processor_s(
    theirs: nn.Module, predicts: str
) -> None:
    """Their processor merges at 384 x 384, so the network gets that size."""
    process = reference.processor()
    ours = reference.loaded(theirs.state_dict(), predicts=predicts)
    image = torch.randn(1, 3, 384, 384, dtype=torch.float64)
    with torch.no_grad():
        outputs = theirs(image)
        got = ours(image)
    if predicts == "semantic":
        (expected,) = process.post_process_semantic_segmentation(
            outputs, return_segmentation_scores=True
        )
        torch.testing.assert_close(got["logits"][0].exp(), expected["segmentation_scores"])
        assert torch.equal(got["logits"].argmax(1)[0], expected["segmentation"])
        return
    (found,) = process.post_process_instance_segmentation(
        outputs, threshold=0.0, return_binary_maps=True
    )
    rows = sorted(
        zip(found["segments_info"], found["segmentation"], strict=True),
        key=lambda row: -row[0]["score"],
    )
    assert len(rows) == int((got["box_scores"][0] > 0).sum()) > 2
    for row, (segment, mask) in enumerate(rows):
        assert got["box_classes"][0, row] == segment["label_id"]
        assert got["box_scores"][0, row] == pytest.approx(segment["score"], abs=1e-6)
        assert torch.equal(got["masks"][0, row] > 0.5, mask > 0)


def test_the_panoptic_merge_is_the_processor_s_where_both_are_the_paper_s() -> None:
    """transformers' keeps a pixel whose winner has less than 1/2 there, and takes a mask's area
    after the weighting. With masks that are sure of every pixel, and one below all, neither
    matters. (Theirs numbers two segments alike after it fused a third: it is not asked to.)"""
    generator = torch.Generator().manual_seed(0)
    queries, classes, things = 12, 5, (1, 2, 4)
    class_logits = 9 * torch.nn.functional.one_hot(
        torch.randint(0, classes, (1, queries), generator=generator), classes + 1
    )
    class_logits = class_logits - 3 * torch.rand(1, queries, 1, generator=generator)
    class_logits[..., -1] = 5.0
    class_logits[0, 0] = torch.tensor([6.0, 0, 0, 0, 0, 5.3])
    mask_logits = torch.full((1, queries, 96, 96), -50.0)
    mask_logits[0, 0] = 50
    for query in range(1, queries):
        y, x = (torch.rand(2, generator=generator) * 64).int().tolist()
        mask_logits[0, query, y : y + 32, x : x + 32] = 50
    outputs = SimpleNamespace(class_queries_logits=class_logits, masks_queries_logits=mask_logits)
    (found,) = reference.processor().post_process_panoptic_segmentation(
        outputs, threshold=0.6, overlap_mask_area_threshold=0.3, label_ids_to_fuse=set()
    )
    got = merging.panoptic(
        class_logits, merging.enlarge(mask_logits, (384, 384)), queries, 0.6, 0.3, things
    )
    segments = {0: {"label_id": 255, "score": 0.0}, **{s["id"]: s for s in found["segments_info"]}}
    assert len({s["label_id"] for s in segments.values()}) > 3
    pairs = set(
        zip(
            found["segmentation"].flatten().tolist(),
            got["labels"].flatten().tolist(),
            got["instance_ids"].flatten().tolist(),
            strict=True,
        )
    )
    # One label and one row for each of their segments; and for each thing, the other way round.
    assert len(pairs) == len({pair[0] for pair in pairs}) > 4
    rows = [pair[2] for pair in pairs if pair[2]]
    assert len(rows) == len(set(rows)) > 2
    for segment, label, row in pairs:
        assert label == segments[segment]["label_id"]
        if row:
            assert got["box_scores"][0, row - 1] == pytest.approx(
                segments[segment]["score"], abs=1e-6
            )


def logits(seed: int, queries: int = 9, classes: int = 5, size: int = 24) -> tuple[Tensor, Tensor]:
    """Blobs that overlap, some at the border, and confident classes."""
    generator = torch.Generator().manual_seed(seed)
    class_logits = 4 * torch.randn(2, queries, classes + 1, generator=generator)
    centre = torch.rand(2, queries, 2, generator=generator) * size
    radius = 2 + size / 3 * torch.rand(2, queries, generator=generator)
    grid = torch.stack(torch.meshgrid(*[torch.arange(size)] * 2, indexing="ij"))
    distance = (grid - centre[..., None, None]).norm(dim=2)
    return class_logits.double(), (radius[..., None, None] - distance).double()


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.999999])
def test_instances_are_those_of_a_naive_loop(threshold: float) -> None:
    found = 0
    for seed in range(4):
        class_logits, mask_logits = logits(seed)
        got = merging.instances(class_logits, mask_logits, 12, threshold)
        for frame in range(2):
            expected = reference.naive_instances(
                class_logits[frame], mask_logits[frame], 12, threshold
            )
            assert_same_rows(got, frame, expected)
            found += len(expected["rows"])
    assert (found == 0) == (threshold > 0.99)


@pytest.mark.parametrize("threshold", [0.0, 0.6, 0.999999])
@pytest.mark.parametrize("count", [2, 9])
def test_the_panoptic_merge_is_that_of_a_naive_loop(threshold: float, count: int) -> None:
    """The loop is the authors', with two differences: things beyond ``count`` are dropped, best
    first, and a segment's rank is its score's."""
    things = (1, 2, 4)
    found, void = 0, 0
    for seed in range(6):
        class_logits, mask_logits = logits(seed)
        got = merging.panoptic(class_logits, mask_logits, count, threshold, 0.7, things)
        for frame in range(2):
            expected = reference.naive_panoptic(
                class_logits[frame], mask_logits[frame], count, threshold, 0.7, things
            )
            assert torch.equal(got["labels"][frame], expected["labels"])
            torch.testing.assert_close(got["confidence"][frame], expected["confidence"])
            assert_same_rows(got, frame, expected)
            found += len(expected["rows"])
            void += int((expected["labels"] == 255).sum())
            # Label and id agree: an id is of a thing of that label.
            ids, labels = got["instance_ids"][frame], got["labels"][frame]
            for row in ids[ids > 0].unique() - 1:
                thing = things[int(got["box_classes"][frame, row])]
                assert (labels[ids == row + 1] == thing).all()
            assert set(labels[ids == 0].unique().tolist()).isdisjoint(things)
    assert (found == 0) == (threshold > 0.99)
    assert void


def assert_same_rows(got: dict[str, Tensor], frame: int, expected: dict[str, Any]) -> None:
    rows = expected["rows"]
    assert int((got["box_scores"][frame] > 0).sum()) == len(rows)
    for index in range(got["box_scores"].shape[1]):
        values = [got[key][frame, index] for key in ("box_scores", "box_classes", "boxes")]
        if index >= len(rows):
            assert all(not value.any() for value in values)
            assert not got["masks"][frame, index].any()
            continue
        assert float(values[0]) == pytest.approx(rows[index]["score"], abs=1e-9)
        assert int(values[1]) == rows[index]["class"]
        assert values[2].tolist() == rows[index]["box"]
    assert torch.equal(got["instance_ids"][frame], expected["ids"])


# BEiT's relative positions at 896 pixels, which the published ViT-CoMer-L has: 24 layers, 16 heads.
BEIT = 24 * 16 * (111**2 + 3)


def test_parameters_equal_the_published_ones() -> None:
    """Xia 2024, on ADE20K."""
    with torch.device("meta"):
        net = zoo.build({"family": "mask2former", "variant": "vit_comer_large", "classes": 150})
    assert sum(p.numel() for p in net.parameters()) + BEIT == pytest.approx(604e6, rel=0.03)


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ({"predicts": "boxes"}, "expected one of"),
        ({"classes": 19}, "thing_classes is"),
        ({"count": 101}, "count is 101"),
        ({"channels": 40}, "multiple of 32"),
        ({"queries": 0}, "queries is 0"),
        ({"predicts": "instance", "classes": 2, "queries": 3, "count": 7}, "at most 6"),
    ],
)
def test_entries_that_do_not_fit_are_refused(entries: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        Mask2FormerConfig(**entries)
    with pytest.raises(CardError, match=match):
        zoo.build({"family": "mask2former", "variant": "swin_tiny", **entries})


def test_it_runs_on_vit_comer_and_a_gradient_reaches_every_parameter() -> None:
    small = {"dim": 12, "depth": 4, "heads": 2, "deform_heads": 2, "stem": 6, "extra": 1}
    head = {
        k: v for k, v in reference.TINY.items() if k not in ("dim", "depths", "heads", "window")
    }
    net = zoo.build(
        {
            "family": "mask2former",
            "variant": "vit_comer_small",
            **small,
            **{k: list(v) if isinstance(v, tuple) else v for k, v in head.items()},
        }
    )
    assert isinstance(net, Mask2Former)
    predictions = net.raw(torch.randn(2, 3, 64, 64))
    assert predictions[-1].mask_logits_bqhw.shape == (2, 7, 16, 16)
    loss = torch.zeros(())
    for prediction in predictions:
        loss = loss + prediction.class_logits_bqk.sum() + prediction.mask_logits_bqhw.square().sum()
    loss.backward()
    silent = [n for n, p in net.named_parameters() if p.grad is None]
    assert not silent


def test_files_in_the_names_of_the_hub_load(theirs: nn.Module, tmp_path: Path) -> None:
    """``transformers`` writes the hub's names, not those that it has in memory."""
    theirs.save_pretrained(tmp_path)
    ours = reference.ours()
    report = load_weights(ours, tmp_path / "model.safetensors")
    assert report.layout == "Hugging Face"
    assert report.loaded == len(ours.state_dict())
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(image).masks_queries_logits
        torch.testing.assert_close(
            ours.raw(image)[-1].mask_logits_bqhw, expected, atol=1e-10, rtol=0
        )


def test_the_authors_files_load(tmp_path: Path) -> None:
    """A pickle of arrays under ``model``, as detectron2 publishes them."""
    original = reference.ours()
    randomise(original)
    weights = official_layouts.mask2former(original)
    arrays = {name: tensor.numpy() for name, tensor in weights.items()}
    path = tmp_path / "model_final_9fd0ae.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "third party"}))
    loaded = reference.ours()
    report = load_weights(loaded, path)
    assert (report.layout, report.missing) == ("detectron2", ())
    assert report.ignored == ("criterion.empty_weight",)
    for name, value in original.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    del arrays["sem_seg_head.predictor.class_embed.weight"]
    path.write_bytes(pickle.dumps({"model": arrays}))
    with pytest.raises(ArtefactError, match=r"1 missing: decoder\.classify\.weight"):
        load_weights(reference.ours(), path)


def test_a_pickle_that_asks_for_more_than_arrays_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"model": {"a": Path("x")}}))
    with pytest.raises(ArtefactError, match=r"it asks for pathlib.*nothing of it was executed"):
        read_checkpoint(path)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ArtefactError, match="cannot read the checkpoint"):
        read_checkpoint(path)
