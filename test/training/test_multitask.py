"""Losses of the further tasks, and the loop with all of them on a miniature corpus."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from dense_perception.core.card import ModelCard
from dense_perception.core.errors import ArtefactError, TrainingError
from dense_perception.core.labels import VOID
from dense_perception.data.augmentation import AugmentConfig
from dense_perception.data.corpus import Corpus
from dense_perception.nets.checkpoint import Checkpoint
from dense_perception.nets.mult import TASKS
from dense_perception.nets.parts import load_parts
from dense_perception.training import run_folder
from dense_perception.training.batch import Batch
from dense_perception.training.config import LossConfig, StageConfig, TrainingConfig
from dense_perception.training.loop import Task, fit
from dense_perception.training.losses import l1_loss, segmentation_loss
from dense_perception.training.objective import task_losses
from dense_perception.training.training_run import TrainOptions, train
from test.support.corpora import write_corpus
from test.support.threads import one_thread

NETWORK = {
    "family": "mult",
    "variant": "lite0",
    "height": 64,
    "width": 64,
    "tasks": list(TASKS),
    "dim": 32,
    "depth": 1,
    "heads": 2,
    "decoder_dim": 32,
    "windows": [2, 4, 4, 4],
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
}
CONFIG = TrainingConfig(
    name="mult_test",
    summary="A test.",
    network=NETWORK,
    width=64,
    height=64,
    steps=24,
    learning_rate=3e-3,
    ema_decay=0.5,
    rates={"stem": 0},
    fixed_statistics=("stem",),
    stages=(StageConfig(1.0, 64, 64, 4),),
    augment=AugmentConfig(texture_p=0, noise_p=0, erase_p=0, blur_p=0, zoom_p=0),
    save_minutes=100,
)


def test_rare_classes_weigh_more() -> None:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(2, 3, 4, 6, generator=generator, dtype=torch.float64)
    classes = torch.zeros(2, 4, 6, dtype=torch.uint8)
    classes[0, :2, :3], classes[1, 0, :2], classes[1, 3] = 1, 2, VOID
    flat = classes.flatten().tolist()
    shares = {k: flat.count(k) / sum(c != VOID for c in flat) for k in (0, 1, 2)}
    rows = logits.permute(0, 2, 3, 1).reshape(-1, 3).tolist()
    weights, total = 0.0, 0.0
    for row, k in zip(rows, flat, strict=True):
        if k != VOID:
            loss = math.log(sum(math.exp(value) for value in row)) - row[k]
            weights += shares[k] ** -0.4
            total += shares[k] ** -0.4 * loss
    got = float(segmentation_loss(logits, classes, 0.4))
    assert got == pytest.approx(total / weights, rel=1e-9)
    void = torch.full_like(classes, VOID)
    assert float(segmentation_loss(logits, void, 0.4)) == 0


def test_cross_entropy_equals_its_definition_and_leaves_void_out() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator)
    classes = torch.randint(0, 3, (2, 4, 5), generator=generator).to(torch.uint8)
    classes[0, 1, 2] = classes[1, 3, 4] = VOID
    total, count = 0.0, 0
    for n, y, x in np.ndindex(2, 4, 5):
        if int(classes[n, y, x]) == VOID:
            continue
        scores = [math.exp(float(v)) for v in logits[n, :, y, x]]
        total -= math.log(scores[int(classes[n, y, x])] / sum(scores))
        count += 1
    assert float(segmentation_loss(logits, classes)) == pytest.approx(total / count, rel=1e-5)
    assert float(segmentation_loss(logits, torch.full_like(classes, VOID))) == 0


def test_unknown_pixels_have_no_influence_on_l1() -> None:
    predicted = torch.tensor([[1.0, 5.0, 2.0]], requires_grad=True)
    loss = l1_loss(predicted, torch.tensor([[0.5, float("nan"), 4.0]]))
    loss.backward()
    assert loss.item() == pytest.approx((0.5 + 2) / 2)
    assert predicted.grad is not None
    assert predicted.grad.tolist() == [[0.5, 0.0, -0.5]]
    assert l1_loss(predicted, torch.full((1, 3), float("nan"))).item() == 0


def test_the_sum_is_weighted_and_ignores_the_length_of_normals() -> None:
    maps = {"normals": torch.tensor([0.0, 0.0, -7.0]).reshape(1, 3, 1, 1)}
    maps["edges"] = torch.full((1, 1, 1, 1), 0.75)
    targets = {"normals": torch.tensor([0.0, -1.0, 0.0]).reshape(1, 1, 1, 3)}
    targets["edges"] = torch.full((1, 1, 1), 0.25)
    none = torch.zeros(1, 1, 1)
    batch = Batch(none.to(torch.uint8), none, torch.ones(1), targets)
    config = replace(CONFIG, losses=LossConfig(normals=3.0, edges=2.0))
    losses, parts = task_losses(maps, batch, config, needs_focal=False)
    assert float(parts["normals"]) == pytest.approx(2 / 3)
    assert float(parts["edges"]) == pytest.approx(0.5)
    assert float(losses["normals"]) == pytest.approx(3 * 2 / 3)
    assert float(losses["edges"]) == pytest.approx(2 * 0.5)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    root = write_corpus(tmp_path_factory.mktemp("data") / "rooms", frames=12, labels=True)
    with one_thread():
        yield Corpus(root)


def test_every_loss_falls_and_the_checkpoint_carries_a_multitask_card(
    corpus: Corpus, tmp_path: Path
) -> None:
    records: list[dict[str, float]] = []
    task = Task(CONFIG, corpus, corpus, [0, 5], tmp_path, {"data": "test"})
    results = fit(task, records.append)
    losses = [record["loss"] for record in records if record["kind"] == "train"]
    assert losses[-1] < 0.8 * losses[0]
    content = run_folder.read(tmp_path / run_folder.MODEL_FILE).content
    card = ModelCard.from_dict(content["card"], "the checkpoint")
    assert card.task == "multitask"
    assert set(card.outputs) == {"labels", *TASKS} - {"segmentation"}
    for name in ("abs_rel", "miou", "pixel_accuracy", "normals_mean_deg", "edges_l1"):
        assert math.isfinite(results[name]), name
    # Two classes, floor and wall: chance is a half.
    assert results["pixel_accuracy"] > 0.6


def test_a_run_starts_from_the_parts_of_another_network_that_fit(
    corpus: Corpus, tmp_path: Path
) -> None:
    from dense_perception.nets.zoo import build
    from test.support.models import default_network

    depth = {**default_network(), "width": 64, "height": 64, "features": 16}
    depth |= {"head_features": [8, 8], "dim": 32, "depth": 1, "heads": 2}
    other = build(depth)
    card = {"family": "dpt", "variant": "hybrid_lite0", "name": "depth_model"}
    initial = tmp_path / "other.pt"
    content = {"model": other.state_dict(), "card": card, "training": {"data": "rooms"}}
    run_folder.save(initial, content)

    config = replace(CONFIG, steps=1, rates={"stem": 0, "transformer": 0})
    (tmp_path / "run").mkdir()
    fit(Task(config, corpus, corpus, [0], tmp_path / "run", {"data": "test"}, initial=initial))
    got = run_folder.read(tmp_path / "run" / run_folder.MODEL_FILE).content
    for key, value in other.state_dict().items():
        if key.startswith(("stem.", "transformer.")) and "num_batches" not in key:
            assert torch.equal(got["model"][key], value), key
    assert got["training"]["initialisation"]["parts"] == ["stem", "transformer"]
    with pytest.raises(ArtefactError, match="no part of it fits"):
        load_parts(build(NETWORK), Checkpoint(Path("x.pt"), {"head.weight": torch.zeros(1)}))


def test_a_corpus_without_labels_teaches_the_other_tasks(tmp_path: Path) -> None:
    labelled = write_corpus(tmp_path / "rooms", frames=4, labels=True)
    unlabelled = write_corpus(tmp_path / "walk", frames=4)
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(CONFIG.to_dict()))
    records: list[dict[str, object]] = []
    options = TrainOptions(
        config=config,
        data=[labelled, unlabelled],
        validation=[labelled],
        out=tmp_path / "run",
        steps=1,
        validation_frames=2,
        device="cpu",
    )
    train(options, records.append)
    notices = [record["text"] for record in records if record["kind"] == "notice"]
    assert notices[0] == "no labels in walk: teaches every task but segmentation"
    assert len(notices) == 2
    assert "no corpus names its classes" in str(notices[1])
    with pytest.raises(TrainingError, match="no corpus of walk has labels"):
        train(replace(options, data=[unlabelled], out=tmp_path / "other"), records.append)
