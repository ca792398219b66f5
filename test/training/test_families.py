"""Every family and task learns from its recipe in config/training, here with a tiny network."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import yaml

from dense_perception.core.errors import TrainingError
from dense_perception.core.prediction import DepthKind
from dense_perception.data.augmentation import AugmentConfig
from dense_perception.data.corpus import Corpus
from dense_perception.data.description import write_description
from dense_perception.data.shards import write_shard
from dense_perception.data.views import whole_view
from dense_perception.nets.networks import trained_network
from dense_perception.nets.zoo import build, normalisation, stuff_of
from dense_perception.training import training_run
from dense_perception.training.batches import whole_batches
from dense_perception.training.config import LossConfig, StageConfig, TrainingConfig
from dense_perception.training.loop import Task, fit
from dense_perception.training.objective import Learner
from dense_perception.training.provenance import Provenance
from dense_perception.training.training_run import TrainOptions, train
from test.support.coco_set import PROBLEMS, coco_things
from test.support.corpora import write_corpus, write_things
from test.support.threads import one_thread

FULL = os.environ.get("DENSE_PERCEPTION_ENDURANCE") == "full"
RECIPES = Path(__file__).parents[2] / "config" / "training"
SIDE = 64
SIZE = {"height": SIDE, "width": SIDE}
VIT = {"dim": 32, "heads": 2}
SWIN: dict[str, Any] = {"dim": 16, "depths": [1, 1, 1, 1], "heads": [1, 2, 2, 2], "window": 4}
UPERNET = {"classes": 2, "channels": 24, "auxiliary_channels": 16, "drop_path": 0.0}
QUERIES = {"classes": 2, "channels": 32, "attention_heads": 2, "queries": 6, "pixel_layers": 1}
QUERIES |= {"query_layers": 3, "pixel_hidden": 32, "query_hidden": 32, "drop_path": 0.0}
COMER: dict[str, Any] = {**VIT, "depth": 4, "deform_heads": 2, "stem": 8, "mrfp_ratio": 1.0}
HYBRID: dict[str, Any] = {"stem_depths": [1, 1, 1], "taps": [0, 1], "channels": [256, 512, 16, 16]}
DPT: dict[str, Any] = {**SIZE, **VIT, **HYBRID, "features": 24}
ANYTHING: dict[str, Any] = {"height": 56, "width": 56, "dim": 24, "taps": [0, 1, 2, 3]}
ANYTHING |= {"heads": 2, "channels": [16, 16, 16, 16], "features": 24}
SEGMENTER = {**SIZE, "dim": 64, "heads": 2, "layers": 2, "classes": 2, "drop_path": 0.0, "patch": 8}
LITE = {**SIZE, "dim": 32, "depth": 1, "heads": 2}
SMALL: dict[str, dict[str, Any]] = {
    "dpt_hybrid_relative": DPT,
    "dpt_hybrid_metric": DPT,
    "dpt_hybrid_segmentation": {**DPT, "classes": 2},
    "depth_anything_v2_relative": ANYTHING,
    "depth_anything_v2_metric": ANYTHING,
    "depth_anything_v2_lora": ANYTHING,
    "segmenter_linear": SEGMENTER,
    # As `train` sets it for two classes, which LayerNorm cannot be trained on.
    "segmenter_mask": {**SEGMENTER, "decoder_layers": 1, "score_norm": "scale"},
    "upernet_swin": {**SWIN, **UPERNET},
    "mask2former_swin": {**SWIN, **QUERIES},
    "upernet_vit_comer": {**COMER, **UPERNET},
    "vit_comer_frozen": {**COMER, **UPERNET},
    "mult_swin": {**SWIN, "classes": 2, "decoder_depths": [1, 1, 1, 1]},
    "dpt_tiny_indoor": {**LITE, "features": 16, "head_features": [8, 8]},
    "dpt_tiny_indoor_gpu": {**LITE, "features": 16, "head_features": [8, 8]},
    "mult_tiny_indoor": {**LITE, "classes": 2, "decoder_dim": 32, "windows": [2, 4, 4, 4]},
}
SMALL["panoptic_tiny_indoor"] = {**SMALL["mult_tiny_indoor"], "stuff": [0], "count": 4}
SMALL["mask_rcnn_vit_comer"] = {
    **COMER,
    "extra": 1,
    "classes": 2,
    "channels": 16,
    "hidden": 16,
    "proposals": 16,
    "candidates": 20,
    "count": 4,
}
SMALL["mult_tiny_indoor_gpu"] = SMALL["mult_tiny_indoor"]
SMALL["finetune_dpt_tiny"] = SMALL["dpt_tiny_indoor"]
# Rate and steps of warm-up, where another is needed to overfit. MulT on Swin begins at half of the
# largest depth, and faster steps towards the scene's bring all pixels to one value: the norm
# before the head then leaves nothing of their differences.
GENTLE = {"mult_swin": (1e-3, 50)}
# The same networks and losses as other recipes'; detectors learn in test_detector_losses.py.
ALIKE = ("_gpu", "_lora", "_frozen", "finetune_dpt_tiny", "mask_rcnn_vit_comer")


def recipe(name: str) -> TrainingConfig:
    """The recipe with a tiny network, tiny pictures and two steps."""
    config = TrainingConfig.from_yaml(RECIPES / f"{name}.yaml")
    side = SMALL[name].get("height", SIDE)
    return replace(
        config,
        network={**config.network, **SMALL[name]},
        width=side,
        height=side,
        minutes=1,
        steps=2,
        arithmetic="fp32",
        stages=(StageConfig(1.0, side, side, 4),),
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    root = write_corpus(tmp_path_factory.mktemp("data") / "rooms", frames=32, labels=True)
    with one_thread():
        yield Corpus(root)


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus(write_things(tmp_path_factory.mktemp("things") / "boxes", frames=32))


@pytest.fixture(scope="module")
def smooth(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    """Scenes without steps of depth: of 64 pixels, networks whose maps have 16 or 32 cannot make
    any, and the loss of the best such map is over a tenth of the first one.
    """
    root = tmp_path_factory.mktemp("smooth") / "rooms"
    with one_thread():
        yield Corpus(write_corpus(root, frames=32, labels=True, boxes=False))


def test_every_recipe_is_tried() -> None:
    assert {path.stem for path in RECIPES.glob("*.yaml")} == set(SMALL)
    for name in SMALL:
        assert recipe(name).tasks


class Events:
    """Stands in for TensorBoard's writer, whose package CI does not have."""

    scalars: ClassVar[dict[str, dict[int, float]]] = {}
    pictures: ClassVar[dict[str, np.ndarray]] = {}

    def __init__(self, folder: str) -> None:
        self.scalars.clear()
        self.pictures.clear()

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.setdefault(name, {})[step] = value

    def add_image(self, name: str, rgb_hwc: np.ndarray, step: int, dataformats: str) -> None:
        assert (rgb_hwc.dtype, rgb_hwc.ndim, dataformats) == (np.uint8, 3, "HWC")
        self.pictures[name] = rgb_hwc

    def flush(self) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("name", [name for name in SMALL if not name.endswith("_gpu")])
