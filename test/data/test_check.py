"""Corpora that teach nothing, or something else, are refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dense_perception.core.errors import TrainingError
from dense_perception.data.check import check_depth, check_labels, doubts
from dense_perception.data.corpus import Corpus
from test.support.corpora import write_corpus


def corpus_with_depth(root: Path, value: float) -> Corpus:
    write_corpus(root, frames=4)
    for path in root.glob("shard_*/depth_m.npy"):
        depth = np.load(path)
        np.save(path, np.full_like(depth, value))
    return Corpus(root)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (0, "no depth at all"),
        (np.inf, "no depth at all"),
        (np.nan, "no depth at all"),
        (2500, "median depth of 2500, expected metres"),
        (80, r"0\.00 % of its depth from 0\.2 to 20 m \(median 80\.00\)"),
    ],
)
def test_depth_that_teaches_nothing(tmp_path: Path, value: float, says: str) -> None:
    with pytest.raises(TrainingError, match=says):
        check_depth(corpus_with_depth(tmp_path / "c", value), 0.2, 20)


def test_depth_and_labels_of_a_good_corpus(tmp_path: Path) -> None:
    corpus = Corpus(write_corpus(tmp_path / "c", frames=4, labels=True))
    check_depth(corpus, 0.2, 20)
    assert check_labels(corpus, 25) == ()


def labelled(root: Path, classes: list[str] | None = None) -> Path:
    write_corpus(root, frames=4, labels=True)
    if classes is not None:
        path = root / "corpus.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "classes": classes}))
    return root


def test_labels_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="labels up to 2, the network 1 class "):
        check_labels(Corpus(labelled(tmp_path / "high")), 1)
    names = Corpus(labelled(tmp_path / "names", ["none", "shelf", "robot"]))
    assert check_labels(names, 2) == ("shelf", "robot")
    with pytest.raises(TrainingError, match="names 2 classes after that of 0, the network has 25"):
        check_labels(names, 25)
    root = labelled(tmp_path / "missing")
    (root / "shard_00001/labels.npy").unlink()
    with pytest.raises(TrainingError, match=r"frame 00001_0000 of .* has no labels"):
        check_labels(Corpus(root), 25)
    root = labelled(tmp_path / "void")
    for path in root.glob("shard_*/labels.npy"):
        np.save(path, np.zeros_like(np.load(path)))
    with pytest.raises(TrainingError, match="labels of 0"):
        check_labels(Corpus(root), 25)


def test_what_does_not_rule_out_training_is_a_doubt(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "c", frames=40)
    assert doubts(Corpus(root)) == []
    for path in root.glob("shard_*/depth_m.npy"):
        np.save(path, np.roll(np.load(path), 7, axis=0))
    (doubt,) = doubts(Corpus(root))
    assert "check that images and depth are paired rightly" in doubt
