"""Training a part of a network, and learning from another one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dense_perception.core.errors import TrainingError
from dense_perception.data.corpus import Corpus
from dense_perception.nets.networks import trained_network
from dense_perception.nets.zoo import build
from dense_perception.training import run_folder
from dense_perception.training.batch import CLEAN
from dense_perception.training.batches import Batches
from dense_perception.training.config import TuningConfig
from dense_perception.training.loop import Task, fit
from dense_perception.training.teacher import Teacher
from dense_perception.training.tuning import merged, trained_share, tune
from test.support.corpora import write_corpus
from test.support.randomise import randomise
from test.support.threads import one_thread
from test.training.test_families import recipe

LORA = TuningConfig("lora", rank=2, alpha=6.0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    root = write_corpus(tmp_path_factory.mktemp("data") / "rooms", frames=8, labels=True)
    with one_thread():
        yield Corpus(root)


def image(side: int) -> torch.Tensor:
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["depth_anything_v2_metric", "upernet_swin"])
def test_low_rank_changes_start_at_none_and_merge_exactly(name: str) -> None:
    network = build(recipe(name).network).eval()
    randomise(network)
    picture = image(recipe(name).width)
    before = {key: value.clone() for key, value in network(picture).items()}
    plain = {key: value.clone() for key, value in network.state_dict().items()}
    tune(network, LORA)
    torch.testing.assert_close(network(picture), before)
    trained = {key for key, p in network.named_parameters() if p.requires_grad}
    backbone = {key for key in trained if key.startswith(("transformer.", "backbone."))}
    assert backbone
    assert all(key.endswith((".down_rc", ".up_rr")) for key in backbone)
    randomise(network)
    other = build(recipe(name).network).eval()
    state = merged(network.state_dict(), LORA)
    assert state.keys() == plain.keys()
    other.load_state_dict(state)
    torch.testing.assert_close(other(picture), network(picture), rtol=1e-4, atol=1e-4)


def test_heads_and_branch_freeze_the_transformer() -> None:
    network = build(recipe("upernet_vit_comer").network)
    tune(network, TuningConfig("branch"))
    trained, of = trained_share(network)
    frozen = {key for key, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {key for key, _ in network.named_parameters() if ".vit." in key}
    assert 0 < trained < of
    anything = build(recipe("depth_anything_v2_metric").network)
    tune(anything, TuningConfig("heads"))
    kept = {key.split(".")[0] for key, p in anything.named_parameters() if p.requires_grad}
    assert kept == {"reassemble", "decoder", "head"}
    with pytest.raises(TrainingError, match="which is for ViT-CoMer"):
        tune(anything, TuningConfig("branch"))


def test_a_run_with_low_rank_changes_resumes_to_the_digit(corpus: Corpus, tmp_path: Path) -> None:
    config = replace(recipe("depth_anything_v2_lora"), steps=12, save_steps=1)

    def interrupt(record: Any) -> None:
        if record.get("step") == 10:
            raise KeyboardInterrupt

    tasks = {}
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
        tasks[name] = Task(config, corpus, corpus, [0], tmp_path / name, {"data": "test"})
    fit(tasks["whole"])
    with pytest.raises(KeyboardInterrupt):
        fit(tasks["cut"], interrupt)
    fit(replace(tasks["cut"], resume=True))
    whole, cut = (
        run_folder.read(tmp_path / name / run_folder.STATE_FILE).content
        for name in ("whole", "cut")
    )
    for which in (lambda c: c["model"], lambda c: c["resume"]["weights"]):
        for key, value in which(whole).items():
            assert torch.equal(value, which(cut)[key]), key
    assert any(bool(v.any()) for k, v in whole["resume"]["weights"].items() if "up_rr" in k)


def teacher_file(corpus: Corpus, out: Path, name: str) -> Path:
    out.mkdir()
    config = replace(recipe(name), steps=1)
    fit(Task(config, corpus, corpus, [0], out, {"data": "test"}))
    return out / run_folder.MODEL_FILE


def test_a_teacher_takes_the_place_of_the_truth(corpus: Corpus, tmp_path: Path) -> None:
    path = teacher_file(corpus, tmp_path / "teacher", "mult_tiny_indoor")
    config = recipe("mult_tiny_indoor")
    teacher = Teacher(path, config, torch.device("cpu"))
    batches = Batches(corpus, config, taught=True)
    batch = batches.take(0, config.stages[0])
    batches.close()
    taught = teacher.teach(batch)
    assert set(taught.targets) == set(config.tasks) - {"depth"}
    network, _ = trained_network(path)
    pixels = batch.targets[CLEAN].permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        answers = network((pixels - 0.5) / 0.5, batch.focal_px)
    np.testing.assert_allclose(taught.depth_m, answers["depth"], rtol=1e-4)
    np.testing.assert_allclose(
        taught.targets["normals"], answers["normals"].permute(0, 2, 3, 1), atol=1e-4
    )
    assert torch.equal(taught.targets["segmentation"], answers["logits"].argmax(1).to(torch.uint8))
    # Another size than the teacher's is resized for it.
    small = replace(config.stages[0], width=32, height=32)
    batches = Batches(corpus, config, taught=True)
    assert teacher.teach(batches.take(0, small)).depth_m.shape == (4, 32, 32)
    batches.close()


def test_frames_without_truth_teach_by_a_teacher(corpus: Corpus, tmp_path: Path) -> None:
    path = teacher_file(corpus, tmp_path / "teacher", "dpt_tiny_indoor")

    class Unlabelled:
        def __len__(self) -> int:
            return len(corpus)

        def __getitem__(self, index: int, /) -> Any:
            sample = corpus[index]
            return replace(sample, depth_m=np.zeros_like(sample.depth_m), labels_hw=None)

    config = replace(recipe("dpt_tiny_indoor"), steps=2)
    (tmp_path / "student").mkdir()
    task = Task(config, Unlabelled(), corpus, [0], tmp_path / "student", {"data": "test"})
    records: list[Any] = []
    fit(replace(task, teacher=path), records.append)
    losses = [record["loss"] for record in records if record["kind"] == "train"]
    assert losses[0] > 0


def test_a_teacher_that_does_not_fit_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    path = teacher_file(corpus, tmp_path / "teacher", "depth_anything_v2_relative")
    with pytest.raises(TrainingError, match=r"gives no segmentation"):
        Teacher(path, recipe("segmenter_linear"), cpu)
    with pytest.raises(TrainingError, match=r"gives relative depth and the student .* metres"):
        Teacher(path, recipe("depth_anything_v2_metric"), cpu)
    with pytest.raises(TrainingError, match=r"cannot learn from .*nothing\.pt"):
        Teacher(tmp_path / "nothing.pt", recipe("segmenter_linear"), cpu)
    relative = Teacher(path, recipe("depth_anything_v2_relative"), cpu)
    inverse = torch.tensor([[[0.0, 0.5, 1.0, 3.0]]])
    depth_m = relative._depth(inverse)
    config = relative.config
    assert float(depth_m.min()) >= config.min_m
    assert float(depth_m.max()) <= config.max_m
    # Inverse depth stays linear.
    slopes = np.diff(1 / depth_m[0, 0]) / np.diff(inverse[0, 0])
    np.testing.assert_allclose(slopes, np.full(3, slopes[0]), rtol=1e-4)