def test_a_recipe_trains_and_delivers_a_card(
    name: str, corpus: Corpus, things: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SimpleNamespace(SummaryWriter=Events)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", writer)
    config = recipe(name)
    provenance: Provenance = {"data": "test"}
    if "instances" in config.tasks:
        corpus = things
        provenance["classes"] = list(things.classes)
    task = Task(config, corpus, corpus, [0, 5], tmp_path, provenance, tensorboard=True)
    results = fit(task)
    network, card = trained_network(tmp_path / "model.pt")
    assert card.name == config.name
    if "depth" in config.tasks:
        assert card.depth is not None
        assert math.isfinite(results["aligned_abs_rel"])
        relative = card.depth.kind == DepthKind.RELATIVE_INVERSE
        assert relative == ("relative" in name) == ("abs_rel" not in results)
    if "segmentation" in config.tasks:
        assert math.isfinite(results["miou"])
    if "instances" in config.tasks:
        assert math.isfinite(results["things_pq"])
        assert card.instances is not None
        merged = "segmentation" in config.tasks
        assert (card.instances.panoptic, card.instances.masks) == (merged, not merged)
        assert card.instances.names == (("box",) if merged else things.classes)
    if config.tasks == ("segmentation",):
        assert (card.task, card.depth) == ("segmentation", None)
    names = [key for key, _ in network.named_parameters()]
    assert not [key for key in names if "parametrizations" in key]

    # The curves are those of the log; a row of pictures has truth and answer of each map.
    for line in (tmp_path / "log.jsonl").read_text().splitlines():
        record = json.loads(line)
        for figure in ("loss", "miou", "aligned_abs_rel"):
            if figure in record:
                curve = Events.scalars[f"{record['kind']}/{figure}"]
                assert curve[record["step"]] == pytest.approx(record[figure], abs=1e-6)
    maps = {"depth", "segmentation", "normals", "instances"} & set(config.tasks)
    assert set(Events.pictures) == {"frame_0", "frame_1"}
    for k, index in enumerate((0, 5)):
        row = Events.pictures[f"frame_{k}"]
        tiles = np.split(row, 1 + 2 * len(maps), axis=1)
        assert tiles[0].shape == (config.height, config.width, 3)
        np.testing.assert_array_equal(
            tiles[0], whole_view(corpus[index], config.width, config.height).rgb_hwc
        )
        for tile in tiles[1:]:
            found = maps & {"segmentation", "instances"}
            assert tile.std() > 0 or found, "a map, not one colour"


@pytest.mark.parametrize("predicts", ["instance", "panoptic"])
def test_queries_learn_things(predicts: str, things: Corpus, tmp_path: Path) -> None:
    config = recipe("mask2former_swin")
    entries = {"predicts": predicts, "thing_classes": [1], "count": 6, "instance_threshold": 0.1}
    config = replace(config, network={**config.network, **entries, "panoptic_threshold": 0.1})
    provenance: Provenance = {"data": "test", "classes": list(things.classes)}
    results = fit(Task(config, things, things, [0, 5], tmp_path, provenance))
    assert math.isfinite(results["things_pq"])
    _, card = trained_network(tmp_path / "model.pt")
    assert card.instances is not None
    merged = predicts == "panoptic"
    assert (card.instances.panoptic, card.instances.masks) == (merged, not merged)
    assert card.instances.names == (("box",) if merged else things.classes)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SMALL if not name.endswith(ALIKE)])
