"""The loop end to end on a miniature corpus: it learns, resumes exactly and refuses nonsense."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from dense_perception.commands import train as command
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import TrainingError
from dense_perception.data.augmentation import AugmentConfig
from dense_perception.data.corpus import Corpus
from dense_perception.nets.zoo import build, load_pretrained_stem
from dense_perception.training import loop, objective, run_folder
from dense_perception.training.batches import Batches
from dense_perception.training.config import StageConfig, TrainingConfig
from dense_perception.training.engine import Placement
from dense_perception.training.figures import is_better
from dense_perception.training.initialisation import initialise
from dense_perception.training.loop import Task, fit
from test.support.corpora import write_corpus
from test.support.models import default_network
from test.support.randomise import randomise
from test.support.threads import one_thread

SMALL = {"features": 16, "head_features": [8, 8], "dim": 32, "depth": 1, "heads": 2}
NETWORK = {**default_network(), **SMALL, "width": 64, "height": 64}
CONFIG = TrainingConfig(
    name="tiny_test",
    summary="A test.",
    network=NETWORK,
    width=64,
    height=64,
    steps=11,
    learning_rate=3e-3,
    warmup=0.1,
    ema_decay=0.9,
    rates={"stem": 0},
    fixed_statistics=("stem",),
    feature_mix=("stem.stages.1",),
    stages=(StageConfig(0.5, 64, 32, 4), StageConfig(1.0, 64, 64, 4)),
    save_minutes=100,
)
MILD = AugmentConfig(
    texture_p=0, light_field_p=0, noise_p=0, erase_p=0, blur_p=0, gray_p=0, roll_p=0, zoom_p=0
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    with one_thread():
        yield Corpus(write_corpus(tmp_path_factory.mktemp("data") / "rooms", frames=16))


def task(corpus: Corpus, out: Path, config: TrainingConfig = CONFIG, **changes: Any) -> Task:
    out.mkdir(exist_ok=True)
    return Task(config, corpus, corpus, [0, 5], out, {"data": "test"}, **changes)


def test_the_best_model_is_kept_beside_the_last_one(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead: list[dict[str, float]] = []
    monkeypatch.setattr(loop, "validate", lambda *_: ahead.pop(0))
    config = replace(CONFIG, keep_best="miou", validate_steps=1)
    said: list[str] = []

    def run(steps: int, results: list[dict[str, float]], **changes: Any) -> tuple[int, float]:
        """Validate each step, and again at the end, with these; what is kept."""
        ahead.extend(results)
        given = task(corpus, tmp_path / "run", replace(config, steps=steps), **changes)
        fit(given, lambda record: said.append(str(record.get("text", ""))))
        training = run_folder.read(tmp_path / "run/best.pt").content["training"]
        return training["step"], training["results"]["miou"]

    assert run(2, [{"miou": 0.5}, {"miou": 0.4}, {"miou": 0.4}]) == (1, 0.5)
    last = run_folder.read(tmp_path / "run/model.pt").content["training"]
    assert (last["step"], last["results"]["miou"]) == (2, 0.4)
    assert not [text for text in said if "best.pt" in text]
    without = {"abs_rel": 1.0, "miou": np.nan}
    assert run(4, [{"miou": 0.45}, without, without], resume=True) == (1, 0.5)
    (text,) = [text for text in said if "best.pt" in text]
    assert "the validation has no miou but abs_rel" in text
    assert is_better("abs_rel", 0.1, 0.2)
    assert not is_better("miou", 0.5, 0.5)
    with pytest.raises(TrainingError, match=r"keep_best is 'map', expected .*box_ap50.*things_pq"):
        replace(CONFIG, keep_best="map")


def test_a_run_that_goes_on_keeps_the_best_by_another_figure(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead: list[dict[str, float]] = []
    monkeypatch.setattr(loop, "validate", lambda *_: ahead.pop(0))
    said: list[str] = []

    def run(steps: int, figure: str, *results: dict[str, float], resume: bool = True) -> int:
        """Validate at the end alone; the step of the model that is kept."""
        ahead.extend(results)
        config = replace(CONFIG, keep_best=figure, steps=steps)
        given = task(corpus, tmp_path / "run", config, resume=resume)
        fit(given, lambda record: said.append(str(record.get("text", ""))))
        return int(run_folder.read(best).content["training"]["step"])

    best = tmp_path / "run/best.pt"
    # What was kept by miou is compared by the new figure, which may be unknown of it.
    assert run(1, "miou", {"miou": 0.5, "rmse": 1.0, "d1": np.nan}, resume=False) == 1
    assert run(2, "rmse", {"miou": 0.9, "rmse": 2.0, "d1": 0.1}) == 1
    assert run(3, "d1", {"miou": 0.1, "rmse": 3.0, "d1": 0.1}) == 3
    assert not [text for text in said if "best.pt" in text]
    best.write_bytes(best.read_bytes()[:1000])
    assert run(4, "miou", {"miou": 0.0}) == 4
    (text,) = [text for text in said if "best.pt" in text]
    assert "the model of this validation takes its place" in text


@pytest.mark.parametrize("arithmetic", ["fp32", "bf16"])
def test_the_loss_falls_and_the_checkpoint_carries_a_card(
    corpus: Corpus, tmp_path: Path, arithmetic: str
) -> None:
    config = replace(
        CONFIG,
        steps=30,
        arithmetic=arithmetic,
        augment=MILD,
        feature_mix_p=0.0,
        stages=(StageConfig(1.0, 64, 64, 4),),
    )
    records: list[dict[str, Any]] = []
    results = fit(task(corpus, tmp_path / "run", config), records.append)
    losses = [record["loss"] for record in records if record["kind"] == "train"]
    assert losses[-1] < 0.7 * losses[0]
    assert results["aligned_abs_rel"] < 0.35
    content = run_folder.read(tmp_path / "run" / run_folder.MODEL_FILE).content
    card = ModelCard.from_dict(content["card"], "the checkpoint")
    assert (card.name, card.input.width, card.input.focal) == ("tiny_test", 64, True)
    assert card.provenance["initialisation"]["licence"] == "Apache-2.0"
    measured = card.results["generated_validation_rooms"]["aligned_abs_rel"]
    assert measured == pytest.approx(results["aligned_abs_rel"], abs=1e-4)
    build(card.network).load_state_dict(content["model"])
    log = (tmp_path / "run" / run_folder.LOG_FILE).read_text().splitlines()
    assert [json.loads(line)["kind"] for line in log].count("validation") == 1


@pytest.mark.parametrize("on_device", [False, True])
def test_an_interrupted_run_resumes_to_the_same_weights(
    corpus: Corpus, tmp_path: Path, on_device: bool
) -> None:
    fit(task(corpus, tmp_path / "whole", augment_on_device=on_device))

    def interrupt(record: dict[str, Any]) -> None:
        if record["step"] > 1:
            raise KeyboardInterrupt

    often = replace(CONFIG, save_minutes=0.001)
    with pytest.raises(KeyboardInterrupt):
        fit(task(corpus, tmp_path / "cut", often, augment_on_device=on_device), interrupt)
    state = run_folder.read(tmp_path / "cut" / run_folder.STATE_FILE).content
    assert 0 < state["training"]["step"] < 11
    fit(task(corpus, tmp_path / "cut", resume=True, augment_on_device=on_device))
    whole = run_folder.read(tmp_path / "whole" / run_folder.STATE_FILE).content
    cut = run_folder.read(tmp_path / "cut" / run_folder.STATE_FILE).content
    assert cut["training"]["samples"] == whole["training"]["samples"] == 44
    for which in (lambda c: c["model"], lambda c: c["resume"]["weights"]):
        for key, value in which(whole).items():
            assert torch.equal(value, which(cut)[key]), key


@pytest.mark.parametrize("on_device", [False, True])
def test_worker_processes_change_nothing(corpus: Corpus, tmp_path: Path, on_device: bool) -> None:
    config = replace(CONFIG, steps=4)
    fit(task(corpus, tmp_path / "thread", config, augment_on_device=on_device))
    records: list[dict[str, Any]] = []
    fit(
        task(corpus, tmp_path / "workers", config, workers=2, augment_on_device=on_device),
        records.append,
    )
    thread, workers = (
        run_folder.read(tmp_path / name / run_folder.STATE_FILE).content["resume"]["weights"]
        for name in ("thread", "workers")
    )
    for key, value in thread.items():
        assert torch.equal(value, workers[key]), key
    assert 0 < records[0]["waiting"] <= 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_learns_and_its_checkpoint_resumes_on_a_cpu(corpus: Corpus, tmp_path: Path) -> None:
    config = replace(CONFIG, arithmetic="bf16")
    records: list[dict[str, Any]] = []
    fit(
        task(
            corpus,
            tmp_path / "run",
            config,
            placement=Placement("cuda"),
            workers=2,
            augment_on_device=True,
        ),
        records.append,
    )
    assert records[-2]["loss"] < records[0]["loss"]
    fit(task(corpus, tmp_path / "run", replace(config, steps=12), resume=True))


def test_frozen_weights_stay_and_the_average_is_delivered(corpus: Corpus, tmp_path: Path) -> None:
    config = replace(CONFIG, steps=2)
    fit(task(corpus, tmp_path, config))
    content = run_folder.read(tmp_path / run_folder.STATE_FILE).content
    pretrained = build(NETWORK)
    load_pretrained_stem(pretrained)
    for key, value in pretrained.state_dict().items():
        if key.startswith("stem."):
            assert torch.equal(content["model"][key], value), key
    raw, averaged = content["resume"]["weights"], content["model"]
    assert not torch.equal(raw["head_conv1.weight"], averaged["head_conv1.weight"])


def test_resuming_another_run_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    fit(task(corpus, tmp_path, replace(CONFIG, steps=1)))
    changed = replace(CONFIG, steps=2, learning_rate=0.5)
    with pytest.raises(TrainingError, match=r"other \['learning_rate'\].*--init"):
        fit(task(corpus, tmp_path, changed, resume=True))
    with pytest.raises(TrainingError, match=r"there is no checkpoint .*state\.pt"):
        fit(task(corpus, tmp_path / "empty", resume=True))


def test_starting_from_another_model(corpus: Corpus, tmp_path: Path) -> None:
    fit(task(corpus, tmp_path / "first", replace(CONFIG, steps=1)))
    initial = tmp_path / "first" / run_folder.MODEL_FILE
    fit(task(corpus, tmp_path / "second", replace(CONFIG, steps=1), initial=initial))
    training = run_folder.read(tmp_path / "second" / run_folder.MODEL_FILE).content["training"]
    assert training["initialisation"]["from"] == "model.pt"
    assert training["initialisation"]["initialisation"]["licence"] == "Apache-2.0"


def saved(path: Path, network: dict[str, Any]) -> dict[str, Tensor]:
    """A model.pt of that network with random weights; its tensors."""
    model = build(network)
    randomise(model)
    card = {key: network[key] for key in ("family", "variant")} | {"name": "large"}
    weights = model.state_dict()
    content = {"model": weights, "card": {**card, "network": network}, "training": {}}
    run_folder.save(path, content)
    return weights


def begun(network: dict[str, Any], path: Path) -> tuple[dict[str, Tensor], object, list[str]]:
    """A network's tensors after it began with the file, its record, and what was said."""
    said: list[str] = []
    module = build(network)
    config = replace(CONFIG, network=network)
    origin = initialise(module, config, path, lambda report: said.append(str(report)))
    return module.state_dict(), origin.get("parts"), said


