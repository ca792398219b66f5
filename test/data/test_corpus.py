"""Corpora in the earlier layout, mixing and splitting; damage is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dense_perception.core.errors import TrainingError
from dense_perception.data.corpus import Corpus, Mixture, key_of, split
from dense_perception.data.numpy_layout import iterate_shards
from test.support.corpora import write_corpus


def test_frames_come_back_in_order(tmp_path: Path) -> None:
    corpus = Corpus(write_corpus(tmp_path / "c", frames=7, shards=3))
    assert len(corpus) == 7
    at = 0
    for index in range(3):
        folder = tmp_path / "c" / f"shard_{index:05d}"
        rgb, k = np.load(folder / "rgb.npy"), np.load(folder / "intrinsics.npy")
        for row in range(len(rgb)):
            sample = corpus[at]
            np.testing.assert_array_equal(sample.rgb_hwc, rgb[row])
            assert sample.depth_m.shape == (72, 96)
            assert (sample.intrinsics.fx, sample.intrinsics.cy) == (k[row, 0], k[row, 3])
            at += 1
    with pytest.raises(IndexError):
        corpus[7]


def test_a_mixture_is_one_sequence_with_its_provenance(tmp_path: Path) -> None:
    parts = [Corpus(write_corpus(tmp_path / name, frames=n)) for name, n in (("a", 3), ("b", 5))]
    mixture = Mixture(parts)
    assert len(mixture) == 8
    np.testing.assert_array_equal(mixture[4].rgb_hwc, parts[1][1].rgb_hwc)
    described = mixture.describe()
    assert [(d["name"], d["frames"]) for d in described] == [("a", 3), ("b", 5)]
    describe(
        tmp_path / "a", command="dense-perception data synthesize rooms --out /home/me/a --seed 3"
    )
    command = Mixture([Corpus(tmp_path / "a")]).describe()[0]["command"]
    assert command == "dense-perception data synthesize rooms --out a --seed 3"
    with pytest.raises(TrainingError, match="--data"):
        Mixture([])


def test_a_share_repeats_a_small_corpus(tmp_path: Path) -> None:
    parts = [Corpus(write_corpus(tmp_path / name, frames=n)) for name, n in (("a", 30), ("b", 4))]
    mixture = Mixture(parts, {1: 0.25})
    assert len(mixture) == 40
    np.testing.assert_array_equal(mixture[29].rgb_hwc, parts[0][29].rgb_hwc)
    for k in range(10):
        np.testing.assert_array_equal(mixture[30 + k].rgb_hwc, parts[1][k % 4].rgb_hwc)
    assert [d.get("share") for d in mixture.describe()] == [None, 0.25]
    assert key_of(mixture, 35) == f"b/{parts[1].keys[1]}"
    assert key_of(split(mixture, 0.1)[1], 0) == f"b/{parts[1].keys[2]}"
    assert key_of(parts[0], 3) == f"a/{parts[0].keys[3]}"
    for shares in ({0: 0.5, 1: 0.5}, {1: 1.0}, {1: 0.0}):
        with pytest.raises(TrainingError, match="shares"):
            Mixture(parts, shares)


def test_split_shares_no_frame(tmp_path: Path) -> None:
    corpus = Corpus(write_corpus(tmp_path / "c", frames=20))
    train, held_out = split(corpus, 0.1)
    assert (len(train), len(held_out)) == (18, 2)
    np.testing.assert_array_equal(held_out[0].rgb_hwc, corpus[18].rgb_hwc)
    with pytest.raises(IndexError):
        train[18]


def truncate(root: Path) -> None:
    path = root / "shard_00001" / "rgb.npy"
    path.write_bytes(path.read_bytes()[:1000])


def pickled(root: Path) -> None:
    np.save(root / "shard_00001" / "depth_m.npy", np.array([{"a": 1}], dtype=object))


def other_type(root: Path) -> None:
    path = root / "shard_00001" / "depth_m.npy"
    np.save(path, np.load(path).astype(np.float32))


def other_size(root: Path) -> None:
    path = root / "shard_00001" / "rgb.npy"
    np.save(path, np.load(path)[:, :10])


def fewer(root: Path) -> None:
    path = root / "shard_00001" / "intrinsics.npy"
    np.save(path, np.load(path)[:2])


def gone(root: Path) -> None:
    (root / "shard_00001" / "rgb.npy").unlink()


def shard_gone(root: Path) -> None:
    (root / "shard_00001").rename(root / "elsewhere")


def no_description(root: Path) -> None:
    (root / "corpus.json").unlink()


def broken_description(root: Path) -> None:
    (root / "corpus.json").write_text("{", encoding="utf-8")


def no_mapping(root: Path) -> None:
    (root / "corpus.json").write_text("[]", encoding="utf-8")


def describe(root: Path, **changes: object) -> None:
    path = root / "corpus.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (truncate, r"shard_00001.rgb\.npy.*generate it again"),
        (pickled, r"cannot read .*depth_m\.npy"),
        (other_type, r"depth_m\.npy holds float32.*expected float16"),
        (other_size, r"rgb\.npy holds .*expected uint8 \(n, 72, 96, 3\)"),
        (fewer, "12 of rgb, 12 of depth_m, 2 of intrinsics"),
        (gone, r"cannot read .*shard_00001.rgb\.npy"),
        (shard_gone, "holds 12 frames, corpus.json promises 24"),
        (no_description, "dense-perception data synthesize"),
        (broken_description, r"cannot read .*corpus\.json"),
        (no_mapping, "schema is 'list', this version reads 1 and 2"),
        (lambda root: describe(root, schema=9), "schema is 9, this version reads 1 and 2"),
        (lambda root: describe(root, width="wide"), "width is 'wide'"),
        (lambda root: describe(root, frames=0), "frames is 0"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: Callable[[Path], None], complaint: str) -> None:
    root = write_corpus(tmp_path / "c")
    damage(root)
    with pytest.raises(TrainingError, match=complaint):
        Corpus(root)


def test_a_frame_with_an_impossible_camera_is_named(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "c", frames=4, shards=1)
    path = root / "shard_00000" / "intrinsics.npy"
    values = np.load(path)
    values[2, 0] = np.nan
    np.save(path, values)
    corpus = Corpus(root)
    with pytest.raises(TrainingError, match="frame 00000_0002: fx is nan"):
        corpus[2]


def test_an_empty_corpus_says_how_to_fill_it(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "c", shards=1)
    (root / "shard_00000").rename(root / "elsewhere")
    with pytest.raises(TrainingError, match="synthesize"):
        Corpus(root)


def test_shards_without_a_description(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no shards"):
        list(iterate_shards(tmp_path))
    root = write_corpus(tmp_path / "c", shards=1)
    (root / "corpus.json").unlink()
    (shard,) = iterate_shards(root, ("rgb",), ())
    assert list(shard) == ["rgb"]
    path = root / "shard_00000" / "depth_m.npy"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(TrainingError, match=r"cannot read .*shard_00000.depth_m\.npy"):
        list(iterate_shards(root))