def test_a_family_overfits(name: str, smooth: Corpus, things: Corpus) -> None:
    """To half of the first loss on 4 frames; with FULL to a tenth on 32, minutes each.

    ``-rP`` shows the losses.
    """
    frames, share, steps = (32, 0.1, 600) if FULL else (4, 0.5, 120)
    losses: list[float] = []
    corpus = things if "instances" in recipe(name).tasks else smooth
    for loss in overfitting(name, corpus, frames, steps):
        losses.append(loss)
        if loss < share * losses[0]:
            break
    said = f"{name}: {losses[0]:.3f} to {losses[-1]:.3f} in {len(losses) - 1} steps"
    print(said)
    assert losses[-1] < share * losses[0], said


def overfitting(name: str, corpus: Corpus, frames: int, steps: int) -> Iterator[float]:
    """The loss of each step on the same frames, without augmentation."""
    config = replace(recipe(name), augment=AugmentConfig())
    torch.manual_seed(0)
    learner = Learner(build(config.network), config, *normalisation(config.network))
    stage = replace(config.stages[-1], batch=frames)
    stuff = stuff_of(config.network)
    (batch,) = whole_batches(corpus, range(frames), stage, config.targets, stuff)
    # Uncertainty weighting may go below 0 and has no tenth: the weighted sum is judged.
    learner.weighting = None
    rate, warmup = GENTLE.get(name, (3e-3, 1))
    optimiser = torch.optim.AdamW(learner.parameters(), lr=rate, weight_decay=0)
    for step in range(steps):
        loss, _ = learner(batch)
        yield float(loss.detach())
        for group in optimiser.param_groups:
            group["lr"] = rate * (1 - step / steps) * min(1, (step + 1) / warmup)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimiser.step()


