"""The demo and the stream benchmark as a user starts them, on a small bag and model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import Reader
from std_msgs.msg import Header

from dense_perception.media.bag_reader import BagReader
from test.support.artefacts import red_depth
from test.support.bags import START_NS, TYPES, image, write_bag
from test.support.ros_probe import Probe, header, qos_profile, random_rgb, wait_until

pytestmark = pytest.mark.ros


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dense_perception.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def small_bag(path: Path, count: int = 4) -> Path:
    """Pictures of 64x48 twice a second, which any machine keeps up with, and no calibration."""
    messages = []
    for index in range(count):
        time_ns = START_NS + index * 500_000_000
        rgb_hwc = random_rgb(seed=index)
        messages.append(("/front/image", "sensor_msgs/msg/Image", time_ns, image(time_ns, rgb_hwc)))
    return write_bag(path, messages)


def test_demo(tmp_path: Path, red_model: Path) -> None:
    output = tmp_path / "out"
    arguments = ["demo", "--bag", small_bag(tmp_path / "bag"), "--model", red_model]
    done = command(*arguments, "--output", output, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["frames_in"], report["answered"]) == (4, 4)
    assert 0 < report["latency_median_ms"] <= report["latency_p95_ms"]
    assert "onnxruntime" in report["backend"] or "openvino" in report["backend"]

    pictures = sorted((output / "pictures").iterdir())
    assert len(pictures) == 4
    assert cv2.imread(str(pictures[0])).shape[0] == 48
    focal_px = 32 / np.tan(np.radians(30))
    with BagReader(output / "bag") as bag:
        assert bag.problems == []
        names = {topic.name for topic in bag.topics}
        assert {"/front/image", "/depth_node/points", "/depth_node/depth/camera_info"} <= names
        answers = [bag.deserialize(each) for each in bag.messages(["/depth_node/depth/image"])]
    assert len(answers) == 4
    for index, answer in enumerate(answers):
        assert answer.header.stamp.nanosec == index % 2 * 500_000_000
        assert answer.header.frame_id == "camera_optical"
        depth_m = answer.data.view(np.float32).reshape(48, 64)
        expected_m = red_depth(random_rgb(seed=index), focal_px)
        np.testing.assert_allclose(depth_m, expected_m, rtol=1e-5)

    again = command(*arguments, "--output", output)
    assert again.returncode == 2
    assert "is not empty" in again.stderr


def test_what_a_killed_demo_started_ends_with_it(tmp_path: Path, red_model: Path) -> None:
    words = ["demo", "--bag", small_bag(tmp_path / "bag"), "--model", red_model, "--rate", "0.1"]
    words += ["--output", tmp_path / "out"]
    process = subprocess.Popen(
        [sys.executable, "-m", "dense_perception.cli", *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    children: set[int] = set()

    def both_run() -> bool:
        children.update(children_of(process.pid))
        return len(children) == 2  # the node and the player

    try:
        wait_until(both_run, "the node and the player", 60)
        process.kill()
        process.wait()
        wait_until(lambda: not any(map(is_running, children)), "their end", 15)
    finally:
        process.kill()


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_demo_says_why_the_node_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    bag = small_bag(tmp_path / "bag", 1)
    arguments = ["--bag", bag, "--model", tmp_path / "broken.onnx", "--output", tmp_path / "out"]
    done = command("demo", *arguments)
    assert done.returncode == 2
    assert "cannot configure" in done.stderr
    assert "Traceback" not in done.stderr


def test_stream_benchmark(red_model: Path) -> None:
    arguments = ["--seconds", 3, "--rate", 10, "--width", 160, "--height", 120, "--json"]
    done = command("benchmark", "stream", "--model", red_model, *arguments)
    assert done.returncode in (0, 1), done.stderr
    result = json.loads(done.stdout)
    assert result["sent"] == 30
    assert result["depth"]["answered"] > 10
    assert result["points"]["answered"] > 10
    assert 0 < result["start_to_active_s"] < 60
    for topic in (result["depth"], result["points"]):
        assert topic["added_median_ms"] < topic["median_ms"] <= topic["callback_median_ms"]
    assert result["memory_start_mb"] > 20
    assert result["node_cpu_percent"] > 0


def test_recorder(tmp_path: Path, ros_environment: dict[str, str], probe: Probe) -> None:
    """Records raw bytes of any installed type, and the bag is one the library reads."""
    from dense_perception.ros.processes import ChildProcess

    bag = small_bag(tmp_path / "bag", 3)
    latched = probe.node.create_publisher(Header, "/said_once", qos_profile(True, True))
    latched.publish(header(7))
    output = tmp_path / "recorded"
    recorder = ChildProcess(
        "dense_perception.ros.record",
        [str(output), "/front/image", "/said_once"],
        log=tmp_path / "record.log",
        environment=ros_environment,
    )
    player = ChildProcess(
        "dense_perception.cli",
        # Long enough for a second heartbeat of Fast DDS (3 s), which sends what the first missed.
        ["replay", str(bag), "--wait-for-subscribers", "20", "--rate", "0.6"],
        log=tmp_path / "replay.log",
        environment=ros_environment,
    )
    with recorder, player:
        assert player.wait(60) == 0
    assert recorder.returncode == 0, recorder.log()
    with Reader(output) as reader:
        contents, once = (
            [
                TYPES.deserialize_cdr(data, each.msgtype)
                for each, _, data in reader.messages()
                if each.topic == topic
            ]
            for topic in ("/front/image", "/said_once")
        )
    assert [each.stamp.sec for each in once] == [7]
    assert [content.header.stamp.nanosec for content in contents] == [0, 500_000_000, 0]
    np.testing.assert_array_equal(contents[2].data, random_rgb(seed=2).reshape(-1))
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["bag", "recorded"]
