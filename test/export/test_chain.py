"""The whole chain for each family: checkpoint, network, ONNX with the card inside, perceiver."""

from __future__ import annotations

import functools
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml

from dense_perception import cli
from dense_perception.backends.tensorrt_build import TensorRtOptions, build_engine
from dense_perception.core.card import ModelCard
from dense_perception.core.card_specs import CheckpointSource
from dense_perception.core.errors import ArtefactError, CardError, ModelNotFoundError
from dense_perception.core.labels import LABEL_SETS
from dense_perception.core.registry import checkpoint_path, exported_dir, find_model
from dense_perception.export.graph import to_onnx, write_onnx
from dense_perception.export.parity import card_feeds, compare_runtimes, torch_outputs
from dense_perception.export.published import load_published
from dense_perception.nets import zoo
from dense_perception.nets.weights import load_checkpoint
from dense_perception.runtime.perceiver import Perceiver
from test.support import official_layouts
from test.support.randomise import randomise

HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}
SMALL_VIT = {"dim": 32, "heads": 2, "taps": [0, 1, 2, 3], "channels": [8, 12, 16, 20]}
UPERNET_HEAD = {"classes": 19, "channels": 8, "auxiliary_channels": 4}
FAMILIES: dict[str, dict[str, Any]] = {
    "dpt_depth": {
        "task": "depth",
        "depth": {"kind": "metric"},
        "size": (64, 96),
        "layout": official_layouts.dpt,
        "network": {
            "family": "dpt",
            "variant": "base",
            **SMALL_VIT,
            "features": 16,
            "scale": 3e-4,
            "shift": 0.1378,
        },
    },
    "dpt_segmentation": {
        "task": "segmentation",
        "segmentation": {"labels": "cityscapes"},
        "size": (64, 96),
        "layout": official_layouts.dpt,
        "network": {
            "family": "dpt",
            "variant": "base",
            **SMALL_VIT,
            "features": 16,
            "classes": 19,
        },
    },
    "dpt_hybrid": {
        "task": "depth",
        "depth": {"kind": "relative_inverse"},
        "size": (64, 96),
        "layout": official_layouts.dpt,
        "network": {
            "family": "dpt",
            "variant": "hybrid",
            **SMALL_VIT,
            "taps": [0, 2],
            "channels": [256, 512, 16, 20],
            "stem_depths": [1, 1, 1],
            "features": 16,
        },
    },
    "depth_anything": {
        "task": "depth",
        "depth": {"kind": "metric", "max_m": 20.0},
        "size": (42, 70),
        "layout": official_layouts.depth_anything,
        "network": {
            "family": "depth_anything",
            "variant": "v2_small",
            **SMALL_VIT,
            "features": 16,
            "max_depth_m": 20.0,
        },
    },
    "segmenter": {
        "task": "segmentation",
        "segmentation": {"labels": "cityscapes", "window": 64, "stride": 40},
        "size": (64, 100),
        "window": 64,
        "layout": official_layouts.segmenter,
        "network": {
            "family": "segmenter",
            "variant": "tiny",
            "dim": 64,
            "heads": 2,
            "layers": 2,
            "classes": 19,
        },
    },
    "upernet": {
        "task": "segmentation",
        "segmentation": {"labels": "cityscapes"},
        "size": (64, 96),
        "layout": official_layouts.upernet,
        "network": {
            "family": "upernet",
            "variant": "swin_tiny",
            "dim": 8,
            "depths": [1, 2, 1, 1],
            "heads": [1, 2, 2, 2],
            "window": 3,
            **UPERNET_HEAD,
        },
    },
    "vit_comer": {
        "task": "segmentation",
        "segmentation": {"labels": "cityscapes"},
        "size": (64, 96),
        "layout": official_layouts.upernet,
        # One deformable attention in each direction: their export is what takes the time.
        "network": {
            "family": "vit_comer",
            "variant": "small",
            "dim": 12,
            "depth": 4,
            "heads": 2,
            "deform_heads": 2,
            "stem": 6,
            "extra": 1,
            "to_v": [False, True, False, False],
            "to_c": [False, False, True, False],
            "interaction": [False, False, True, False],
            **UPERNET_HEAD,
        },
    },
}


