"""Tar shards: what is written comes back, others can read it, and damage is named."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import InputError, TrainingError
from dense_perception.core.storage import file_sha256
from dense_perception.data.corpus import Corpus, split
from dense_perception.data.description import write_description
from dense_perception.data.sample import Sample, instance_labels
from dense_perception.data.shards import encode, shard_path, write_shard

CLASSES = ["none", "wall", "floor", "chair", "cup"]


def made(value: int, width: int = 48, height: int = 32) -> Sample:
    """A smooth picture, so that JPEG keeps it, with depth, labels and all that may be known."""
    rng = np.random.default_rng(value)
    coarse = rng.integers(40, 216, (4, 6, 3)).astype(np.uint8)
    return Sample(
        cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC),
        rng.uniform(0.5, 9, (height, width)).astype(np.float32),
        Intrinsics(width, height, 40.5 + value, 40.25, 23.5, 15.5),
        rng.integers(0, 5, (height, width)).astype(np.uint8),
        value,
        np.linspace(-1, 1, 7, dtype=np.float32),
        f"walk_{value:03d}",
        "walk",
        1_700_000_000_123_456_789 + value,
    )


def write(root: Path, frames: int = 5, **description: object) -> Path:
    samples = [made(k) for k in range(frames)]
    write_shard(root, 0, samples[:3])
    write_shard(root, 1, samples[3:])
    whole = {"name": "c", "classes": CLASSES, "licence": "MIT", "seed": 4, **description}
    write_description(root, whole)
    return root


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    corpus = Corpus(write(tmp_path))
    assert len(corpus) == 5
    assert corpus.keys == tuple(f"walk_{k:03d}" for k in range(5))
    assert corpus.classes == tuple(CLASSES[1:])
    assert corpus.description["seed"] == 4
    for index in (4, 0, 3, 2, 1):
        want, got = made(index), corpus[index]
        difference = np.abs(got.rgb_hwc.astype(int) - want.rgb_hwc)
        assert difference.mean() < 3, "red and blue in their places"
        assert got.depth_m.dtype == np.float32
        np.testing.assert_allclose(got.depth_m, want.depth_m, atol=0.000501)
        assert got.labels_hw is not None
        assert got.labels_hw.dtype == np.uint8
        np.testing.assert_array_equal(got.labels_hw, want.labels_hw)
        np.testing.assert_array_equal(got.camera_7, want.camera_7)
        assert replace(got, rgb_hwc=0, depth_m=0, labels_hw=0, camera_7=0) == replace(  # type: ignore[arg-type]
            want,
            rgb_hwc=0,
            depth_m=0,
            labels_hw=0,
            camera_7=0,  # type: ignore[arg-type]
        )
        same = corpus.frame(want.key)
        np.testing.assert_array_equal(same.rgb_hwc, got.rgb_hwc)
    with pytest.raises(IndexError):
        corpus[5]
    with pytest.raises(KeyError):
        corpus.frame("walk_9")


def test_the_files_are_the_documented_layout(tmp_path: Path) -> None:
    root = write(tmp_path, assets=[{"licence": "CC-BY-4.0"}, {"licence": "MIT"}, {"name": "own"}])
    names = {path.name for path in root.iterdir()}
    assert names == {
        "shard-00000.tar", "shard-00001.tar", "corpus.json", "manifest.json", "index.npz",
    }  # fmt: skip
    with tarfile.open(root / "shard-00000.tar") as shard:
        members = {entry.name: shard.extractfile(entry) for entry in shard}
        suffixes = ("jpg", "depth.png", "labels.png", "json")
        assert list(members) == [f"walk_{k:03d}.{s}" for k in range(3) for s in suffixes]
        content = {name: stream.read() for name, stream in members.items() if stream}
    depth = cv2.imdecode(np.frombuffer(content["walk_001.depth.png"], np.uint8), -1)
    record = json.loads(content["walk_001.json"])
    assert depth is not None
    assert depth.dtype == np.uint16
    np.testing.assert_allclose(depth * record["depth_unit_m"], made(1).depth_m, atol=0.000501)
    assert record["fx"] == 41.5
    assert record["stamp_ns"] == 1_700_000_000_123_456_790
    manifest = json.loads((root / "manifest.json").read_text())
    for entry in manifest["shardlist"]:
        assert file_sha256(root / entry["url"]) == entry["sha256"]
    assert manifest["licences"] == ["CC-BY-4.0", "MIT"]
    description = json.loads((root / "corpus.json").read_text())
    assert (description["frames"], description["void"]) == (5, 0)
    assert len(description["colours"]) == len(CLASSES)
    assert description["colours"][0] == [0, 0, 0]


def test_the_same_frames_make_the_same_bytes(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one"), write(tmp_path / "other")
    for name in ("shard-00000.tar", "shard-00001.tar"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_the_webdataset_library_reads_it(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    root = write(tmp_path)
    shards = [str(path) for path in sorted(root.glob("*.tar"))]
    found = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert [each["__key__"] for each in found] == list(Corpus(root).keys)
    for k, each in enumerate(found):
        depth = cv2.imdecode(np.frombuffer(each["depth.png"], np.uint8), -1)
        unit = json.loads(each["json"])["depth_unit_m"]
        assert depth is not None
        np.testing.assert_allclose(depth * unit, made(k).depth_m, atol=0.000501)


def test_the_indexed_reader_of_webdataset_takes_the_manifest(tmp_path: Path) -> None:
    wids = pytest.importorskip("wids")
    root = write(tmp_path)
    data = wids.ShardListDataset(str(root / "manifest.json"), cache_dir=str(tmp_path / "cache"))
    assert len(data) == 5
    assert data[4]["__key__"] == "walk_004"


@pytest.mark.parametrize(
    ("near", "far", "unit"),
    [
        (0.3, 0.5, 0.00025),
        (0.6, 4, 0.0005),
        (0.3, 17, 0.0005),  # the finest that reaches the farthest pixel
        (1.1, 40, 0.001),
        (12, 80, 0.01),
        (0.3, 9000, 0.01),  # the sky is left out
    ],
)
def test_depth_is_stored_as_finely_as_near_pixels_need(
    near: float, far: float, unit: float
) -> None:
    sample = made(0)
    depth_m = np.full_like(sample.depth_m, near)
    depth_m[0, :5] = [far, np.nan, np.inf, -1, 0]
    members = encode(replace(sample, depth_m=depth_m))
    steps = cv2.imdecode(np.frombuffer(members["depth.png"], np.uint8), -1)
    assert json.loads(members["json"])["depth_unit_m"] == unit
    assert steps is not None
    expected = [round(far / unit) if far < 655 else 0, 0, 0, 0, 0]
    assert steps[0, :5].tolist() == expected
    assert steps[1, 1] * unit == pytest.approx(near, abs=unit / 2)


def test_another_void_and_classes_from_0(tmp_path: Path) -> None:
    sample = made(0)
    labels_hw = np.full((32, 48), 255, np.uint8)
    labels_hw[:4] = 0
    labels_hw[4:8] = 18
    write_shard(tmp_path, 0, [replace(sample, labels_hw=labels_hw)])
    write_description(tmp_path, {"classes": [f"c{k}" for k in range(19)], "void": 255})
    corpus = Corpus(tmp_path)
    assert corpus.classes[:2] == ("c0", "c1")
    labels = corpus[0].labels_hw
    assert labels is not None
    assert [int(labels[row, 0]) for row in (0, 4, 8)] == [1, 19, 0]


def with_instances(value: int = 0) -> Sample:
    """Three things; the highest number there is, one that is no class, and one out of view."""
    sample = made(value)
    instances_hw = np.zeros((32, 48), np.uint16)
    instances_hw[2:9, 3:20] = 7
    instances_hw[8:12, 18:30] = 65535
    instances_hw[20:, :5] = 300
    return replace(
        sample, instances_hw=instances_hw, instance_labels={7: 3, 65535: 4, 300: 0, 12: 1}
    )


def test_instances_come_back_with_their_classes(tmp_path: Path) -> None:
    want = with_instances()
    write_shard(tmp_path, 0, [want, made(1)])
    write_description(tmp_path, {"classes": CLASSES})
    corpus = Corpus(tmp_path)
    got = corpus[0]
    assert got.instances_hw is not None
    assert got.instances_hw.dtype == np.uint16
    np.testing.assert_array_equal(got.instances_hw, want.instances_hw)
    assert got.instance_labels == {7: 3, 300: 0, 65535: 4}, "those in view"
    assert (corpus[1].instances_hw, corpus[1].instance_labels) == (None, {})


def test_instances_where_classes_count_from_0(tmp_path: Path) -> None:
    stored = {7: 0, 65535: 1, 300: 255}
    write_shard(tmp_path, 0, [replace(with_instances(), labels_hw=None, instance_labels=stored)])
    write_description(tmp_path, {"classes": CLASSES[1:], "void": 255})
    assert Corpus(tmp_path).frame("walk_000").instance_labels == {7: 1, 300: 0, 65535: 2}


def test_the_class_of_an_instance_is_that_of_most_of_its_pixels() -> None:
    instances_hw = np.array([[0, 4, 4, 4], [0, 300, 300, 0]], np.uint16)
    labels_hw = np.array([[1, 2, 3, 3], [1, 5, 5, 1]], np.uint8)
    assert instance_labels(instances_hw, labels_hw) == {4: 3, 300: 5}


def test_what_is_held_out_begins_with_a_scene(tmp_path: Path) -> None:
    samples = [replace(made(k), scene=k // 4, recording="") for k in range(20)]
    write_shard(tmp_path, 0, samples)
    write_description(tmp_path, {})
    train, held_out = split(Corpus(tmp_path), 0.1)
    assert (len(train), len(held_out)) == (16, 4)
    assert {train[k].scene for k in range(16)} == {0, 1, 2, 3}


def test_frames_of_several_sizes(tmp_path: Path) -> None:
    write_shard(tmp_path, 0, [made(0), made(1, 64, 40)])
    write_description(tmp_path, {"classes": CLASSES})
    corpus = Corpus(tmp_path)
    assert [corpus[k].rgb_hwc.shape[:2] for k in (0, 1)] == [(32, 48), (40, 64)]


def test_another_process_opens_the_files_itself(tmp_path: Path) -> None:
    corpus = Corpus(write(tmp_path))
    corpus[0]
    packed = pickle.dumps(corpus)
    assert len(packed) < 1000
    np.testing.assert_array_equal(pickle.loads(packed)[4].rgb_hwc, corpus[4].rgb_hwc)
    child = os.fork()
    if child == 0:  # shares the open files, not a position in them
        same = corpus[2].key == "walk_002"
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_without_an_index_the_shards_are_read(tmp_path: Path) -> None:
    """As somebody's own WebDataset has none."""
    root = write(tmp_path)
    (root / "index.npz").unlink()
    (root / "manifest.json").unlink()
    corpus = Corpus(root)
    assert corpus[4].key == "walk_004"


