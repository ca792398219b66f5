"""The recorder: an answer lies beside its image in the bag, however late it came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image

from dense_perception.media.bag_reader import BagReader
from dense_perception.ros.record import Recorder, ReplayWatch, header_stamp_ns

STEP_NS = 100_000_000
START_NS = 1_700_000_000_000_000_000


class StandIn:
    """A node that sees ``clocks`` publishers of /clock and no others."""

    clocks = 0

    def create_timer(self, *_: Any) -> None: ...

    def destroy_timer(self, *_: Any) -> None: ...

    def get_publishers_info_by_topic(self, _: str) -> list[Any]:
        return []

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


def test_late_answers_lie_beside_their_images(tmp_path: Path) -> None:
    recorder = Recorder(StandIn(), tmp_path / "bag", ["/image", "/answer"], together=True)  # type: ignore[arg-type]
    image, answer = (
        recorder._writer.add_connection(
            topic, "sensor_msgs/msg/Image", typestore=recorder._typestore
        )
        for topic in ("/image", "/answer")
    )
    stamps = [START_NS + k * STEP_NS for k in range(100)]
    for k, stamp in enumerate(stamps):
        recorder._pending.put((image, k, serialised(Image, stamp)))
        if k >= 20:  # two seconds late
            recorder._pending.put((answer, k, serialised(Image, stamps[k - 20])))
    recorder.close()
    with BagReader(tmp_path / "bag") as bag:
        read = [(message.time_ns, message.topic) for message in bag.messages()]
    wanted = [(stamp, topic) for stamp in stamps[:80] for topic in ("/image", "/answer")]
    assert read == [*wanted, *((stamp, "/image") for stamp in stamps[80:])]


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
