"""What is counted in a corpus, against NumPy on the arrays it was made of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dense_perception import cli
from dense_perception.data.corpus import Corpus
from dense_perception.data.summary import EDGES_M, summarise
from test.support.corpora import write_corpus


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    root = write_corpus(tmp_path / "rooms", frames=6, labels=True)
    path = root / "shard_00000" / "depth_m.npy"
    depth_m = np.load(path)
    depth_m[0, :10] = 0
    depth_m[1, 0, :3] = [np.inf, np.nan, -1]
    np.save(path, depth_m)
    description = json.loads((root / "corpus.json").read_text())
    description["classes"] = ["void", "wall", "floor"]
    (root / "corpus.json").write_text(json.dumps(description))
    return root


def test_depth_and_classes_as_numpy_counts_them(corpus: Path) -> None:
    found = summarise(Corpus(corpus))
    folders = sorted(corpus.glob("shard_*"))
    depth_m = np.concatenate([np.load(each / "depth_m.npy") for each in folders])
    labels = np.concatenate([np.load(each / "labels.npy") for each in folders])
    valid = depth_m[np.isfinite(depth_m) & (depth_m > 0)].astype(np.float64)
    assert (found.name, found.frames, found.width, found.height) == ("rooms", 6, 96, 72)
    assert found.without_depth == pytest.approx(1 - valid.size / depth_m.size)
    assert found.without_depth * depth_m.size == pytest.approx(10 * 96 + 3)
    for quantile, metres in found.depth_m.items():
        expected = np.quantile(valid, float(quantile), method="inverted_cdf")
        assert metres == pytest.approx(expected, abs=1e-9)
    bins = [
        ((valid >= low) & (valid < high)).sum() / depth_m.size
        for low, high in zip(EDGES_M, [*EDGES_M[1:], np.inf], strict=True)
    ]
    assert found.histogram == pytest.approx(bins)
    assert found.classes == pytest.approx(
        {"wall": np.mean(labels == 1), "floor": np.mean(labels == 2)}
    )
    assert list(found.classes.values()) == sorted(found.classes.values(), reverse=True)
    assert found.source["generator"] == "closed-form"


def test_labels_above_the_named_classes_are_refused(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    description = json.loads((corpus / "corpus.json").read_text())
    description["classes"] = ["void", "wall"]
    (corpus / "corpus.json").write_text(json.dumps(description))
    assert cli.main(["data", "info", str(corpus)]) == 2
    assert "has label 2, corpus.json names 2 classes" in capsys.readouterr().err


def test_the_command_prints_both_forms(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "info", str(corpus), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"].keys() == {"wall", "floor"}
    assert cli.main(["data", "info", str(corpus)]) == 0
    out = capsys.readouterr().out
    assert "rooms: 6 frames of 96x72" in out
    assert "generator: closed-form" in out
    assert "     1 -   1.5 m" in out


def test_a_folder_that_is_no_corpus_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["data", "info", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert str(tmp_path / "corpus.json") in err
    assert err.count("\n") == 1
