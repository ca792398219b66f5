"""A node on a recording's clock."""

from __future__ import annotations

from pathlib import Path

import pytest
from sensor_msgs.msg import Image

from dense_perception.ros.processes import ChildProcess
from test.ros.conftest import NodeFactory
from test.support.bags import START_NS, picture_messages, write_bag
from test.support.ros_probe import Probe, values_of, wait_until

pytestmark = pytest.mark.ros


def test_a_node_lives_in_the_time_of_the_bag(
    start_node: NodeFactory,
    probe: Probe,
    red_model: Path,
    tmp_path: Path,
    ros_environment: dict[str, str],
) -> None:
    start_s = START_NS // 10**9
    bag = write_bag(tmp_path / "bag", picture_messages(60))
    start_node(model=red_model, use_sim_time=True)
    depth = probe.collect(Image, "/depth_node/depth/image")
    reports = probe.diagnostics()
    # The clock stands still at zero, and reports come all the same.
    assert reports.wait(3)[-1].header.stamp.sec == 0
    options = ["--clock", "--remap", "/camera/image:=/image", "--topics", "/camera/image"]
    options += ["--wait-for-subscribers", "10", "--delay", "0.2"]
    with ChildProcess(
        "dense_perception.cli",
        ["replay", str(bag), *options],
        log=tmp_path / "replay",
        environment=ros_environment,
    ) as replay:
        assert replay.wait(20) == 0
    stamps = [each.header.stamp for each in depth.wait(10)]
    assert {each.sec for each in stamps} <= {start_s, start_s + 1}
    assert all(each.nanosec % 20_000_000 == 0 for each in stamps)
    # Reports carry the bag's time, the last one too, where the clock has stopped again.
    count = len(reports.messages)
    last = wait_until(lambda: reports.messages[count + 2 :], "further reports")[-1]
    assert last.header.stamp.sec == start_s + 1
    # The age of a frame is measured on that clock: by the wall clock it would be years.
    assert 0 <= float(values_of(last)["latency transport median (ms)"]) < 500
