"""Averaged weights: what lies between two checkpoints, what is refused, what is recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dense_perception import cli
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import TrainingError
from dense_perception.data.corpus import Corpus, evenly
from dense_perception.training import run_folder
from dense_perception.training.loop import fit
from dense_perception.training.soup import cook
from test.support.corpora import write_corpus
from test.support.threads import one_thread
from test.training.test_loop import CONFIG, NETWORK, task


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """An earlier model.pt, one that goes on from it, one of another network, and a corpus."""
    with one_thread():
        root = tmp_path_factory.mktemp("soup")
        corpus = Corpus(write_corpus(root / "rooms", frames=6))
        short = replace(CONFIG, steps=2)
        fit(task(corpus, root / "earlier", short))
        earlier = root / "earlier" / run_folder.MODEL_FILE
        fit(task(corpus, root / "later", short, initial=earlier))
        other = replace(short, steps=1, network={**NETWORK, "features": 24})
        fit(task(corpus, root / "other", other))
        files = {
            name: root / name / run_folder.MODEL_FILE for name in ("earlier", "later", "other")
        }
        yield {**files, "corpus": root / "rooms"}


def weights(path: Path) -> dict[str, Any]:
    return run_folder.read(path).content["model"]


def test_weights_lie_between_the_two(runs: dict[str, Path]) -> None:
    later, earlier = weights(runs["later"]), weights(runs["earlier"])
    name = "head_conv1.weight"
    assert not torch.equal(later[name], earlier[name])
    for share in (0.0, 0.25, 1.0):
        got = cook(runs["later"], runs["earlier"], share).network.state_dict()
        assert got.keys() == later.keys()
        for key, value in got.items():
            if value.is_floating_point():
                expected = share * later[key].double() + (1 - share) * earlier[key].double()
                torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-7)


def test_only_one_network_and_a_share(runs: dict[str, Path]) -> None:
    with pytest.raises(TrainingError, match="does not fit"):
        cook(runs["later"], runs["other"], 0.5)
    with pytest.raises(TrainingError, match=r"is 1\.5, expected 0 to 1"):
        cook(runs["later"], runs["earlier"], 1.5)


def test_the_command_measures_and_records(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "soup" / "model.pt"
    words = [
        "train",
        "soup",
        str(runs["later"]),
        str(runs["earlier"]),
        "--share",
        "0.3",
        "--out",
        str(out),
    ]
    words += ["--validation", str(runs["corpus"]), "--validation-frames", "4", "--threads", "1"]
    assert cli.main([*words, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["validation"]["rooms"]
    card = ModelCard.from_dict(run_folder.read(out).content["card"], "the soup")
    assert card.results["generated_validation_rooms"]["abs_rel"] == round(row["abs_rel"], 4)
    assert row["frames"] == 4
    assert card.provenance["soup"]["share"] == 0.3
    assert card.provenance["soup"]["with_share"] == 0.7
    assert card.provenance["initialisation"]["from"] == "model.pt"
    assert cli.main(words) == 2, "a file that is there is not replaced"
    assert "--overwrite" in capsys.readouterr().err
    assert cli.main([*words, "--overwrite"]) == 0
    assert "rooms" in capsys.readouterr().out


def test_indices_are_spread_over_the_whole() -> None:
    assert evenly(10, 5) == [0, 2, 4, 6, 8]
    assert evenly(3, 10) == [0, 1, 2]
    assert evenly(600, 200)[-1] == 597