def test_a_shard_is_replaced_whole(tmp_path: Path) -> None:
    write_shard(tmp_path, 0, [made(0), made(1)])
    write_shard(tmp_path, 0, [made(2)])
    bad = replace(made(1), key="../x")
    with pytest.raises(InputError, match="cannot name a frame"):
        write_shard(tmp_path, 0, [made(0), bad])
    assert [path.name for path in tmp_path.iterdir()] == ["shard-00000.tar"]
    write_description(tmp_path, {})
    assert Corpus(tmp_path).keys == ("walk_002",)


def test_maps_of_another_size_are_refused() -> None:
    sample = made(0)
    with pytest.raises(InputError, match=r"labels of walk_000 are \(2, 2\), expected"):
        encode(replace(sample, labels_hw=np.zeros((2, 2), np.uint8)))
    with pytest.raises(InputError, match="labels go from 0 to 300"):
        encode(replace(sample, labels_hw=np.full((32, 48), 300) * (np.arange(48) > 3)))


def cut(root: Path) -> None:
    path = shard_path(root, 1)
    path.write_bytes(path.read_bytes()[:3000])


def cut_without_index(root: Path) -> None:
    cut(root)
    (root / "index.npz").unlink()


def cut_between_frames(root: Path) -> None:
    """At a frame's end, where a tar reader finds nothing wrong."""
    path = shard_path(root, 0)
    with tarfile.open(path) as shard:
        end = shard.getmembers()[3].offset_data + 512
    path.write_bytes(path.read_bytes()[:end])
    (root / "index.npz").unlink()


