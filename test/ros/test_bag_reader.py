"""Bags of every storage and compression, whole, cut, or without their metadata."""

from __future__ import annotations

from pathlib import Path

import pytest
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from dense_perception.core.errors import InputError
from dense_perception.ros.bag_reader import BagReader
from test.support.bags import START_NS, TYPES, cut_in_half, picture_messages, write_bag

TOPICS = ("/camera/image", "/note")
STORAGES = [
    (StoragePlugin.MCAP, CompressionMode.NONE),
    (StoragePlugin.MCAP, CompressionMode.STORAGE),
    (StoragePlugin.SQLITE3, CompressionMode.NONE),
    (StoragePlugin.SQLITE3, CompressionMode.MESSAGE),
    (StoragePlugin.SQLITE3, CompressionMode.FILE),
]


@pytest.mark.parametrize(("plugin", "compression"), STORAGES)
def test_whole_bag(tmp_path: Path, plugin: StoragePlugin, compression: CompressionMode) -> None:
    messages = picture_messages(60)
    path = write_bag(tmp_path / "bag", messages, plugin=plugin, compression=compression)
    with BagReader(path) as bag:
        assert bag.problem == ""
        assert bag.message_count == 120
        assert {topic.name: topic.msgtype for topic in bag.topics} == {
            "/camera/image": "sensor_msgs/msg/Image",
            "/note": "std_msgs/msg/String",
        }
        assert (bag.start_ns, bag.end_ns) == (START_NS, messages[-1][2] + 1)
        read = list(bag.messages(TOPICS))
        assert [(topic.name, time_ns) for topic, time_ns, _ in read] == [
            (topic, time_ns) for topic, _, time_ns, _ in messages
        ]
        notes = [data for topic, _, data in read if topic.name == "/note"]
        texts = [TYPES.deserialize_cdr(data, "std_msgs/msg/String").data for data in notes]
        assert texts == [f"picture {index}" for index in range(60)]
        assert [topic.name for topic, _, _ in bag.messages(["/note"])] == ["/note"] * 60


@pytest.mark.parametrize(
    ("plugin", "compression"),
    [each for each in STORAGES if each[1] in (CompressionMode.NONE, CompressionMode.STORAGE)],
)
def test_bag_cut_in_half_gives_its_first_half(
    tmp_path: Path, plugin: StoragePlugin, compression: CompressionMode
) -> None:
    path = write_bag(
        tmp_path / "bag", picture_messages(200), plugin=plugin, compression=compression
    )
    cut_in_half(path)
    with BagReader(path) as bag:
        read = list(bag.messages(TOPICS))
        assert "bag" in bag.problem
        notes = [data for topic, _, data in read if topic.name == "/note"]
        texts = [TYPES.deserialize_cdr(data, "std_msgs/msg/String").data for data in notes]
        assert texts == [f"picture {index}" for index in range(len(texts))]
        # At most the chunk at the cut is lost: a megabyte of 11.5.
        assert 80 <= len(texts) <= 101


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_folder_without_metadata_and_single_file(tmp_path: Path, plugin: StoragePlugin) -> None:
    path = write_bag(tmp_path / "bag", picture_messages(3), plugin=plugin)
    (path / "metadata.yaml").unlink()
    (storage,) = path.iterdir()
    for source in (path, storage):
        with BagReader(source) as bag:
            assert len(list(bag.messages(TOPICS))) == 6


def test_what_is_no_bag_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no bag"):
        BagReader(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"holds no \.mcap or \.db3 file"):
        BagReader(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match="not a rosbag2 bag"):
        BagReader(tmp_path / "a.txt")
    for name in ("a.mcap", "a.db3"):
        for content in (b"", b"nonsense" * 100, b"\x89MCAP0\r\n" + b"\xff" * 50):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(InputError, match="nothing in it can be read"):
                BagReader(tmp_path / name)


def test_mcap_damaged_in_the_middle_ends_there(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", picture_messages(200), compression=CompressionMode.STORAGE)
    (storage,) = path.glob("*.mcap")
    content = bytearray(storage.read_bytes())
    frame = content.find(b"\x28\xb5\x2f\xfd", len(content) // 2)  # where a zstd frame starts
    content[frame : frame + 4] = bytes(4)
    storage.write_bytes(content)
    with BagReader(path) as bag:
        read = list(bag.messages(TOPICS))
        assert 100 < len(read) < 400
        assert "damaged" in bag.problem
