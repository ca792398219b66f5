"""Bags whole, compressed, cut in half and damaged."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore

from dense_perception.core.errors import InputError
from dense_perception.imaging.messages import message_depth_m, message_rgb
from dense_perception.media import sqlite_file
from dense_perception.media.bag_images import choose_topic, image_topics
from dense_perception.media.bag_reader import BagReader
from dense_perception.media.mcap_file import MAGIC
from dense_perception.media.stored import decompress_prefix, zstd_module
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
        with pytest.raises(InputError, match="no depth topic among 2: /l/image: picture; /r/image"):
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
    monkeypatch.setattr(sqlite_file, "MAX_UNPACKED_BYTES", 1 << 20)
    assert sqlite_file._plain(bomb) == b""
    whole = bytes(range(256)) * 4096  # exactly the limit
    assert sqlite_file._plain(zstd_module().compress(whole)) == whole
    assert sqlite_file._plain(zstd_module().compress(whole + b"x")) == b""


def short_recording(count: int = 6) -> list[tuple[str, int, object]]:
    return [
        ("/camera/image", index + 1, bags.image(picture(index), "rgb8", index + 1))
        for index in range(count)
    ]


@pytest.mark.parametrize(
    ("old", "new", "is_short"),
    [
        ("type: sensor_msgs/msg/Image", "type: sensor_msgs/msg/Image2", False),
        ("RIHS01_", "RIHS01_00", False),
        ("offered_qos_profiles: ''", "offered_qos_profiles: 'history: 1'", False),
        ("storage_identifier: mcap", 'storage_identifier: ""', False),
        ("name: /camera/image", "name: /camera/renamed", True),
        ("message_count: 6", "message_count: 9", True),
    ],
)
def test_the_files_are_believed_not_the_metadata(
    tmp_path: Path, old: str, new: str, is_short: bool
) -> None:
    path = bags.write_bag(tmp_path / "bag", short_recording())
    metadata = (path / "metadata.yaml").read_text()
    assert old in metadata
    (path / "metadata.yaml").write_text(metadata.replace(old, new))
    with BagReader(path) as bag:
        assert [topic.count for topic in bag.topics] == [6]
        assert len(list(bag.messages())) == 6
        # Counts that were promised and did not come are a loss, and only they are.
        assert len(bag.problems) == is_short
        assert all("lacks messages that metadata.yaml promises" in each for each in bag.problems)


def test_mcap_without_message_indexes(tmp_path: Path) -> None:
    file = bags.storage_file(bags.write_bag(tmp_path / "bag", short_recording(), storage="mcap"))
    content = bytearray(file.read_bytes())
    position, blanked = 8, 0
    while content[position] != 0x02:
        length = int.from_bytes(content[position + 1 : position + 9], "little")
        if content[position] == 0x07:
            content[position] = 0x80  # a private record, which readers pass over
            blanked += 1
        position += 9 + length
    assert blanked
    file.write_bytes(content)
    with BagReader(file) as bag:
        assert len(list(bag.messages())) == 6
        assert bag.problems == []


def write_ahead(folder: Path, checkpointed: int, count: int = 6) -> Path:
    """A recording whose last messages are only in the log, as a killed recorder leaves it."""
    source = bags.write_bag(folder / "source", short_recording(count), storage="sqlite3")
    live = folder / "live.db3"
    with contextlib.closing(sqlite3.connect(live)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("PRAGMA wal_autocheckpoint=0")
        writer.execute("ATTACH ? AS source", [str(bags.storage_file(source))])
        for (text,) in writer.execute(
            "SELECT sql FROM source.sqlite_master WHERE type = 'table' ORDER BY rootpage"
        ).fetchall():
            writer.execute(text)
        for table in ("topics", "message_definitions"):
            writer.execute(f"INSERT INTO main.{table} SELECT * FROM source.{table}")
        for low, high in ((0, checkpointed), (checkpointed, count)):
            writer.execute(
                "INSERT INTO main.messages SELECT * FROM source.messages WHERE id > ? AND id <= ?",
                [low, high],
            )
            writer.commit()
            if low == 0 and checkpointed:
                writer.execute("PRAGMA main.wal_checkpoint(TRUNCATE)")
        killed = folder / "killed"
        killed.mkdir()
        for suffix in ("", "-wal", "-shm"):
            shutil.copy(f"{live}{suffix}", killed / f"rec_0.db3{suffix}")
    return killed


@pytest.mark.parametrize("checkpointed", [0, 3])
def test_messages_in_the_write_ahead_log(tmp_path: Path, checkpointed: int) -> None:
    folder = write_ahead(tmp_path, checkpointed)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with BagReader(folder / "rec_0.db3") as bag:
        assert [message.time_ns for message in bag.messages()] == [1, 2, 3, 4, 5, 6]
        assert bag.problems == []
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["run#3", "what?", "50%41", "a b"])
def test_names_with_a_meaning_in_addresses(tmp_path: Path, name: str) -> None:
    path = bags.write_bag(tmp_path / "bag", short_recording(), storage="sqlite3")
    path = path.rename(tmp_path / name)
    with BagReader(path) as bag:
        assert len(list(bag.messages())) == 6
        assert bag.problems == []
    assert [each.name for each in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("value", ["NULL", "1000000000000", "'text'", "zeroblob(0)"])
def test_rows_that_are_no_messages(tmp_path: Path, value: str) -> None:
    path = bags.write_bag(tmp_path / "bag", short_recording(), storage="sqlite3")
    with contextlib.closing(sqlite3.connect(bags.storage_file(path))) as writer:
        writer.execute("PRAGMA writable_schema=ON")
        writer.execute("UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '')")
        writer.commit()
    with contextlib.closing(sqlite3.connect(bags.storage_file(path))) as writer:
        writer.execute(f"UPDATE messages SET data = {value} WHERE id = 2")
        writer.commit()
    with BagReader(path) as bag:
        assert [message.time_ns for message in bag.messages()] == [1, 3, 4, 5, 6]
        assert "1 of its rows hold no message" in bag.problems[0]


def test_only_real_tables_are_read(tmp_path: Path) -> None:
    path = bags.write_bag(tmp_path / "bag", short_recording(), storage="sqlite3")
    with contextlib.closing(sqlite3.connect(bags.storage_file(path))) as writer:
        writer.execute("DROP TABLE messages")
        writer.execute(
            "CREATE VIEW messages AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM "
            "n) SELECT i AS id, 1 AS topic_id, i AS timestamp, x'00' AS data FROM n"
        )
        writer.commit()
    with pytest.raises(InputError, match="'messages' is a view, expected a table"):
        BagReader(path)


@pytest.mark.parametrize("name", ["bag.mcap", "bag.db3", "bag.mcap.zstd"])
def test_a_pipe_is_no_bag(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="is a pipe, expected a regular file"):
        BagReader(tmp_path / name)


@pytest.mark.parametrize("name", ["bag.mcap.zstd", "bag.db3.zstd"])
def test_a_file_that_unpacks_without_end_is_cut_short(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(zstd_module().compress(bytes(1 << 28)))
    with pytest.raises(InputError, match=r"unpacks to over 6\d MiB"):
        BagReader(file)


def test_why_there_is_no_picture(tmp_path: Path) -> None:
    mono, odd = np.full((4, 4), 1500, np.uint16), np.zeros((4, 4), np.uint8)
    path = bags.write_bag(
        tmp_path / "bag",
        [
            ("/odd", 1, bags.image(odd, "yuv999", 1)),
            ("/info", 2, bags.camera_info(4, 4, 5.0, 2)),
            ("/depth", 3, bags.image(mono, "16UC1", 3)),
        ],
    )
    with BagReader(path) as bag:
        with pytest.raises(InputError) as error:
            choose_topic(bag, None, "picture", "--topic")
        text = str(error.value)
        assert "/odd: unknown image encoding 'yuv999', expected one of" in text
        assert "/info: sensor_msgs/msg/CameraInfo" in text
        assert "/depth: depth" in text
        with pytest.raises(InputError, match="--topic /info of bag holds no images: sensor_msgs"):
            choose_topic(bag, "/info", "picture", "--topic")
    path = bags.write_bag(tmp_path / "zed", [("/z", 1, bags.image(mono, "mono16", 1))])
    with (
        BagReader(path) as bag,
        pytest.raises(InputError, match="/z: mono16, which counts as a picture; name the topic"),
    ):
        choose_topic(bag, None, "depth", "--depth-topic")


def test_messages_that_are_not_of_ros(tmp_path: Path) -> None:
    file = tmp_path / "a.mcap"
    file.write_bytes(mcap_of("foxglove.PointCloud", "json", b"{}"))
    with BagReader(file) as bag:
        with pytest.raises(InputError, match=r"/a: foxglove\.PointCloud in 'json', which is not"):
            choose_topic(bag, None, "picture", "--topic")
        (message,) = bag.messages()
        with pytest.raises(InputError, match="recorded as 'json', expected CDR"):
            bag.deserialize(message)


def test_mcap_in_the_serialisation_of_ros1(tmp_path: Path) -> None:
    store = get_typestore(Stores.ROS1_NOETIC)
    stamp = store.types["builtin_interfaces/msg/Time"](sec=3, nanosec=4)
    header = store.types["std_msgs/msg/Header"](seq=9, stamp=stamp, frame_id="camera")
    image = store.types[bags.IMAGE](
        header=header, height=48, width=64, encoding="rgb8", is_bigendian=0, step=192,
        data=picture(0).reshape(-1),
    )  # fmt: skip
    file = tmp_path / "a.mcap"
    data = bytes(store.serialize_ros1(image, bags.IMAGE))
    file.write_bytes(mcap_of("sensor_msgs/Image", "ros1", data))
    with BagReader(file) as bag:
        assert choose_topic(bag, None, "picture", "--topic") == "/a"
        (message,) = bag.messages()
        content = bag.deserialize(message)
        assert (content.header.stamp.sec, content.header.frame_id) == (3, "camera")
        assert np.array_equal(message_rgb(content), picture(0))


def mcap_of(msgtype: str, encoding: str, data: bytes) -> bytes:
    """An MCAP file of one message on /a, without chunks and index."""

    def text(value: str) -> bytes:
        return len(value).to_bytes(4, "little") + value.encode()

    def record(opcode: int, content: bytes) -> bytes:
        return bytes([opcode]) + len(content).to_bytes(8, "little") + content

    return b"".join(
        [
            MAGIC,
            record(0x01, text("") + text("test")),
            record(0x03, b"\1\0" + text(msgtype) + text("") + text("")),
            record(0x04, b"\1\0\1\0" + text("/a") + text(encoding) + bytes(4)),
            record(0x05, b"\1\0" + bytes(20) + data),
            record(0x02, bytes(20)),
            MAGIC,
        ]
    )


def test_metadata_of_brackets_costs_no_time(tmp_path: Path) -> None:
    path = bags.write_bag(tmp_path / "bag", recording()[:4])
    (path / "metadata.yaml").write_text("[" * 900_000)
    begin = time.process_time()
    with BagReader(path) as bag:
        assert sum(1 for _ in bag.messages(["/camera/image"])) == 2
        assert "InputError in metadata.yaml" in bag.problems[0]
    assert time.process_time() - begin < 1.0


def test_names_too_long_for_a_file_are_missing(tmp_path: Path) -> None:
    path = bags.write_bag(tmp_path / "bag", recording()[:2])
    metadata = (path / "metadata.yaml").read_text()
    (path / "metadata.yaml").write_text(metadata.replace("bag.mcap", "x" * 400 + ".mcap"))
    with BagReader(path) as bag:
        assert sum(1 for _ in bag.messages()) == 2