def no_tar(root: Path) -> None:
    shard_path(root, 1).write_bytes(b"no tar file at all" * 100)
    (root / "index.npz").unlink()


def gone(root: Path) -> None:
    shard_path(root, 1).unlink()


def broken_index(root: Path) -> None:
    (root / "index.npz").write_bytes(b"PK")


def twice(root: Path) -> None:
    shard_path(root, 1).write_bytes(shard_path(root, 0).read_bytes())
    (root / "index.npz").unlink()


def packed(*entries: tarfile.TarInfo) -> Callable[[Path], None]:
    """Further members at the beginning of a shard."""

    def damage(root: Path) -> None:
        path = shard_path(root, 0)
        first = io.BytesIO()
        with tarfile.open(fileobj=first, mode="w") as shard:
            for entry in entries:
                shard.addfile(entry)
        path.write_bytes(first.getvalue()[: 512 * len(entries)] + path.read_bytes())
        (root / "index.npz").unlink()

    return damage


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def lying_index(**changes: object) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        with np.load(root / "index.npz") as stored:
            arrays = dict(stored)
        arrays.update({name: np.asarray(value) for name, value in changes.items()})
        np.savez(root / "index.npz", **arrays)  # type: ignore[arg-type]

    return damage


def swollen_index(root: Path) -> None:
    """40 MB of zeros in 40 kB."""
    np.savez_compressed(root / "index.npz", key=np.zeros(5_000_000))


