"""The recorder: an answer lies beside its image in the bag, however late it came."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image

from dense_perception.core.errors import DensePerceptionError
from dense_perception.media.bag_reader import BagReader
from dense_perception.ros.record import (
    Arrived,
    Recorder,
    ReplayWatch,
    by_stamp,
    header_stamp_ns,
)

STEP_NS = 100_000_000
START_NS = 1_700_000_000_000_000_000


class StandIn:
    """A node that sees ``clocks`` publishers of /clock and those of ``published`` topics.

    ``listeners`` are the full names of the nodes that subscribe to ``/image``.
    """

    clocks = 0

    def __init__(self, published: tuple[str, ...] = ()) -> None:
        self.published = list(published)
        self.listeners: list[str] = []
        self.subscribed: list[str] = []

    def create_timer(self, *_: Any) -> None: ...

    def destroy_timer(self, *_: Any) -> None: ...

    def destroy_subscription(self, _: Any) -> None: ...

    def create_subscription(self, _: Any, topic: str, *__: Any, **___: Any) -> None:
        self.subscribed.append(topic)

    def get_publishers_info_by_topic(self, topic: str) -> list[Any]:
        qos = SimpleNamespace(reliability=None, durability=None)
        info = SimpleNamespace(topic_type="sensor_msgs/msg/Image", qos_profile=qos)
        return [info] if topic in self.published else []

    def get_subscriptions_info_by_topic(self, topic: str) -> list[Any]:
        assert topic == "/image"
        parts = [name.rpartition("/") for name in self.listeners]
        return [
            SimpleNamespace(node_namespace=place or "/", node_name=name) for place, _, name in parts
        ]

    def count_publishers(self, _: str) -> int:
        return self.clocks


def serialised(kind: type, stamp_ns: int) -> bytes:
    message = kind()
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
    message.header.frame_id = "camera"
    return bytes(serialize_message(message))


def test_the_stamp_is_read_from_the_header() -> None:
    for kind in (Image, CompressedImage):
        assert header_stamp_ns(serialised(kind, START_NS + 123_456_789)) == START_NS + 123_456_789


def opened(path: Path, *topics: str, answers_of: str = "/node") -> tuple[Recorder, list[Any]]:
    """A recorder of a replay that ``/node`` answers, and a connection for each topic."""
    recorder = Recorder(StandIn(), path, topics, answers_of=answers_of)  # type: ignore[arg-type]
    return recorder, [
        recorder._writer.add_connection(
            topic, "sensor_msgs/msg/Image", typestore=recorder._typestore
        )
        for topic in topics
    ]


def test_late_answers_lie_beside_their_images(tmp_path: Path) -> None:
    recorder, (image, answer) = opened(tmp_path / "bag", "/image", "/answer")
    stamps = [START_NS + k * STEP_NS for k in range(100)]
    for k, stamp in enumerate(stamps):
        recorder._pending.put(Arrived(image, k, serialised(Image, stamp)))
        if k >= 20:  # two seconds late
            recorder._pending.put(Arrived(answer, k, serialised(Image, stamps[k - 20])))
    recorder.close()
    with BagReader(tmp_path / "bag") as bag:
        read = [(message.time_ns, message.topic) for message in bag.messages()]
    wanted = [(stamp, topic) for stamp in stamps[:80] for topic in ("/image", "/answer")]
    assert read == [*wanted, *((stamp, "/image") for stamp in stamps[80:])]


@pytest.mark.parametrize("stamp_ns", [0, -5 * 10**9, START_NS])
def test_stamps_that_tell_nothing_are_said_once_and_kept_by_arrival(
    stamp_ns: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recorder, (image,) = opened(tmp_path / "bag", "/image")
    for k in range(50):
        recorder._pending.put(Arrived(image, START_NS + k, serialised(Image, stamp_ns)))
    recorder._pending.put(Arrived(image, START_NS + 50, b"\0\1\0\0"))  # cut off
    recorder.close()
    with BagReader(tmp_path / "bag") as bag:
        assert [m.time_ns for m in bag.messages()] == [START_NS + k for k in range(51)]
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"stamps of /image are 0 or repeat ({stamp_ns} ns)")


@pytest.mark.parametrize("step_ns", [0, STEP_NS, 10**10])
def test_no_more_than_a_few_seconds_wait(step_ns: int) -> None:
    """By stamps or by arrival, whatever passes first: a topic that stands still included."""
    fed = 0

    def arrivals() -> Any:
        nonlocal fed
        topics = [SimpleNamespace(topic="/image"), SimpleNamespace(topic="/still")]
        for k in range(400):
            for topic, stamp in zip(topics, (START_NS + k * step_ns, START_NS + 1), strict=True):
                fed += 1
                yield Arrived(topic, START_NS + k * STEP_NS, serialised(Image, stamp))  # type: ignore[arg-type]

    waiting = [fed - given for given, _ in enumerate(by_stamp(arrivals()), start=1)]
    assert len(waiting) == 800
    assert max(waiting) <= 2 * 51 + 1


def test_it_subscribes_after_the_node_that_answers(tmp_path: Path) -> None:
    """Or a replay that waits for subscribers would take it for the node."""
    node = StandIn(("/image", "/depth"))
    recorder = Recorder(node, tmp_path / "bag", ["/image", "/depth"], answers_of="/robot/eyes")  # type: ignore[arg-type]
    assert recorder.waits_for == "/robot/eyes does not subscribe to /image"
    node.listeners = ["/recorder", "/eyes", "/robot/other"]
    recorder.subscribe_to_published()
    assert node.subscribed == []
    node.listeners.append("/robot/eyes")
    node.published.remove("/depth")
    recorder.subscribe_to_published()
    assert node.subscribed == []
    node.published.append("/depth")
    recorder.subscribe_to_published()
    assert sorted(node.subscribed) == ["/depth", "/image"]
    assert recorder.is_complete
    assert recorder.waits_for == ""
    recorder.close()


def test_a_topic_that_never_came_is_named(tmp_path: Path) -> None:
    node = StandIn(("/image",))
    recorder = Recorder(node, tmp_path / "bag", ["/image", "/depth"], answers_of="/node")  # type: ignore[arg-type]
    node.published.clear()  # the replay has gone
    assert recorder.waits_for == "nobody publishes /depth"
    recorder.close()


def test_a_full_disk_ends_it_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, (image,) = opened(tmp_path / "bag", "/image")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(recorder._writer, "write", full)
    recorder._pending.put(Arrived(image, 1, serialised(Image, START_NS)))
    told = r"bag: No space left on device; what was written is in .*/\.bag\.partial"
    with pytest.raises(DensePerceptionError, match=told):
        recorder.close()
    assert [path.name for path in tmp_path.iterdir()] == [".bag.partial"]


def test_a_slow_disk_costs_messages_not_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The disk takes its first message only after 31 have come; 10 MB have room meanwhile."""
    monkeypatch.setattr("dense_perception.ros.record._MOST_WAITING_BYTES", 10 * 2**20)
    recorder, (image,) = opened(tmp_path / "bag", "/image", answers_of="")
    begun, goes_on = threading.Event(), threading.Event()
    write = recorder._writer.write

    def slow(*arguments: Any) -> None:
        begun.set()
        assert goes_on.wait(60)
        write(*arguments)

    monkeypatch.setattr(recorder._writer, "write", slow)
    kept: list[int] = []
    for k in range(31):
        data = serialised(Image, START_NS + k).ljust(2**20, b"\0")
        before = recorder.counts["/image"]
        recorder._take(Arrived(image, START_NS + k, data))
        kept += [START_NS + k] * (recorder.counts["/image"] - before)
        if not k:
            assert begun.wait(60)
    assert kept == [START_NS + k for k in range(11)]
    assert recorder.losses == ["not in bag, as the disk was too slow: 20 messages of /image"]
    assert capfd.readouterr().err.count("messages are dropped while 10 MB wait") == 1
    goes_on.set()
    recorder.close()
    with BagReader(tmp_path / "bag") as bag:
        assert [message.time_ns for message in bag.messages()] == kept


def test_a_replay_is_over_a_while_after_its_clock_is_gone(monkeypatch: Any) -> None:
    node = StandIn()
    watch = ReplayWatch(node)  # type: ignore[arg-type]
    monkeypatch.setattr(ReplayWatch, "LAST_ANSWERS_S", 0.0)
    assert not watch.is_over()  # it has not begun
    node.clocks = 1
    assert not watch.is_over()
    node.clocks = 0
    monkeypatch.setattr(ReplayWatch, "LAST_ANSWERS_S", 60.0)
    assert not watch.is_over()
    monkeypatch.setattr(ReplayWatch, "LAST_ANSWERS_S", -1.0)
    assert watch.is_over()
