"""Videos on topics: each packet is decoded, though only some pictures are asked for."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("av")

from std_msgs.msg import Header

from dense_perception.core.errors import InputError
from dense_perception.imaging.messages import ImageReader
from dense_perception.ros import video_input
from dense_perception.ros.params import DepthParameters
from dense_perception.ros.video_input import Backlog, as_compressed_image, packet_class
from test.imaging.test_video import COUNT, ENCODERS, encoded, shows
from test.ros.test_camera import Live


@pytest.fixture(scope="module")
def packets() -> list[object]:
    """As FFMPEGPacket and CompressedVideo have them, in turn."""
    name, _, options = ENCODERS[0]
    messages: list[object] = []
    for index, data in enumerate(encoded(name, options)):
        stamp = Header().stamp
        stamp.sec = index
        if index % 2:
            header = Header(stamp=stamp, frame_id="camera")
            fields = {"header": header, "encoding": "libx264", "pts": index, "data": data}
        else:
            fields = {"timestamp": stamp, "frame_id": "camera", "format": "h264", "data": data}
        messages.append(SimpleNamespace(**fields))
    return messages


def test_the_newest_picture_is_right_whatever_was_passed_over(packets: list[object]) -> None:
    live = Live(replace(DepthParameters(), image_transport="compressed"))
    subscription = live.graph.open["image/compressed"]
    taken = [3, 4, 9, COUNT - 1]
    for index, packet in enumerate(packets):
        subscription.callback(as_compressed_image(packet))
        if index in taken:
            frame = live.frame(live.images[-1][1])
            assert (frame.stamp_ns, frame.frame_id) == (index * 10**9, "camera")
            assert shows(frame.rgb_hwc, index)
    assert len(live.images) == COUNT


def test_what_nobody_decodes_does_not_pile_up(
    packets: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    backlog = Backlog()
    for packet in packets:
        backlog.put(as_compressed_image(packet))
    assert len(backlog._packets) == COUNT // 3  # since the last keyframe
    monkeypatch.setattr(video_input, "_MOST_PACKETS", 3)
    reader, images = ImageReader(), [as_compressed_image(packet) for packet in packets[:5]]
    backlog = Backlog()
    for image in images:
        backlog.put(image)
    backlog.decode_before(images[-1], reader)
    assert reader.rgb(images[-1]) is None  # waits for a keyframe
    assert reader.doubts == ["2 packets of the video were passed over until a keyframe came"]


def test_a_transport_whose_messages_are_not_installed() -> None:
    with pytest.raises(InputError, match=r"apt install ros-\$ROS_DISTRO-foxglove-msgs"):
        packet_class("foxglove")
    with pytest.raises(InputError, match=r"ros-\$ROS_DISTRO-ffmpeg-image-transport-msgs"):
        packet_class("ffmpeg")


def test_other_messages_are_no_packets() -> None:
    backlog = Backlog()
    backlog.put(as_compressed_image(SimpleNamespace(header=Header(), format="jpeg", data=b"\xff")))
    assert not backlog._packets