def describe(root: Path, **changes: object) -> None:
    path = root / "corpus.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (cut, r"shard-00001\.tar has 3000 bytes, index\.npz says"),
        (cut_without_index, r"shard-00001\.tar.*cut short.*make it again"),
        (cut_between_frames, r"shard-00000\.tar.*cut short"),
        (no_tar, r"cannot read .*shard-00001\.tar"),
        (gone, r"shard-00001\.tar is missing, which index\.npz names"),
        (broken_index, r"cannot read .*index\.npz.*delete it"),
        (swollen_index, r"cannot read .*index\.npz: it claims 40\d+ bytes"),
        (lying_index(shard=[0, 0, 0, 1, 9]), "frames in shard 9 of 2"),
        (lying_index(size=[1 << 60] * 5), "5 frames lie outside of their shards"),
        (lying_index(offset=[-1] * 5), "5 frames lie outside of their shards"),
        (lying_index(offset=[0]), r"offset is int64 \(1,\), expected 5 of each"),
        (lying_index(key=np.zeros(5)), r"key is float64 \(5,\), expected"),
        (packed(member("a.jpg", tarfile.SYMTYPE, "/etc/passwd")), r"a\.jpg is no plain file"),
        (packed(member("a.jpg", tarfile.LNKTYPE, "nothing")), r"a\.jpg is no plain file"),
        (packed(member("a.jpg", tarfile.CHRTYPE)), r"a\.jpg is no plain file"),
        (packed(member("a.jpg", tarfile.FIFOTYPE)), r"a\.jpg is no plain file"),
        (packed(member("a.jpg", tarfile.GNUTYPE_SPARSE)), "cannot read .*shard-00000"),
        (packed(member("a\x1b[2J.jpg", tarfile.REGTYPE)), r"the name 'a\\\\x1b\[2J\.jpg'"),
        (packed(member("a\udcff.jpg", tarfile.REGTYPE)), r"cannot read .*shard-00000"),
        (twice, "several frames of the key 'walk_000'"),
        (lambda root: describe(root, frames=9), "holds 5 frames, corpus.json promises 9"),
        (lambda root: describe(root, classes=["none", 3]), "classes must be a list of names"),
        (lambda root: describe(root, void=-1), "void is -1"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: Callable[[Path], None], complaint: str) -> None:
    root = write(tmp_path / "c")
    damage(root)
    with pytest.raises(TrainingError, match=complaint):
        Corpus(root)


