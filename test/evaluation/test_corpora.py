"""Models against corpora: the figures are those of the frames themselves, one after the other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dense_perception import cli
from dense_perception.core.camera import Frame, Intrinsics
from dense_perception.data.corpus import Corpus
from dense_perception.data.description import write_description
from dense_perception.data.sample import Sample
from dense_perception.data.shards import write_shard
from dense_perception.data.targets import texture_edges
from dense_perception.metrics.depth import average, evaluate
from dense_perception.runtime.perceiver import Perceiver
from test.support.artefacts import write_red_artefact
from test.support.corpora import render
from test.support.multitask_artefacts import multitask_card, write_multitask_artefact


def frames(count: int, labels: bool) -> list[Sample]:
    rng = np.random.default_rng(1)
    samples = []
    for k in range(count):
        rgb, depth, (fx, fy, cx, cy) = render(rng, 64, 48)
        camera = Intrinsics(64, 48, fx, fy, cx, cy)
        label_hw = np.where(depth < 2.5, 2, 1).astype(np.uint8) if labels else None
        samples.append(Sample(rgb, depth.astype(np.float32), camera, label_hw, key=f"k{k}"))
    return samples


def test_depth_is_compared_frame_by_frame(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, root = tmp_path / "red.onnx", tmp_path / "c"
    write_red_artefact(model)
    samples = frames(4, labels=False)
    samples[3] = replace(samples[3], depth_m=0 * samples[3].depth_m)
    write_shard(root, 0, samples)
    write_description(root, {})
    words = ["evaluate", str(model), "--data", str(root), "--backend", "onnxruntime", "--json"]
    assert cli.main(words) == 0
    found = json.loads(capsys.readouterr().out)["depth"]
    assert (found["frames"], found["unmatched"]) == (3, 1)
    corpus = Corpus(root)
    with Perceiver.load(str(model), backend="onnxruntime") as perceiver:
        rows = []
        for k in range(3):
            sample = corpus[k]
            depth = perceiver(Frame(sample.rgb_hwc, intrinsics=sample.intrinsics)).depth
            assert depth is not None
            true_m = np.where(sample.depth_m > 0, sample.depth_m, np.nan)
            rows.append(evaluate(depth.values_hw, np.where(true_m <= 20, true_m, np.nan)))
    assert found["means"]["abs_rel"] == pytest.approx(average(rows)["abs_rel"], abs=1e-4)


def test_labels_and_depth_of_one_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, root = tmp_path / "multi.onnx", tmp_path / "c"
    card = multitask_card()
    write_multitask_artefact(model, card)
    assert card.segmentation is not None
    names = list(card.segmentation.label_set.labels)
    write_shard(root, 0, frames(3, labels=True))
    write_description(root, {"classes": ["none", *names]})
    words = ["evaluate", str(model), "--data", str(root), "--backend", "onnxruntime"]
    assert cli.main([*words, "--json", "--limit", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["depth"]["frames"] == found["labels"]["pictures"] == 2
    with Perceiver.load(str(model), backend="onnxruntime") as perceiver:
        right = total = 0
        for k in (0, 2):
            sample = Corpus(root)[k]
            labels = perceiver(Frame(sample.rgb_hwc, intrinsics=sample.intrinsics)).labels
            assert labels is not None
            assert sample.labels_hw is not None
            right += int((labels.values_hw == sample.labels_hw.astype(int) - 1).sum())
            total += sample.labels_hw.size
    accuracy = found["labels"]["pixel_accuracy_percent"]
    assert accuracy == pytest.approx(100 * right / total, abs=0.01)
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "mean IoU" in out
    assert "abs_rel" in out


def test_other_classes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, root = tmp_path / "multi.onnx", tmp_path / "c"
    write_multitask_artefact(model)
    samples = [replace(s, depth_m=0 * s.depth_m) for s in frames(2, labels=True)]
    write_shard(root, 0, samples)
    write_description(root, {"classes": ["none", "shelf", "robot"]})
    assert cli.main(["evaluate", str(model), "--data", str(root)]) == 2
    assert "c has the classes" in capsys.readouterr().err


def test_a_data_set_without_the_models_truth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, root = tmp_path / "red.onnx", tmp_path / "c"
    write_red_artefact(model)
    write_shard(root, 0, [replace(s, depth_m=0 * s.depth_m) for s in frames(2, labels=True)])
    write_description(root, {})
    assert cli.main(["evaluate", str(model), "--data", str(root)]) == 2
    assert "has neither depth nor labels that red_depth gives" in capsys.readouterr().err


def test_a_report_of_every_map_that_model_and_corpora_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two corpora, one of them with other classes: its labels are skipped by name, nothing else."""
    model, own, other = tmp_path / "multi.onnx", tmp_path / "own", tmp_path / "other"
    card = multitask_card()
    write_multitask_artefact(model, card)
    assert card.segmentation is not None
    names = list(card.segmentation.label_set.labels)
    samples = frames(3, labels=True)
    for root, classes in ((own, names), (other, ["shelf", "robot"])):
        write_shard(root, 0, samples)
        write_description(root, {"classes": ["none", *classes]})
    words = ["evaluate", str(model), "--data", str(own), str(other), "--backend", "onnxruntime"]
    assert cli.main([*words, "--json"]) == 1
    said = capsys.readouterr()
    assert "labels: the data has the classes ['shelf', 'robot']" in said.err
    report = json.loads(said.out)
    (name,) = [row["name"] for row in report["contestants"] if row["kind"] == "artefact"]
    figures = report["figures"][name]
    assert figures["depth.metric.absrel"]["n_frames"] == 6
    assert figures["labels.accuracy"]["n_frames"] == 3
    right = total = 0
    edges = []
    with Perceiver.load(str(model), backend="onnxruntime") as perceiver:
        for k in range(3):
            sample = Corpus(own)[k]
            given = perceiver(Frame(sample.rgb_hwc, intrinsics=sample.intrinsics))
            assert given.labels is not None
            assert given.edges is not None
            assert sample.labels_hw is not None
            right += int((given.labels.values_hw == sample.labels_hw.astype(int) - 1).sum())
            total += sample.labels_hw.size
            true = texture_edges(sample.rgb_hwc).astype(np.float64)
            edges.append(np.abs(given.edges.values_hw / 255 - true).mean())
    assert figures["labels.accuracy"]["value"] == pytest.approx(right / total, abs=1e-12)
    assert figures["edges.l1"]["value"] == pytest.approx(np.mean(edges), abs=1e-6)
    assert {"normals.mean_deg", "confidence.ece", "labels.miou"} <= set(figures)
