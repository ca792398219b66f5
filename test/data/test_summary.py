"""What is counted in a corpus, against NumPy on the arrays it was made of."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from dense_perception import cli
from dense_perception.core.camera import Intrinsics
from dense_perception.data.corpus import Corpus
from dense_perception.data.description import write_description
from dense_perception.data.doubts import unit_doubts
from dense_perception.data.sample import Sample
from dense_perception.data.shards import write_shard
from dense_perception.data.summary import EDGES_M, summarise
from test.support.corpora import render, write_corpus


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


def test_things_are_counted_by_class(tmp_path: Path) -> None:
    ids_hw = np.zeros((8, 8), np.uint16)
    ids_hw[:2], ids_hw[4:, :3], ids_hw[6:, 5:] = 9, 300, 5
    flat = np.full((8, 8, 3), 90, np.uint8)
    depth_m = np.ones((8, 8), np.float32)
    camera = Intrinsics.from_fov(8, 8, 60.0)
    labelled = Sample(
        flat, depth_m, camera, instances_hw=ids_hw, instance_labels={9: 2, 300: 1, 5: 2}
    )
    crowd = replace(labelled, instance_labels={9: 2, 300: 0, 5: 0})
    write_shard(tmp_path, 0, [labelled, crowd, Sample(flat, depth_m, camera)])
    write_description(tmp_path, {"classes": ["void", "cup", "chair"]})
    found = summarise(Corpus(tmp_path))
    assert list(found.things.items()) == [("chair", 3), ("(ignored)", 2), ("cup", 1)]


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


def test_labels_above_the_named_classes_are_named(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    description = json.loads((corpus / "corpus.json").read_text())
    description["classes"] = ["void", "wall"]
    (corpus / "corpus.json").write_text(json.dumps(description))
    assert cli.main(["data", "info", str(corpus)]) == 1
    assert "frames have labels above the 1 named classes, up to 2" in capsys.readouterr().err


def test_the_command_prints_both_forms(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "info", str(corpus), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["classes"].keys() == {"wall", "floor"}
    assert cli.main(["data", "info", str(corpus)]) == 1
    out, err = capsys.readouterr()
    assert "1 of 6 frames have NaN or infinite depth" in err
    assert "1 of 6 frames have negative depth" in err
    assert "rooms: 6 frames of 96x72" in out
    assert "generator: closed-form" in out
    assert "     1 -   1.5 m" in out


def good(count: int) -> list[Sample]:
    """Frames of closed form, whose depth fits its picture."""
    rng = np.random.default_rng(3)
    samples = []
    for k in range(count):
        rgb, depth, (fx, fy, cx, cy) = render(rng, 96, 72)
        labels = np.where(depth < 2.5, 2, 1).astype(np.uint8)
        camera = Intrinsics(96, 72, fx, fy, cx, cy)
        samples.append(Sample(rgb, depth.astype(np.float32), camera, labels, key=f"k{k:03d}"))
    return samples


def stored(root: Path, samples: list[Sample], **description: object) -> Corpus:
    write_shard(root, 0, samples)
    write_description(root, {"classes": ["none", "wall", "floor"], **description})
    return Corpus(root)


def test_nothing_looks_wrong_with_a_good_corpus(tmp_path: Path) -> None:
    found = summarise(stored(tmp_path, good(40)), verify=True)
    assert found.doubts == []
    assert (found.duplicates, found.sizes) == (0, {"96x72": 40})


def shuffled(samples: list[Sample]) -> list[Sample]:
    return [replace(s, depth_m=samples[k - 7].depth_m) for k, s in enumerate(samples)]


def mixed(samples: list[Sample]) -> list[Sample]:
    return [replace(s, depth_m=s.depth_m * (1000 if k % 5 else 1)) for k, s in enumerate(samples)]


def centimetres_here_and_there(samples: list[Sample]) -> list[Sample]:
    return [replace(s, depth_m=s.depth_m * (100 if k % 8 else 1)) for k, s in enumerate(samples)]


def empty(samples: list[Sample]) -> list[Sample]:
    nothing = replace(samples[3], depth_m=0 * samples[3].depth_m, labels_hw=None)
    return [*samples[:3], nothing, *samples[4:]]


def constant(samples: list[Sample]) -> list[Sample]:
    return [replace(samples[0], rgb_hwc=np.full((72, 96, 3), 7, np.uint8)), *samples[1:]]


def void(samples: list[Sample]) -> list[Sample]:
    return [replace(s, labels_hw=np.zeros((72, 96), np.uint8)) for s in samples]


def repeated(samples: list[Sample]) -> list[Sample]:
    return [replace(samples[k % 9], key=s.key) for k, s in enumerate(samples)]


def above(samples: list[Sample]) -> list[Sample]:
    return [*samples[:5], replace(samples[5], labels_hw=np.full((72, 96), 9, np.uint8))]


def test_near_and_far_scenes_are_no_mixed_units() -> None:
    """A table's 0.4 m, rooms, halls and streets of 60 m, as one corpus may hold them."""
    near_to_far = [0.4, 0.7, 1.5, 2.6, 3.0, 7.0, 15.0, 28.0, 60.0]
    assert unit_doubts(near_to_far, [*"abcdefghi"]) == []
    assert unit_doubts([0.4, 12.0], ["a", "b"]) == []
    assert unit_doubts([2.0], ["a"]) == []
    assert unit_doubts([0.02, 2.0, 2.1], ["covered", "a", "b"]) == []


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (shuffled, "depth fits its picture in .* of .* frames only"),
        (mixed, "units are mixed: .* in 32 frames .* some are in millimetres"),
        (centimetres_here_and_there, "units are mixed: .* in 35 frames .* some in centimetres"),
        (lambda s: [replace(e, depth_m=600 * e.depth_m) for e in s], "millimetres must be divided"),
        (empty, r"1 of 40 frames have neither depth nor labels.*\(the first: k003\)"),
        (
            lambda s: [replace(s[0], depth_m=0 * s[0].depth_m + 2), *s[1:]],
            "1 of 40 frames have one and the same depth everywhere",
        ),
        (constant, r"1 of 40 frames show nothing but one colour.*k000"),
        (void, r"all labels are 0 \(void\)"),
        (repeated, "31 of 40 frames look like an earlier one"),
        (
            above,
            "1 frame cannot be read; the first: k005.labels.png has label 9, expected up to 2",
        ),
    ],
)
def test_what_looks_wrong_is_named(
    tmp_path: Path, spoil: Callable[[list[Sample]], list[Sample]], says: str
) -> None:
    doubts = summarise(stored(tmp_path, spoil(good(40)))).doubts
    assert len(doubts) == 1, doubts
    assert re.search(says, doubts[0]), doubts[0]