def prepared(name: str, folder: Path) -> tuple[ModelCard, torch.nn.Module]:
    """A card and its network, filled from a random checkpoint in the official layout."""
    family = FAMILIES[name]
    height, width = family["size"]
    network = {**family["network"], **HALF}
    if family["layout"] is not official_layouts.upernet:  # whose networks take any size
        side = family.get("window")
        network |= {"height": side or height, "width": side or width}
    data = {
        "schema": 1,
        "name": f"tiny_{name}",
        "family": network["family"],
        "variant": network["variant"],
        "summary": "Random weights.",
        "input": {"height": height, "width": width},
        "network": network,
        **{key: family[key] for key in ("task", "depth", "segmentation") if key in family},
    }
    card = ModelCard.from_dict(data, name)
    original = zoo.build(card.network)
    randomise(original)
    checkpoint = folder / "checkpoint.pth"
    torch.save(family["layout"](original), checkpoint)
    module = zoo.build(card.network).eval()
    load_checkpoint(module, checkpoint)
    return card, module


Exported = tuple[ModelCard, torch.nn.Module, Path]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """Each family is exported once."""

    @functools.cache
    def export(name: str) -> Exported:
        folder = tmp_path_factory.mktemp(name)
        card, module = prepared(name, folder)
        path = folder / f"{card.name}.onnx"
        write_onnx(to_onnx(module, card), path)
        return card, module, path

    return export


@pytest.mark.parametrize("name", FAMILIES)
def test_checkpoint_to_answer(name: str, exported: Callable[[str], Exported]) -> None:
    card, module, path = exported(name)
    feeds = card_feeds(card)
    want = torch_outputs(module, card, feeds)
    main = "depth" if card.depth is not None else "confidence"
    assert float(np.ptp(want[main].astype(np.float64))) > 0.01
    for runtime, difference in compare_runtimes(path, want, card).items():
        assert difference.max_of_range <= 1e-4, runtime
    # Nothing that TensorRT miscompiles (GridSample) or that only resizes a constant is left.
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert "GridSample" not in kinds

    with Perceiver.load(path, backend="onnxruntime", output_size="network") as perceiver:
        for index, rgb_hwc in enumerate(feeds["image"]):
            answer = perceiver(rgb_hwc)
            if card.depth is not None:
                assert answer.depth is not None
                assert answer.labels is None
                np.testing.assert_allclose(
                    answer.depth.values_hw, want["depth"][index], rtol=1e-4, atol=1e-4
                )
            else:
                assert answer.depth is None
                assert answer.labels is not None
                assert answer.labels.labels is LABEL_SETS["cityscapes"]
                same = answer.labels.values_hw == want["labels"][index]
                assert same.mean() > 0.999
                assert np.unique(answer.labels.values_hw).size > 1
                distance = np.abs(
                    answer.labels.confidence_hw.astype(int) - want["confidence"][index]
                )
                assert distance.max() <= 1


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_compiles_with_tensorrt(
    name: str, exported: Callable[[str], Exported]
) -> None:
    """By the builder of TensorRT for RTX, which needs no GPU."""
    _, _, path = exported(name)
    assert len(build_engine(path, TensorRtOptions(compute_capability="8.6", max_batch=2))) > 10_000


def test_labels_are_the_argmax_of_the_softmax(tmp_path: Path) -> None:
    card, module = prepared("dpt_segmentation", tmp_path)
    feeds = card_feeds(card)
    image = torch.from_numpy(feeds["image"]).double().permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        probabilities = torch.softmax(module.double()((image - 0.5) / 0.5)["logits"], dim=1)
    best, labels = probabilities.max(dim=1)
    got = torch_outputs(module.float(), card, feeds)
    assert (got["labels"] == labels.numpy()).mean() > 0.999
    assert np.abs(got["confidence"] - best.numpy() * 255).max() < 0.51


