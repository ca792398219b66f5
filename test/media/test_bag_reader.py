"""Bags whole, compressed, cut in half and damaged."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from dense_perception.core.errors import InputError
from dense_perception.imaging.messages import message_depth_m, message_rgb
from dense_perception.media import bag_reader
from dense_perception.media.bag_images import choose_topic, image_topics
from dense_perception.media.bag_reader import BagReader
from dense_perception.media.mcap_salvage import decompress_prefix, zstd_module
from test.support import recordings as bags

COUNT = 50
STEP_NS = 100_000_000


def picture(index: int) -> np.ndarray:
    # Noise, so that no compression makes the storage tiny.
    return np.random.default_rng(index).integers(0, 256, (48, 64, 3), np.uint8)


def recording() -> list[tuple[str, int, object]]:
    messages: list[tuple[str, int, object]] = []
    for index in range(COUNT):
        time_ns = (index + 1) * STEP_NS
        messages.append(("/camera/image", time_ns, bags.image(picture(index), "rgb8", time_ns)))
        info = bags.camera_info(64, 48, 50.0, time_ns)
        messages.append(("/camera/camera_info", time_ns + 1, info))
    return messages


VARIANTS = [
    ("mcap", "none"),
    ("mcap", "storage"),
    ("sqlite3", "none"),
    ("sqlite3", "message"),
    ("sqlite3", "file"),
]


@pytest.mark.parametrize(("storage", "compression"), VARIANTS)
def test_every_storage_reads_the_same(tmp_path: Path, storage: str, compression: str) -> None:
    path = bags.write_bag(tmp_path / "bag", recording(), storage=storage, compression=compression)
    with BagReader(path) as bag:
        assert [(t.name, t.msgtype, t.count) for t in bag.topics] == [
            ("/camera/camera_info", bags.CAMERA_INFO, COUNT),
            ("/camera/image", bags.IMAGE, COUNT),
        ]
        messages = list(bag.messages(["/camera/image"]))
        assert [message.time_ns for message in messages] == [
            (index + 1) * STEP_NS for index in range(COUNT)
        ]
        for index, message in enumerate(messages):
            rgb = message_rgb(bag.deserialize(message))
            assert np.array_equal(rgb, picture(index))
        assert len(list(bag.messages())) == 2 * COUNT
        assert list(bag.messages(["/nothing"])) == []
        assert bag.problems == []


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_file_without_its_folder(tmp_path: Path, storage: str) -> None:
    path = bags.write_bag(tmp_path / "bag", recording(), storage=storage)
    with BagReader(bags.storage_file(path)) as bag:
        assert len(list(bag.messages())) == 2 * COUNT


@pytest.mark.parametrize(("storage", "compression"), VARIANTS)
@pytest.mark.parametrize("fraction", [0.5, 0.8])
def test_cut_in_half_gives_what_is_there_and_says_so(
    tmp_path: Path, storage: str, compression: str, fraction: float
) -> None:
    path = bags.write_bag(tmp_path / "bag", recording(), storage=storage, compression=compression)
    file = bags.storage_file(path)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * fraction)])
    with BagReader(path) as bag:
        messages = list(bag.messages(["/camera/image"]))
        # A compressor's last block of 128 KiB is lost as a whole.
        lost = 128 * 1024 / picture(0).nbytes if compression in ("storage", "file") else 1
        assert COUNT * fraction * 0.9 - lost <= len(messages) < COUNT
        decode_errors = 0
        for index, message in enumerate(messages):
            rgb = message_rgb(bag.deserialize(message))
            decode_errors += not np.array_equal(rgb, picture(index))
        assert decode_errors == 0
        assert len(bag.problems) == 1
        assert "copy the bag again" in bag.problems[0]


def test_recording_that_crashed_has_no_metadata(tmp_path: Path) -> None:
    path = bags.write_bag(tmp_path / "bag", recording())
    (path / "metadata.yaml").unlink()
    with BagReader(path) as bag:
        assert len(list(bag.messages())) == 2 * COUNT


@pytest.mark.parametrize("metadata", ["", "rosbag2_bagfile_information: 3", "{", "a: [1"])
def test_damaged_metadata(tmp_path: Path, metadata: str) -> None:
    path = bags.write_bag(tmp_path / "bag", recording())
    (path / "metadata.yaml").write_text(metadata)
    with BagReader(path) as bag:
        assert len(list(bag.messages())) == 2 * COUNT
        assert "metadata" in bag.problems[0]


def test_messages_beyond_a_damaged_chunk_are_read(tmp_path: Path) -> None:
    messages = []
    for index in range(400):  # several chunks of a megabyte
        time_ns = (index + 1) * STEP_NS
        rgb = picture(index) & 3  # compressible, so that the damage breaks the compression
        messages.append(("/camera/image", time_ns, bags.image(rgb, "rgb8", time_ns)))
    path = bags.write_bag(tmp_path / "bag", messages, compression="storage")
    file = bags.storage_file(path)
    damaged = bytearray(file.read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 2000] = bytes(2000)
    file.write_bytes(damaged)
    with BagReader(path) as bag:
        times = [message.time_ns for message in bag.messages()]
        assert times == sorted(set(times))
        assert (times[0], times[-1]) == (STEP_NS, 400 * STEP_NS)
        assert 200 < len(times) < 400
        assert "damaged" in bag.problems[0]


def test_damage_in_the_middle_never_raises_anything_else(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for storage in ("mcap", "sqlite3"):
        source = bags.write_bag(tmp_path / storage, recording(), storage=storage)
        whole = np.frombuffer(bags.storage_file(source).read_bytes(), np.uint8)
        for attempt in range(12):
            path = tmp_path / f"{storage}_{attempt}"
            shutil.copytree(source, path)
            damaged = whole.copy()
            place = int(generator.integers(0, len(whole) - 64))
            damaged[place : place + 64] = generator.integers(0, 256, 64)
            bags.storage_file(path).write_bytes(damaged.tobytes())
            try:
                with BagReader(path) as bag:
                    for message in bag.messages():
                        try:
                            bag.deserialize(message)
                        except InputError:
                            continue
            except InputError:
                continue


@pytest.mark.parametrize(
    "make",
    [
        lambda path: None,
        lambda path: path.mkdir(),
        lambda path: path.write_text("no bag"),
        lambda path: path.with_suffix(".mcap").write_text("no bag"),
        lambda path: path.with_suffix(".db3").write_text("no bag"),
        lambda path: path.with_suffix(".mcap").write_bytes(b""),
    ],
)
def test_no_bag_at_all(tmp_path: Path, make: object) -> None:
    path = tmp_path / "thing"
    make(path)  # type: ignore[operator]
    found = list(tmp_path.iterdir()) or [path]
    with pytest.raises(InputError, match=r"bag|MCAP|db3"):
        BagReader(found[0])


def test_kinds_of_topics_and_the_choice(tmp_path: Path) -> None:
    depth = np.full((4, 4), 1500, np.uint16)
    path = bags.write_bag(
        tmp_path / "bag",
        [
            ("/cam/color/image_raw", 1, bags.image(picture(0), "bgr8", 1)),
            ("/cam/color/image_raw/compressed", 2, bags.compressed(picture(0), 2)),
            ("/cam/depth/image_raw", 3, bags.image(depth, "16UC1", 3)),
            ("/cam/other", 4, bags.image(depth, "16SC1", 4)),
        ],
    )
    with BagReader(path) as bag:
        assert image_topics(bag) == {
            "/cam/color/image_raw": "picture",
            "/cam/color/image_raw/compressed": "picture",
            "/cam/depth/image_raw": "depth",
            "/cam/other": "other",
        }
        # Raw and compressed of one camera are no reason to ask.
        assert choose_topic(bag, None, "picture", "--topic") == "/cam/color/image_raw"
        assert choose_topic(bag, None, "depth", "--depth-topic") == "/cam/depth/image_raw"
        with pytest.raises(InputError, match=r"no image topic '/x': --topic one of /cam/color"):
            choose_topic(bag, "/x", "picture", "--topic")
        message = next(bag.messages(["/cam/depth/image_raw"]))
        assert (message_depth_m(bag.deserialize(message)) == 1.5).all()


def test_several_cameras_need_a_choice(tmp_path: Path) -> None:
    path = bags.write_bag(
        tmp_path / "bag",
        [(f"/{side}/image", n, bags.image(picture(0), "rgb8", n)) for n, side in enumerate("lr")],
    )
    with BagReader(path) as bag:
        with pytest.raises(InputError, match=r"several picture.*--topic: /l/image, /r/image"):
            choose_topic(bag, None, "picture", "--topic")
        with pytest.raises(InputError, match="no depth topic, only /l/image, /r/image"):
            choose_topic(bag, None, "depth", "--depth-topic")


def test_bytes_that_ask_for_gigabytes_are_given_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = zstd_module().compress(bytes(1 << 28))
    assert len(bomb) < 1 << 14
    tracemalloc.start()
    try:
        assert len(decompress_prefix(bomb, "zstd", 1000)) == 1000
        # The modules' own buffers are not traced, their results are.
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    monkeypatch.setattr(bag_reader, "_MAX_MESSAGE_BYTES", 1 << 20)
    assert bag_reader._plain(bomb) == b""
    whole = bytes(range(256)) * 4096  # exactly the limit
    assert bag_reader._plain(zstd_module().compress(whole)) == whole
    assert bag_reader._plain(zstd_module().compress(whole + b"x")) == b""
