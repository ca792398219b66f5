"""The verb ``synthesize``: its options and its errors."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from dense_perception.commands import data_synthesize as command
from dense_perception.core.errors import InputError
from dense_perception.data.corpus import Corpus


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def test_defaults() -> None:
    args = parse("rooms", "--out", "x")
    assert (args.size, args.frames, args.seed, args.split) == ((320, 240), 2000, 1, "train")


@pytest.mark.parametrize("size", ["320", "axb", "8x8", "9000x10", "320x240x3", ""])
def test_bad_sizes(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("rooms", "--out", "x", "--size", size)
    assert "expected" in capsys.readouterr().err


def test_unknown_generator(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("cities", "--out", "x")
    assert "rooms" in capsys.readouterr().err


def test_no_frames(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--frames is 0"):
        command.main(parse("doom", "--out", str(tmp_path / "x"), "--frames", "0"))
    assert not (tmp_path / "x").exists()


def test_no_furniture_names_the_package(tmp_path: Path) -> None:
    words = ["rooms", "--out", str(tmp_path / "x"), "--furniture", str(tmp_path)]
    with pytest.raises(Exception, match="apt-get install"):
        command.main(parse(*words, "--cache", str(tmp_path / "cache")))


def test_a_small_doom_corpus(tmp_path: Path) -> None:
    out = tmp_path / "doom"
    words = ["doom", "--out", str(out), "--frames", "2", "--size", "64x48", "--workers", "1"]
    assert command.main(parse(*words)) == 0
    corpus = Corpus(out)
    assert [corpus[index].rgb_hwc.shape for index in range(len(corpus))] == [(48, 64, 3)] * 2
    description = corpus.description
    assert description["generator"] == "doom"
    assert "sky" in description["classes"]
    assert {asset["licence"] for asset in description["assets"]} == {"BSD-3-Clause", "MIT"}
