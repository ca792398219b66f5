"""Labels against annotated pictures: metrics by hand, ADE20K's layout, the authors' protocol."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from dense_perception import cli
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import InputError
from dense_perception.core.labels import VOID
from dense_perception.evaluation.segmentation import (
    compare,
    first_label,
    picture_pairs,
    read_labels,
)
from dense_perception.metrics.dense import Confusion
from dense_perception.nets import zoo
from test.support import official_layouts
from test.support.randomise import randomise

CARD = {
    "schema": 1,
    "name": "tiny_segmenter",
    "family": "segmenter",
    "variant": "tiny",
    "task": "segmentation",
    "summary": "Random weights.",
    "input": {"height": 32, "width": 32},
    "segmentation": {"labels": "ade20k", "window": 32, "stride": 20},
    "source": {"url": "https://example.org/checkpoint.pth", "file": "checkpoint.pth"},
    "network": {
        "family": "segmenter",
        "variant": "tiny",
        "height": 32,
        "width": 32,
        "dim": 64,
        "heads": 2,
        "layers": 1,
        "decoder_layers": 1,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    },
}


def test_metrics_equal_a_count_by_hand() -> None:
    confusion = Confusion(4)
    true = np.array([[0, 0, 1], [1, 2, VOID]])
    predicted = np.array([[0, 1, 1], [1, 0, 3]])
    confusion.add(predicted, true)
    assert confusion.pixel_accuracy == pytest.approx(3 / 5)
    # class 0: 1 of {0,0 true; one more given} = 1/3; class 1: 2/3; class 2: 0/1; class 3: nowhere,
    # for its only prediction is on a void pixel.
    np.testing.assert_allclose(confusion.iou, [1 / 3, 2 / 3, 0, np.nan])
    assert confusion.mean_iou == pytest.approx(1 / 3)
    # A prediction of no class is a miss of the true one, and no class's false positive.
    confusion.add(np.array([[VOID]]), np.array([[1]]))
    np.testing.assert_allclose(confusion.iou, [1 / 3, 2 / 4, 0, np.nan])
    assert confusion.pixel_accuracy == pytest.approx(3 / 6)
    with pytest.raises(InputError, match="resize one"):
        confusion.add(np.zeros((2, 2)), np.zeros((2, 3)))
    assert np.isnan(Confusion(2).mean_iou)


def test_label_files_count_from_their_first_class(tmp_path: Path) -> None:
    stored = np.array([[0, 1, 150, 255]], np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), stored)
    assert read_labels(tmp_path / "a.png", 1).tolist() == [[VOID, 0, 149, VOID]]
    assert read_labels(tmp_path / "a.png", 0).tolist() == [[0, 1, 150, VOID]]
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(InputError, match="expected a PNG of one channel"):
        read_labels(tmp_path / "b.png", 1)
    (tmp_path / "c.png").write_bytes(b"")
    with pytest.raises(InputError, match="no picture of labels"):
        read_labels(tmp_path / "c.png", 1)


def test_folders_that_do_not_belong_together_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        picture_pairs(tmp_path / "images", tmp_path)
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((2, 2, 3), np.uint8))
    (tmp_path / "labels").mkdir()
    with pytest.raises(InputError, match="holds 1 picture, of which none has a PNG"):
        picture_pairs(tmp_path, tmp_path / "labels")


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    """A random network whose checkpoint lies where ``fetch`` puts it, and its card."""
    card = ModelCard.from_dict(CARD, "test")
    network = zoo.build(card.network).eval()
    randomise(network)
    models = tmp_path / "models"
    models.mkdir()
    (models / "tiny_segmenter.yaml").write_text(yaml.safe_dump(card.to_dict()))
    monkeypatch.setenv("DENSE_PERCEPTION_MODELS", str(models))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = tmp_path / "cache/dense_perception/checkpoints/tiny_segmenter"
    place.mkdir(parents=True)
    torch.save(official_layouts.segmenter(network), place / "checkpoint.pth")
    return network


@torch.no_grad()
def ade20k(network: torch.nn.Module, folder: Path) -> tuple[str, ...]:
    """A split in ADE20K's layout whose truth is what ``network`` says of each whole picture."""
    generator = np.random.default_rng(0)
    for part in ("images/validation", "annotations/validation"):
        (folder / part).mkdir(parents=True)
    for index in range(2):
        rgb = cv2.resize(generator.integers(0, 256, (5, 5, 3), np.uint8), (32, 32))
        name = f"ADE_val_{index:08d}"
        # PNG here, so that the bytes stay as they are.
        cv2.imwrite(str(folder / f"images/validation/{name}.png"), rgb[..., ::-1])
        image = (torch.from_numpy(rgb).permute(2, 0, 1)[None] / 255 - 0.5) / 0.5
        labels = network(image)["logits"][0].argmax(0).numpy().astype(np.uint8) + 1
        labels[:2] = 0  # void
        cv2.imwrite(str(folder / f"annotations/validation/{name}.png"), labels)
    return (
        "--images",
        str(folder / "images/validation"),
        "--labels",
        str(folder / "annotations/validation"),
    )


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = cli.main(["evaluate", "tiny_segmenter", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_evaluate_on_ade20k(
    published: torch.nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ade20k(published, tmp_path)
    weights = tmp_path / "cache/dense_perception/checkpoints/tiny_segmenter/checkpoint.pth"
    code, out, _ = run(capsys, *folders, "--weights", str(weights), "--json")
    single = json.loads(out)
    assert code == 0
    assert (single["pictures"], single["miou_percent"]) == (2, 100.0)
    assert single["pixel_accuracy_percent"] == 100.0
    assert len(single["iou_percent"]) > 1
    code, out, _ = run(capsys, *folders, "--multi-scale", "--flip", "--json")
    many = json.loads(out)
    assert code == 0
    assert many["multi_scale"] is many["flip"] is True
    assert 0 < many["miou_percent"] < 100  # other views, another answer
    # The exported model says the same of pictures of the network's size.
    assert cli.main(["export", "tiny_segmenter", "--quiet"]) == 0
    code, out, _ = run(capsys, *folders, "--backend", "onnxruntime", "--precision", "fp32")
    assert code == 0
    assert "single scale, 2 pictures" in out
    assert "pixel accuracy  100.00 %" in out


def test_a_broken_picture_is_reported_and_the_rest_counted(
    published: torch.nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ade20k(published, tmp_path)
    Path(folders[1], "ADE_val_00000000.png").write_bytes(b"\x89PNG")
    code, out, err = run(capsys, *folders, "--flip", "--json")
    assert code == 1
    assert json.loads(out)["pictures"] == 1
    assert "ADE_val_00000000.png: " in err


def test_what_is_missing_is_said(
    published: torch.nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ade20k(published, tmp_path)
    code, _, err = run(capsys, *folders[:2])
    assert code == 2
    assert "--images needs --labels" in err
    assert cli.main(["evaluate", "depth_anything_v2_small", *folders, "--flip"]) == 2
    assert "gives no labels: choose a segmentation model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "says"),
    [(3, "labels go up to 3, the model's classes are 1 to 2"), (0, "name no class")],
)
def test_labels_of_another_numbering_are_named(tmp_path: Path, value: int, says: str) -> None:
    cv2.imwrite(str(tmp_path / "p.png"), np.zeros((4, 4, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "l.png"), np.full((4, 4), value, np.uint8))
    confusion = Confusion(2)
    pairs = iter([(tmp_path / "p.png", tmp_path / "l.png")])
    problems = list(compare(lambda rgb_hwc: np.zeros((4, 4), int), pairs, confusion, 1))
    assert len(problems) == 1
    assert says in problems[0]
    assert not confusion.counts.any()


def test_labels_of_corpora_count_from_one() -> None:
    for labels in ({"labels": "generated_rooms"}, {"labels": "own", "names": ["a", "b"]}):
        assert first_label(ModelCard.from_dict({**CARD, "segmentation": labels}, "x")) == 1
    assert first_label(ModelCard.from_dict({**CARD, "segmentation": {"labels": "coco"}}, "x")) == 0
