"""No option of ``evaluate`` is ignored in silence, whatever its form."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dense_perception.commands import evaluate, evaluate_report
from dense_perception.commands.evaluate_options import RULES
from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import InputError
from dense_perception.data.description import write_description
from dense_perception.data.sample import Sample
from dense_perception.data.shards import write_shard
from test.evaluation.test_bags import depth_bag
from test.support.multitask_artefacts import multitask_card, write_multitask_artefact

FORMS = ("bag", "pictures", "data", "report", "report of a corpus", "report of topics")
SAMPLES = {
    "limit": "1", "threads": "1", "backend": "onnxruntime", "precision": "fp32", "device": "cuda",
    "bits": "10", "max_pixels": "100000", "max_jpeg_scans": "9", "tolerance_ms": "7",
    "camera_matrix": "K", "hfov": "70", "max_depth": "9", "crop": "garg", "workers": "2",
    "out": "out", "compare": "before.json", "fail_if": "depth.scale > 9", "ray": "local",
    "topic": "/c/image", "depth_topic": "/c/depth", "points_topic": "/points", "label_topic": "/l",
    "world": "map", "weights": "w.pt", "data": "more", "bag": "more.mcap", "images": "pictures",
    "labels": "annotations", "unit": "0.0002", "instances": "things.json",
}  # fmt: skip


class Watched(argparse.Namespace):
    """Remembers which options were read."""

    read: set[str]

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name != "read":
            object.__getattribute__(self, "read").add(name)
        return object.__getattribute__(self, name)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    evaluate.add_arguments(made)
    return made


def parsed(words: list[str]) -> Watched:
    watched = Watched()
    object.__setattr__(watched, "read", set())
    return parser().parse_args(words, watched)


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """A command line of each form, on data of two frames."""
    root = tmp_path_factory.mktemp("forms")
    model, card = root / "multi.onnx", multitask_card()
    write_multitask_artefact(model, card)
    assert card.segmentation is not None
    bag = depth_bag(root / "bag")
    rng = np.random.default_rng(0)
    samples = []
    for index in range(2):
        rgb = rng.integers(0, 256, (48, 64, 3), np.uint8)
        depth = np.full((48, 64), 2 + index, np.float32)
        labels = np.ones((48, 64), np.uint8)
        samples.append(Sample(rgb, depth, Intrinsics.from_fov(64, 48, 60), labels, key=f"{index}"))
        for name, image in (("images", rgb), ("labels", labels)):
            (root / name).mkdir(exist_ok=True)
            cv2.imwrite(str(root / name / f"{index}.png"), image)
    write_shard(root / "corpus", 0, samples)
    write_description(root / "corpus", {"classes": ["none", *card.segmentation.label_set.labels]})
    data = {
        "bag": ["--bag", str(bag)],
        "pictures": ["--images", str(root / "images"), "--labels", str(root / "labels")],
        "data": ["--data", str(root / "corpus")],
        "report": ["--data", str(bag), "--out", str(root / "a")],
        "report of a corpus": ["--data", str(root / "corpus"), "--out", str(root / "b")],
    }
    lines = {form: [str(model), *words] for form, words in data.items()}
    return {**lines, "report of topics": ["topic:/other", "--data", str(bag)]}


@pytest.fixture
def used(
    forms: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> dict[str, set[str]]:
    """The options that each form reads when it is run."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(evaluate_report, "report", lambda options: _asked_for(options))
    found = {}
    for form, words in forms.items():
        options = parsed(words)
        assert evaluate.main(options) in (0, 1)
        found[form] = set(options.read)
    return found


def refusal(words: list[str]) -> str:
    """Why a command line is refused; empty where it is not."""
    try:
        evaluate.main(parsed(words))
    except InputError as error:
        return str(error)
    return ""


def _asked_for(options: argparse.Namespace) -> int:
    evaluate_report._request(options)
    return int(options.json)


def test_every_option_is_obeyed_or_refused_by_every_form(
    forms: dict[str, list[str]], used: dict[str, set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    for place, name in (
        ("dense_perception.commands.evaluate_one.depth", "bag"),
        ("dense_perception.commands.evaluate_one.labels", "pictures"),
        ("dense_perception.commands.evaluate_one.data", "data"),
        ("dense_perception.commands.evaluate_report.report", "report"),
    ):
        monkeypatch.setattr(place, lambda options, name=name: ran.append(name) or 0)
    refused = set()
    actions = [a for a in parser()._actions if a.dest not in ("help", "model", "json")]
    for form, words in forms.items():
        for action in actions:
            flag = action.option_strings[-1]
            if flag in words:
                continue
            # A data set's folder and its labels come together.
            pair = {"images": ["--labels", "l"], "labels": ["--images", "i"]}.get(action.dest, [])
            value = [] if action.nargs == 0 else [SAMPLES[action.dest]]
            said = refusal([*words, flag, *value, *pair])
            if said:
                assert said.startswith(f"{flag} has no use here: "), (form, flag)
                refused.add((form, action.dest))
            else:
                assert action.dest in used[ran[-1]], (form, flag)
    # Both happens, so that neither half of this test is empty.
    assert {("pictures", "topic"), ("data", "bits"), ("report", "per_frame")} <= refused
    assert {("report of topics", "backend"), ("report of a corpus", "world")} <= refused
    assert not {("bag", "per_frame"), ("bag", "flip"), ("report", "topic")} & refused
    assert {name for rule in RULES for name in rule.names} <= {a.dest for a in actions}


def test_frames_are_in_the_table_too(
    forms: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate.main(parsed([*forms["data"], "--per-frame", "--json"]))
    frames = json.loads(capsys.readouterr().out)["depth"]["per_frame"]
    evaluate.main(parsed([*forms["data"], "--per-frame"]))
    table = capsys.readouterr().out
    assert len(frames) == 2
    assert all(f"{frame['abs_rel']:.3f}" in table for frame in frames)


def test_options_that_contradict_each_other_are_refused(forms: dict[str, list[str]]) -> None:
    model, *data = forms["data"]
    said = refusal([f"{model}@fp32", *data, "--precision", "int8"])
    assert said.startswith("--precision has no use here: every model names its own")
    said = refusal([model, *data, "--ray", "10.0.0.2:6379", "--workers", "2"])
    assert said.startswith("--workers has no use here: the cluster of --ray")
    said = refusal([model, f"{model}@fp32", *data, "--weights", "w.pt"])
    assert said.startswith("--weights has no use here: it is the checkpoint of one")