def test_a_changed_shard_is_found_by_its_hash(tmp_path: Path) -> None:
    corpus = stored(tmp_path, good(4))
    path = tmp_path / "shard-00000.tar"
    data = bytearray(path.read_bytes())
    data[data.index(b"JFIF") + 7] ^= 1  # the picture's density, which nobody reads
    path.write_bytes(bytes(data))
    assert summarise(corpus).doubts == []
    assert "is not what manifest.json says" in summarise(corpus, verify=True).doubts[0]


def test_lists_of_classes_that_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(tmp_path / "a", good(2))
    stored(tmp_path / "b", good(2), classes=["none", "floor", "wall"])
    assert cli.main(["data", "info", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 1
    out, err = capsys.readouterr()
    assert len(json.loads(out)) == 2
    assert "b has another list of classes than a (label 1 is 'floor' instead of 'wall')" in err


def test_the_contact_sheet_shows_picture_depth_and_labels(tmp_path: Path) -> None:
    stored(tmp_path / "c", good(5))
    sheet = tmp_path / "sheet.png"
    assert cli.main(["data", "info", str(tmp_path / "c"), "--sheet", str(sheet)]) == 0
    image = cv2.imread(str(sheet))
    assert image is not None
    assert image.shape == (2 * (144 + 14 + 3), 3 * (3 * 192 + 6), 3)
    picture, depth, labels = (image[20:150, 192 * k + 10 : 192 * k + 180] for k in range(3))
    assert len(np.unique(labels.reshape(-1, 3), axis=0)) == 2
    assert len(np.unique(depth.reshape(-1, 3), axis=0)) > 20
    assert picture.std() > 10


def test_a_folder_that_is_no_corpus_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["data", "info", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert str(tmp_path / "corpus.json") in err
    assert err.count("\n") == 1