def test_another_variant_gives_whole_parts_alone(tmp_path: Path) -> None:
    """One class of networks serves all variants, whose layers of one name need not be alike."""
    network = {"family": "segmenter", "variant": "tiny", "height": 32, "width": 32, "dim": 64}
    network |= {"heads": 1, "layers": 1, "mean": [0.5] * 3, "std": [0.5] * 3, "classes": 3}
    for variant, expected in (("tiny", True), ("small", False)):
        given = saved(tmp_path / "deep.pt", {**network, "variant": variant, "layers": 2})
        got, _, _ = begun(network, tmp_path / "deep.pt")
        same = {key.split(".")[0] for key in got if torch.equal(got[key], given[key])}
        assert same == ({"encoder", "decoder"} if expected else {"decoder"})


def test_a_smaller_network_takes_what_fits(tmp_path: Path) -> None:
    """Fewer blocks, another size of picture and fewer features: the rest begins anew."""
    path = tmp_path / "large.pt"
    given = saved(path, {**NETWORK, "depth": 2, "width": 96, "features": 24})
    got, parts, said = begun(NETWORK, path)
    same = [k for k, value in got.items() if k in given and torch.equal(value, given[k])]
    for part in ("stem.", "reassemble.", "transformer.blocks.0.", "head_conv2.", "head_conv3."):
        assert all(key in same for key in got if key.startswith(part)), part
    assert not [key for key in same if key.startswith(("decoder.", "head_conv1."))]
    # From 2x3 tokens (rows, columns) to 2x2.
    table = "transformer.position.table_1nc"
    wide_1chw = given[table].reshape(1, 2, 3, -1).permute(0, 3, 1, 2)
    expected = interpolate(wide_1chw, (2, 2), mode="bilinear")
    torch.testing.assert_close(got[table], expected.flatten(2).transpose(1, 2))
    assert said[0].startswith("from large (large.pt): ")
    assert f"1 of them resized: {table}" in said[0]
    assert said[0].endswith("what differs begins anew: decoder, head_conv1")
    assert isinstance(parts, list)
    assert {"stem", "transformer.blocks.0", "head_conv3"} <= {*parts}