def swap(root: Path, suffix: str, content: bytes | None) -> Corpus:
    """The corpus with one member of its second frame replaced, added, or left out."""
    path = shard_path(root, 0)
    with tarfile.open(path) as shard:
        kept = [(entry.name, shard.extractfile(entry)) for entry in shard]
        members = [(name, stream.read()) for name, stream in kept if stream is not None]
    if f"walk_001.{suffix}" not in [name for name, _ in members]:
        first = next(row for row, (name, _) in enumerate(members) if name.startswith("walk_001"))
        members.insert(first, (f"walk_001.{suffix}", b""))
    with tarfile.open(path, "w") as shard:
        for name, data in members:
            if name == f"walk_001.{suffix}":
                if content is None:
                    continue
                data = content
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            shard.addfile(entry, io.BytesIO(data))
    (root / "index.npz").unlink()
    return Corpus(root)


def png(array: np.ndarray) -> bytes:
    return cv2.imencode(".png", array)[1].tobytes()


def huge_png() -> bytes:
    """A PNG of 400 million pixels in some kilobytes."""
    content = bytearray(png(np.zeros((1, 1), np.uint8)))
    content[16:24] = (20_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


@pytest.mark.parametrize(
    ("suffix", "content", "complaint"),
    [
        ("jpg", b"no picture", r"walk_001\.jpg cannot be decoded"),
        ("jpg", None, r"walk_001 has depth\.png, labels\.png, json, expected"),
        ("json", b"{", r"walk_001\.json is damaged"),
        ("json", b"[" * 200_000, r"walk_001\.json is damaged: .*nested too deeply"),
        ("json", b"[]", r"walk_001\.json is damaged"),
        *(
            ("json", b'{"fx": 9, "fy": 9, "cx": 1, "cy": 1, ' + wrong + b"}", "json is damaged")
            for wrong in (b'"stamp_ns": Infinity', b'"camera": [1]', b'"depth_unit_m": -1')
        ),
        ("jpg", huge_png(), "20000x20000, expected at most 96 million pixels"),
        ("depth.png", huge_png(), "20000x20000, expected at most 96 million pixels"),
        ("json", b'{"fx": 0, "fy": 1, "cx": 1, "cy": 1}', "fx is 0.0, expected a positive"),
        ("depth.png", png(np.zeros((8, 8), np.uint16)), r"depth\.png is uint16 \(8, 8\)"),
        ("labels.png", png(np.full((32, 48), 9, np.uint8)), "has label 9, expected up to 4"),
        ("labels.png", png(np.zeros((32, 48, 3), np.uint8)), "expected 8 or 16 bits"),
        ("instances.png", png(np.zeros((8, 8), np.uint16)), r"instances\.png is uint16 \(8, 8\)"),
        (
            "instances.png",
            png(np.full((32, 48), 8, np.uint16)),
            r"has the instance 8, and walk_001\.json no class of it",
        ),
    ],
)
def test_a_damaged_frame_is_named(
    tmp_path: Path, suffix: str, content: bytes | None, complaint: str
) -> None:
    corpus = swap(write(tmp_path), suffix, content)
    assert corpus[0].key == "walk_000"
    with pytest.raises(TrainingError, match=complaint):
        corpus[1]


def test_a_sensors_noise_is_packed_tighter_at_the_quick_level() -> None:
    rng = np.random.default_rng(0)
    plane_m = np.linspace(1, 3, 128)[None, :] + np.linspace(0, 1, 96)[:, None]
    depth_m = (plane_m + rng.normal(0, 0.004, plane_m.shape)).astype(np.float32)
    depth_m[rng.random(depth_m.shape) < 0.1] = 0
    camera = Intrinsics(128, 96, 100, 100, 63.5, 47.5)
    sample = Sample(np.zeros((96, 128, 3), np.uint8), depth_m, camera)
    quick = encode(sample, unit_m=0.001, png_level=1)
    steps = np.rint(depth_m * 1000).astype(np.uint16)
    plain = cv2.imencode(".png", steps, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
    assert len(quick["depth.png"]) < 0.98 * len(plain)
    np.testing.assert_array_equal(
        cv2.imdecode(np.frombuffer(quick["depth.png"], np.uint8), cv2.IMREAD_UNCHANGED), steps
    )