@pytest.mark.parametrize(("count", "expected"), [(2, "scale"), (3, None)])
def test_a_mask_transformer_of_two_classes_is_not_normalised_over_them(
    count: int, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = of_classes(count, tmp_path)
    said: list[Mapping[str, object]] = []
    begun = not_begun(monkeypatch)
    train(options, said.append)
    assert begun[0].config.network["classes"] == count
    assert begun[0].config.network.get("score_norm") == expected
    notices = [record["text"] for record in said if "LayerNorm" in str(record["text"])]
    assert len(notices) == (expected is not None)


@pytest.mark.parametrize("file", ["state.pt", "model.pt"])
@pytest.mark.parametrize(("norm", "expected"), [("layer", None), ("scale", "scale")])
def test_a_file_decides_how_two_classes_are_normalised(
    file: str, norm: str, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To resume or to start from: those from before there was a choice have a LayerNorm."""
    options = of_classes(2, tmp_path)
    said: list[Mapping[str, object]] = []
    config = TrainingConfig.from_yaml(options.config)
    network = {**config.network, "classes": 2}
    weights = build({**network, "score_norm": norm}).state_dict()
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / file
    torch.save({"model": weights, "card": {"network": network}, "training": {}}, path)
    begun = not_begun(monkeypatch)
    if file == "state.pt":
        options = replace(options, resume=True)
    else:
        options = replace(options, initial=path)
    train(options, said.append)
    assert begun[0].config.network.get("score_norm") == expected
    (notice,) = [str(record["text"]) for record in said if "LayerNorm" in str(record["text"])]
    assert (str(path) in notice) == (norm == "layer")


def of_classes(count: int, tmp_path: Path) -> TrainOptions:
    """A mask transformer on a corpus that names so many classes."""
    root = write_corpus(tmp_path / "hall", frames=4, labels=True)
    description = json.loads((root / "corpus.json").read_text())
    names = ["none", "wall", "floor", "pallet"][: count + 1]
    (root / "corpus.json").write_text(json.dumps({**description, "classes": names}))
    config = recipe("segmenter_mask").to_dict()
    config["network"] = {"family": "segmenter", "variant": "small", **SIZE, "dim": 64, "heads": 1}
    config["network"] |= {"mean": [0.5] * 3, "std": [0.5] * 3, "layers": 1}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(config))
    return TrainOptions(tmp_path / "own.yaml", [root], tmp_path / "run", validation=[root])


def not_begun(monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """What would be trained, instead of training."""
    found: list[Task] = []
    monkeypatch.setattr(training_run, "fit", lambda task, report: found.append(task) or {})
    return found


def test_a_corpus_without_numbered_things_is_refused_or_named(
    things: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = write_corpus(tmp_path / "plain", frames=4, labels=True)
    description = json.loads((plain / "corpus.json").read_text())
    (plain / "corpus.json").write_text(
        json.dumps({**description, "classes": ["void", "wall", "box"]})
    )
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(recipe("panoptic_tiny_indoor").to_dict()))
    options = TrainOptions(tmp_path / "own.yaml", [plain], tmp_path / "run", validation=[plain])
    said: list[Mapping[str, object]] = []
    begun = not_begun(monkeypatch)
    with pytest.raises(TrainingError, match="no corpus of plain has instance ids"):
        train(options, said.append)
    assert not begun
    train(replace(options, data=[plain, things.root]), said.append)
    assert len(begun) == 1
    notices = [str(record.get("text")) for record in said]
    assert "no instance ids in plain: their things teach nothing" in notices


def of_things(tmp_path: Path, corpus: Path, **network: object) -> TrainOptions:
    """A detector on ``corpus`` that has as many classes as that."""
    config = recipe("mask_rcnn_vit_comer").to_dict()
    config["network"] = {**recipe("mask_rcnn_vit_comer").network, **network}
    if not network:
        del config["network"]["classes"]  # type: ignore[attr-defined]
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(config))
    return TrainOptions(tmp_path / "own.yaml", [corpus], tmp_path / "run", validation=[corpus])


def test_things_without_label_images_keep_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_things(tmp_path / "hall", labels=False)
    begun = not_begun(monkeypatch)
    said: list[Mapping[str, object]] = []
    train(of_things(tmp_path, root), said.append)
    assert begun[0].provenance["classes"] == ["wall", "box"]
    assert begun[0].config.network["classes"] == 2
    assert not [text for text in map(str, said) if "depth nor labels" in text or "names" in text]
    with pytest.raises(TrainingError, match="names 2 classes after that of 0, the network has 3"):
        train(of_things(tmp_path, root, classes=3), said.append)
    description = json.loads((root / "corpus.json").read_text())
    del description["classes"]
    (root / "corpus.json").write_text(json.dumps(description))
    with pytest.raises(TrainingError, match="things of class 2, the network 1 class "):
        train(of_things(tmp_path, root, classes=1), said.append)
    train(of_things(tmp_path, root, classes=3), said.append)
    assert "no corpus names its classes, of which the network has 3" in str(said[-1]["text"])


def test_pictures_without_a_thing_are_frames_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_things(tmp_path / "hall", frames=2, labels=False)
    ids_hw = np.zeros((72, 96), np.uint16)
    samples = [replace(each, instances_hw=ids_hw, instance_labels={}) for each in Corpus(root)]
    write_shard(tmp_path / "bare", 0, samples)
    write_description(tmp_path / "bare", {"classes": ["void", "wall", "box"]})
    begun = not_begun(monkeypatch)
    said: list[Mapping[str, object]] = []
    options = replace(of_things(tmp_path, root), validation=[tmp_path / "bare"])
    train(options, said.append)
    train(replace(options, data=[root, tmp_path / "bare"]), said.append)
    assert len(begun) == 2
    texts = [str(record["text"]) for record in said]
    assert len([text for text in texts if "no thing of a class in bare, " in text]) == 2
    with pytest.raises(TrainingError, match=r"no frame .* of bare shows a thing .*: add a corpus"):
        train(replace(options, data=[tmp_path / "bare"], validation=[root]), said.append)


@pytest.mark.parametrize(
    ("figure", "says"),
    [
        ("box_ap50", "no box_ap50: .* needs faster-coco-eval.*so best.pt is not kept"),
        ("miou", "best.pt is not kept: keep_best is miou, and no labels are validated"),
        ("things_pq", None),
    ],
)
def test_a_best_figure_that_never_comes_is_said_at_the_start(
    figure: str, says: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = of_things(tmp_path, write_things(tmp_path / "hall", frames=2, labels=False))
    config = yaml.safe_load(options.config.read_text())
    options.config.write_text(yaml.safe_dump({**config, "keep_best": figure}))
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    not_begun(monkeypatch)
    said: list[Mapping[str, object]] = []
    train(options, said.append)
    found = [str(record["text"]) for record in said if "best.pt" in str(record["text"])]
    assert len(found) == (says is not None)
    assert says is None or re.search(says, found[0])


def test_what_a_set_leaves_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = coco_things(tmp_path / "set")
    begun = not_begun(monkeypatch)
    said: list[Mapping[str, object]] = []
    train(of_things(tmp_path, Path(f"coco_things:{root}")), said.append)
    assert begun[0].provenance["classes"] == ["mug", "table"]
    text = " ".join(str(record["text"]) for record in said)
    for problem in PROBLEMS:
        assert problem in text


@pytest.mark.parametrize(
    ("name", "losses"),
    [
        ("mask_rcnn_vit_comer", {"weighting": "uncertainty"}),
        ("mask_rcnn_vit_comer", {"instances": 2.0}),
        ("mask2former_swin", {"weighting": "uncertainty"}),
        ("mask2former_swin", {"segmentation": 0.5, "segment_mask": 4.0}),
    ],
)
def test_losses_without_effect_are_refused(name: str, losses: dict[str, Any]) -> None:
    config = replace(recipe(name), losses=LossConfig(**losses))
    entry = next(iter(losses))
    with pytest.raises(TrainingError, match=rf"losses\.{entry} is .*, expected"):
        Learner(build(config.network), config, *normalisation(config.network))


def test_own_classes_go_from_the_corpus_to_the_card(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "hall", frames=6, labels=True)
    description = json.loads((root / "corpus.json").read_text())
    names = ["wall", "floor", "pallet"]
    (root / "corpus.json").write_text(json.dumps({**description, "classes": ["none", *names]}))
    config = recipe("segmenter_linear").to_dict()
    network = config["network"]
    assert isinstance(network, dict)
    del network["classes"]
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(config))
    options = TrainOptions(
        config=tmp_path / "own.yaml",
        data=[root],
        validation=[root],
        out=tmp_path / "run",
        steps=1,
        threads=1,
        validation_frames=2,
        device="cpu",
    )
    train(options, lambda record: None)
    module, card = trained_network(tmp_path / "run" / "model.pt")
    assert card.segmentation is not None
    assert card.segmentation.label_set.labels == tuple(names)
    picture = torch.zeros(1, 3, SIDE, SIDE)
    assert module(picture)["logits"].shape == (1, 3, SIDE, SIDE)