def test_attention_of_other_heads_is_not_taken(tmp_path: Path) -> None:
    """Its tensors have the same shapes, but mean something else."""
    plain = {**NETWORK, "qk_norm": False}
    given = saved(tmp_path / "two.pt", plain)
    got, _, said = begun(plain, tmp_path / "two.pt")
    assert not said
    assert all(torch.equal(value, given[key]) for key, value in got.items())
    _, _, said = begun({**plain, "heads": 1}, tmp_path / "two.pt")
    assert said[0].endswith("what differs begins anew: transformer.blocks.0.attention")


def test_next_to_nothing_is_refused(tmp_path: Path) -> None:
    """Of a transformer of another width one tensor fits by chance."""
    network: dict[str, Any] = {"family": "segmenter", "variant": "tiny", "layers": 1, "classes": 3}
    network |= {"mean": [0.5] * 3, "std": [0.5] * 3, "height": 32, "width": 32}
    saved(tmp_path / "wide.pt", network)
    with pytest.raises(TrainingError, match=r"next to nothing of it fits \(decoder\.mask_norm\)"):
        begun({**network, "dim": 64, "heads": 1}, tmp_path / "wide.pt")


def test_a_loss_that_is_not_finite_stops_the_run(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(log_nhw: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return log_nhw.sum() * float("nan"), {"silog": torch.tensor(float("nan"))}

    monkeypatch.setattr(objective, "metric_depth_loss", broken)
    with pytest.raises(TrainingError, match=r"not finite at step 0 \(rooms/\S+: silog nan"):
        fit(task(corpus, tmp_path))
    # The state before the step is good, and goes on.
    monkeypatch.undo()
    fit(task(corpus, tmp_path, replace(CONFIG, steps=1), resume=True))


class Damaged:
    """A corpus in which some frames cannot be read."""

    def __init__(self, corpus: Corpus, damaged: set[int]) -> None:
        self.corpus, self.damaged = corpus, damaged

    def __len__(self) -> int:
        return len(self.corpus)

    def __getitem__(self, index: int, /) -> Any:
        if index in self.damaged:
            raise TrainingError(f"{index:06d}.depth.png is cut short")
        return self.corpus[index]


def test_a_frame_that_cannot_be_read_is_named_and_replaced(corpus: Corpus, tmp_path: Path) -> None:
    records: list[dict[str, Any]] = []
    whole = task(corpus, tmp_path, replace(CONFIG, steps=4))
    fit(replace(whole, train=Damaged(corpus, {3})), records.append)
    texts = [record["text"] for record in records if record["kind"] == "unreadable"]
    assert texts == ["frame 3: 000003.depth.png is cut short"]
    with pytest.raises(TrainingError, match=r"8 frames .* cannot be read.*depth\.png is cut short"):
        fit(replace(whole, train=Damaged(corpus, set(range(16))), out=tmp_path))


def test_memory_that_runs_out_is_said_with_the_cure(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(objective, "metric_depth_loss", exhausted)
    with pytest.raises(TrainingError, match=r"out of memory at step 0, with 4 .*accumulate to 2"):
        fit(task(corpus, tmp_path))
    monkeypatch.undo()
    assert run_folder.read(tmp_path / run_folder.STATE_FILE).content["training"]["step"] == 0


def test_a_step_in_parts_is_the_step(corpus: Corpus, tmp_path: Path) -> None:
    config = replace(CONFIG, steps=3, feature_mix=(), optimiser="sgd")
    fit(task(corpus, tmp_path / "one", config))
    fit(task(corpus, tmp_path / "parts", replace(config, accumulate=2)))
    one, parts = (
        run_folder.read(tmp_path / name / run_folder.STATE_FILE).content["resume"]["weights"]
        for name in ("one", "parts")
    )
    for key, value in one.items():
        torch.testing.assert_close(parts[key], value, rtol=1e-5, atol=1e-5)


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (f"{os.environ['DENSE_PERCEPTION_TEST_DIR']}/executed",)


def test_a_checkpoint_never_executes_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DENSE_PERCEPTION_TEST_DIR", str(tmp_path))
    torch.save({"model": Malicious(), "card": {}, "training": {}}, tmp_path / "evil.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Malicious()))
    for name in ("evil.pt", "plain.pt"):
        with pytest.raises(TrainingError, match="cannot read the checkpoint"):
            run_folder.read(tmp_path / name)
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_cut_short_or_of_something_else(tmp_path: Path) -> None:
    run_folder.save(tmp_path / "a.pt", {"model": {"w": torch.ones(1000)}})
    with pytest.raises(TrainingError, match=r"lacks \['card', 'training'\]"):
        run_folder.read(tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:-300])
    with pytest.raises(TrainingError, match="cannot read the checkpoint"):
        run_folder.read(tmp_path / "b.pt")
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".partial"] == []


def test_batches_depend_on_the_position_alone(corpus: Corpus) -> None:
    stage = StageConfig(1.0, 64, 32, 4)
    first, second = Batches(corpus, CONFIG), Batches(corpus, CONFIG)
    for position in (0, 4, 8):
        first.take(position, stage)
    expected, got = first.take(12, stage), second.take(12, stage)
    assert torch.equal(expected.rgb_nhwc, got.rgb_nhwc)
    assert torch.equal(expected.depth_m, got.depth_m)
    assert torch.equal(expected.focal_px, got.focal_px)
    assert got.rgb_nhwc.shape == (4, 32, 64, 3)
    first.close()
    second.close()


def test_an_epoch_visits_every_frame_once(corpus: Corpus) -> None:
    seen: list[int] = []

    class Watched:
        def __len__(self) -> int:
            return len(corpus)

        def __getitem__(self, index: int, /) -> Any:
            seen.append(index)
            return corpus[index]

    batches = Batches(Watched(), CONFIG)
    stage = StageConfig(1.0, 32, 32, 8)
    orders = []
    for epoch in range(2):
        batches.views.batch(16 * epoch, stage, 8)
        batches.views.batch(16 * epoch + 8, stage, 8)
        orders.append(seen[-16:])
    batches.close()
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(16))
    assert orders[0] != orders[1]


def test_images_are_normalised_as_the_network_expects(corpus: Corpus) -> None:
    batches = Batches(corpus, CONFIG)
    batch = batches.take(0, StageConfig(1.0, 32, 32, 2))
    batches.close()
    image = batch.image_nchw((0.5, 0.4, 0.3), (0.5, 0.25, 0.2))
    expected = (batch.rgb_nhwc.numpy() / 255 - [0.5, 0.4, 0.3]) / [0.5, 0.25, 0.2]
    np.testing.assert_allclose(image.permute(0, 2, 3, 1).numpy(), expected, atol=1e-5)
    assert image.is_contiguous(memory_format=torch.channels_last)


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def test_the_command_trains_and_does_not_overwrite(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import yaml

    smallest = sys.float_info.min
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(CONFIG.to_dict()), encoding="utf-8")
    words = (str(path), "--data", str(corpus.root), "--out", str(tmp_path / "run"), "--threads=1")
    # Nothing is begun yet: the command of a script that is started again.
    assert command.main(arguments(*words, "--steps", "1", "--json", "--resume")) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert records[-1]["kind"] == "validation"
    assert smallest / 2 > 0, "the process still flushes small numbers to zero"
    with pytest.raises(TrainingError, match="already holds a run"):
        command.main(arguments(*words, "--steps", "1"))
    assert command.main(arguments(*words, "--steps", "2", "--resume")) == 0
    assert "aligned_abs_rel" in capsys.readouterr().out
    card = run_folder.read(tmp_path / "run" / run_folder.MODEL_FILE).content["card"]
    assert "--data rooms" in card["provenance"]["command"]
    assert str(tmp_path) not in json.dumps(card)
