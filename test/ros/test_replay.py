"""Replay: what a bag holds arrives on its topics, at its times."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import rclpy
from rclpy.context import Context
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionMode, StoragePlugin
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from dense_perception.commands.replay import parse_remaps
from dense_perception.core.errors import InputError
from dense_perception.media.bag_reader import BagReader, BagTopic
from dense_perception.ros.processes import ChildProcess
from dense_perception.ros.replay import Replay, ReplayOptions, replay_qos
from dense_perception.ros.topics import message_class
from test.support.bags import START_NS, cut_in_half, picture_messages, unknown_thing, write_bag
from test.support.ros_probe import Probe, wait_until


def replay(bag: Path, log: Path, environment: dict[str, str], *options: str) -> ChildProcess:
    arguments = ["replay", str(bag), "--json", *options]
    return ChildProcess("dense_perception.cli", arguments, log=log, environment=environment)


def report_of(process: ChildProcess) -> dict[str, object]:
    text = process.log()
    answer: dict[str, object] = json.loads(text[text.index("{") : text.rindex("}") + 1])
    return answer


@pytest.mark.ros
@pytest.mark.parametrize(
    ("plugin", "compression"),
    [
        (StoragePlugin.MCAP, CompressionMode.STORAGE),
        (StoragePlugin.SQLITE3, CompressionMode.NONE),
        (StoragePlugin.SQLITE3, CompressionMode.FILE),
    ],
)
def test_everything_arrives_in_order_at_its_time(
    tmp_path: Path,
    ros_environment: dict[str, str],
    probe: Probe,
    plugin: StoragePlugin,
    compression: CompressionMode,
) -> None:
    messages = picture_messages(20)
    bag = write_bag(tmp_path / "bag", messages, plugin=plugin, compression=compression)
    images = probe.collect(Image, "/renamed")
    clock = probe.collect(Clock, "/clock")
    options = ["--remap", "/camera/image:=/renamed", "--topics", "/camera/image", "--clock"]
    options += ["--wait-for-subscribers", "10", "--rate", "0.5", "--delay", "0.2"]
    with replay(bag, tmp_path / "log", ros_environment, *options) as process:
        images.wait(1)
        first = time.monotonic()
        images.wait(20)
        seconds = time.monotonic() - first
        assert process.wait(15) == 0
    sent = [content for topic, _, _, content in messages if topic == "/camera/image"]
    assert [bytes(message.data) for message in images.messages] == [
        content.data.tobytes() for content in sent
    ]
    stamps = [message.header.stamp.nanosec for message in images.messages]
    assert stamps == [index * 20_000_000 for index in range(20)]
    # 19 gaps of 20 ms are 0.38 s, and 0.76 s at half speed, less what the first was late.
    assert seconds > 0.5
    nanoseconds = [each.clock.sec * 10**9 + each.clock.nanosec for each in clock.messages]
    assert nanoseconds == sorted(nanoseconds)
    assert nanoseconds[-1] == START_NS + 19 * 20_000_000
    assert report_of(process)["published"] == {"/camera/image": 20}


@pytest.mark.ros
def test_loop_until_interrupted(
    tmp_path: Path, ros_environment: dict[str, str], probe: Probe
) -> None:
    bag = write_bag(tmp_path / "bag", picture_messages(3))
    images = probe.collect(Image, "/camera/image")
    with replay(bag, tmp_path / "log", ros_environment, "--loop", "--rate", "5") as process:
        images.wait(7)
        process.stop()
    assert process.returncode == 130
    assert report_of(process)["published"]["/camera/image"] >= 6  # type: ignore[index]


@pytest.mark.ros
def test_half_a_bag_is_played_and_said_to_be_half(
    tmp_path: Path, ros_environment: dict[str, str], probe: Probe
) -> None:
    bag = write_bag(tmp_path / "bag", picture_messages(200))
    cut_in_half(bag)
    images = probe.collect(Image, "/camera/image")
    options = ["--wait-for-subscribers", "10", "--topics", "/camera/image", "--rate", "2"]
    with replay(bag, tmp_path / "log", ros_environment, *options) as process:
        wait_until(lambda: process.returncode is not None, "the end of the replay", 30)
    assert process.returncode == 1
    report = report_of(process)
    count = report["published"]["/camera/image"]  # type: ignore[index]
    assert 80 <= count <= 101
    assert "cut off" in report["problems"][0]  # type: ignore[index]
    images.wait(count // 2)  # the player does not wait for a slow listener


def test_types_are_found_or_named() -> None:
    assert message_class("sensor_msgs/msg/Image") is Image
    for name, complaint in {
        "nowhere_msgs/msg/Thing": "install the package nowhere_msgs",
        "sensor_msgs/msg/Thing": "sensor_msgs/msg/Thing is not installed",
        "os/msg/system": "os/msg/system is not installed",
        "../evil/msg/Thing": "not a message type",
        "sensor_msgs/srv/SetCameraInfo": "not a message type",
    }.items():
        with pytest.raises(InputError, match=complaint):
            message_class(name)


def offered(reliability: QosReliability, durability: QosDurability, depth: int) -> Qos:
    forever = QosTime(2**31 - 1, 0)
    return Qos(
        QosHistory.KEEP_LAST,
        depth,
        reliability,
        durability,
        forever,
        forever,
        QosLiveliness.AUTOMATIC,
        forever,
        False,
    )


def test_qos_follows_the_bag() -> None:
    best, reliable = QosReliability.BEST_EFFORT, QosReliability.RELIABLE
    volatile, latched = QosDurability.VOLATILE, QosDurability.TRANSIENT_LOCAL
    cases = [
        ("/image", [], ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, 10),
        ("/tf_static", [], ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL, 100),
        (
            "/image",
            [offered(best, volatile, 3)],
            ReliabilityPolicy.BEST_EFFORT,
            DurabilityPolicy.VOLATILE,
            10,
        ),
        (
            "/map",
            [offered(reliable, latched, 50)],
            ReliabilityPolicy.RELIABLE,
            DurabilityPolicy.TRANSIENT_LOCAL,
            50,
        ),
        (
            "/mixed",
            [offered(reliable, latched, 50), offered(best, volatile, 10**6)],
            ReliabilityPolicy.BEST_EFFORT,
            DurabilityPolicy.VOLATILE,
            1000,
        ),
    ]
    for name, qos, reliability, durability, depth in cases:
        profile = replay_qos(BagTopic(name, "x/msg/Y", 1, tuple(qos)))
        assert (profile.reliability, profile.durability, profile.depth) == (
            reliability,
            durability,
            depth,
        )


def test_options_are_checked() -> None:
    assert parse_remaps(["/a:=/b", "/c:=d"]) == {"/a": "/b", "/c": "d"}
    for text in ("/a", ":=/b", "/a:="):
        with pytest.raises(InputError, match="expected FROM:=TO"):
            parse_remaps([text])
    with pytest.raises(InputError, match="rate is 0"):
        ReplayOptions(rate=0)


def test_names_that_are_none_are_refused(tmp_path: Path) -> None:
    names = ["", "/", "//a", "a b", "/1a", "/a~b", "{", "/a/{sub}", "/a\0b", "/ä", "/a\n"]
    context = Context()
    rclpy.init(context=context, args=[])
    node = rclpy.create_node("player", context=context, start_parameter_services=False)
    try:
        with BagReader(write_bag(tmp_path / "bag", picture_messages(1))) as bag:
            for name in [*names, "x" * 300, "\ud800"]:
                options = ReplayOptions(topics=("/note",), remap={"/note": name})
                with pytest.raises(InputError, match=r"is no topic's name \(.*\): use --remap"):
                    Replay(node, bag, options)
            # What was asked for is no topic to be skipped, though others could be played.
            with pytest.raises(InputError, match="--remap of /note: 'a b' is no topic's name"):
                Replay(node, bag, ReplayOptions(remap={"/note": "a b"}))
    finally:
        node.destroy_node()
        rclpy.try_shutdown(context=context)


@pytest.mark.ros
def test_complaints_reach_the_terminal(tmp_path: Path, ros_environment: dict[str, str]) -> None:
    thing = ("/thing", "nowhere_msgs/msg/Thing", START_NS, unknown_thing(3))
    bag = write_bag(tmp_path / "bag", [*picture_messages(1), thing])
    for options, code, complaint in [
        (["--topics", "/nothing"], 2, "has no topic /nothing, it has /camera/image, /note, /thing"),
        (["--topics", "/thing"], 2, "can be played: /thing: nowhere_msgs/msg/Thing is not install"),
        (["--topics", "/note", "--require-subscribers"], 2, "nobody subscribed to /note within 0"),
        ([], 0, "skipped /thing: nowhere_msgs/msg/Thing is not installed here"),
    ]:
        with replay(bag, tmp_path / "log", ros_environment, *options) as process:
            assert process.wait(20) == code
            assert complaint in process.log()
            assert "Traceback" not in process.log()
