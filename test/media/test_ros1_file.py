"""ROS 1 bags as rosbags writes them: whole, compressed, cut, and in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag1 import Writer
from rosbags.typesys import Stores, get_typestore

from dense_perception.core.errors import InputError
from dense_perception.imaging.messages import message_rgb
from dense_perception.media import ros1_file
from dense_perception.media.bag_images import choose_topic
from dense_perception.media.bag_reader import BagReader, is_bag

STORE = get_typestore(Stores.ROS1_NOETIC)
IMAGE = "sensor_msgs/msg/Image"
COUNT = 12
STEP_NS = 100_000_000
FORMATS = [None, *Writer.CompressionFormat]


def pixels(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (10, 20, 3), np.uint8)


def write(path: Path, compression: Writer.CompressionFormat | None = None) -> Path:
    """Two topics, recorded out of order, in chunks of a few messages."""
    writer = Writer(path)
    if compression is not None:
        writer.set_compression(compression)
    writer.chunk_threshold = 3000
    types = STORE.types
    with writer:
        topics = [writer.add_connection(f"/{name}/image", IMAGE, typestore=STORE) for name in "lr"]
        for index in range(COUNT):
            time_ns = 10**18 + (index ^ 1) * STEP_NS
            stamp = types["builtin_interfaces/msg/Time"](sec=time_ns // 10**9, nanosec=7)
            header = types["std_msgs/msg/Header"](seq=index, stamp=stamp, frame_id="camera")
            message = types[IMAGE](
                header=header, height=10, width=20, encoding="rgb8", is_bigendian=0, step=60,
                data=pixels(index).reshape(-1),
            )  # fmt: skip
            data = bytes(STORE.serialize_ros1(message, IMAGE))
            writer.write(topics[index % 2], time_ns, data)
    return path


@pytest.mark.parametrize("compression", FORMATS)
def test_messages_come_by_time(tmp_path: Path, compression: Writer.CompressionFormat) -> None:
    with BagReader(write(tmp_path / "a.bag", compression)) as bag:
        assert [(t.name, t.msgtype, t.count) for t in bag.topics] == [
            ("/l/image", IMAGE, COUNT // 2),
            ("/r/image", IMAGE, COUNT // 2),
        ]
        messages = list(bag.messages())
        assert [m.time_ns for m in messages] == [10**18 + i * STEP_NS for i in range(COUNT)]
        for index, message in enumerate(messages):
            content = bag.deserialize(message)
            assert np.array_equal(message_rgb(content), pixels(index ^ 1))
        assert (content.header.frame_id, content.header.stamp.nanosec) == ("camera", 7)
        assert len(list(bag.messages(["/r/image"]))) == COUNT // 2
        assert bag.problems == []


@pytest.mark.parametrize("compression", FORMATS)
def test_a_cut_bag_is_read_as_far_as_it_goes(
    tmp_path: Path, compression: Writer.CompressionFormat
) -> None:
    path = write(tmp_path / "a.bag", compression)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with BagReader(path) as bag:
        found = list(bag.messages())
        assert 0 < len(found) < COUNT
        assert sum(topic.count or 0 for topic in bag.topics) == len(found)
        (problem,) = bag.problems
    assert "cut off or damaged" in problem
    assert "rosbag reindex" in problem


def test_a_folder_of_a_ros1_bag(tmp_path: Path) -> None:
    folder = tmp_path / "recording"
    folder.mkdir()
    write(folder / "a.bag")
    assert is_bag(folder)
    with BagReader(folder) as bag:
        assert bag.problems == []
        assert choose_topic(bag, "/l/image", "picture", "--topic") == "/l/image"


def test_a_few_bytes_do_not_become_gigabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.bag", Writer.CompressionFormat.BZ2)
    monkeypatch.setattr(ros1_file, "unpacked_limit", lambda packed: 1000)
    with BagReader(path) as bag:
        assert list(bag.messages()) == []
        assert "more than any recording" in bag.problems[0]


def test_other_files_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "old.bag").write_bytes(b"#ROSBAG V1.2\nmore")
    with pytest.raises(InputError, match=r"expected a ROS 1 bag of format 2\.0"):
        BagReader(tmp_path / "old.bag")