def test_a_card_of_other_labels_is_refused(tmp_path: Path) -> None:
    card, module = prepared("dpt_segmentation", tmp_path)
    data = card.to_dict()
    data["segmentation"]["labels"] = "ade20k"
    with pytest.raises(CardError, match="labels ade20k are 150 classes, the network has 19"):
        to_onnx(module, ModelCard.from_dict(data, "test"))


def test_labels_at_the_frame_size(exported: Callable[[str], Exported]) -> None:
    card, _, path = exported("dpt_segmentation")
    rgb_hwc = card_feeds(card)["image"][0].repeat(2, axis=0).repeat(2, axis=1)
    with Perceiver.load(path, backend="onnxruntime") as perceiver:
        answer = perceiver(rgb_hwc)
        assert answer.labels is not None
        assert answer.labels.values_hw.shape == rgb_hwc.shape[:2]
        assert answer.labels.colored().shape == rgb_hwc.shape
    with Perceiver.load(path, backend="onnxruntime", output_size="network") as perceiver:
        small = perceiver(rgb_hwc)
    assert small.labels is not None
    # Twice the size by the nearest pixel is each pixel twice.
    doubled = small.labels.values_hw.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(answer.labels.values_hw, doubled)


def test_published_weights_become_a_model_that_is_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card, _ = prepared("depth_anything", tmp_path)
    digest = hashlib.sha256((tmp_path / "checkpoint.pth").read_bytes()).hexdigest()
    source = CheckpointSource("https://example.org/weights.pth", "weights.pth", digest[:8])
    card = replace(card, source=source)
    models = tmp_path / "models"
    models.mkdir()
    (models / f"{card.name}.yaml").write_text(yaml.safe_dump(card.to_dict()))
    monkeypatch.setenv("DENSE_PERCEPTION_MODELS", str(models))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ModelNotFoundError, match=f"dense-perception fetch {card.name}"):
        find_model(card.name)
    with pytest.raises(ArtefactError, match=r"not on this machine; run .dense-perception fetch"):
        load_published(card)
    place = checkpoint_path(card)
    assert place is not None
    place.parent.mkdir(parents=True)
    place.write_bytes(b"something else")
    with pytest.raises(ArtefactError, match=f"wants {digest[:8]}"):
        load_published(card)
    shutil.copy(tmp_path / "checkpoint.pth", place)
    _, _, report = load_published(card)
    assert report.layout == "Depth Anything V2"
    assert cli.main(["export", card.name, "--quiet"]) == 0
    model = find_model(card.name)
    assert model.source == exported_dir() / f"{card.name}.yaml"
    _, embedded = model.artefact("fp32")
    assert embedded.provenance["checkpoint_sha256"] == digest
    with Perceiver.load(card.name, backend="onnxruntime") as perceiver:
        answer = perceiver(card_feeds(card)["image"][0])
        assert answer.depth is not None
        assert np.isfinite(answer.depth.metres()).all()
    # Another size, as the published preprocessing has it for another aspect.
    words = ["export", card.name, "--quiet", "--size", "98x70", "--output", str(tmp_path / "wide")]
    assert cli.main(words) == 0
    with Perceiver.load(
        tmp_path / f"wide/{card.name}.yaml", backend="onnxruntime", output_size="network"
    ) as perceiver:
        assert perceiver.card.cost.get("gflops") is None
        answer = perceiver(np.zeros((70, 98, 3), np.uint8))
        assert answer.depth is not None
        assert answer.depth.values_hw.shape == (70, 98)
    assert cli.main([*words[:3], "--size", "99x70", "--output", str(tmp_path / "odd")]) == 2
