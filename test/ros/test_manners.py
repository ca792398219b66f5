"""What other ROS nodes and tools expect: managed by others, QoS overridden, frames renamed, packed.

Two processes answer for all of it.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from dense_perception.core.camera import Intrinsics
from dense_perception.imaging.messages import message_depth_m, message_rgb
from dense_perception.ros.convert import camera_info_message, image_message
from test.ros.conftest import NodeFactory
from test.support.ros_probe import Probe, header, qos_profile, random_rgb, values_of, wait_until

pytestmark = pytest.mark.ros

STAMPS = itertools.count(100)
CAMERA = Intrinsics(64, 48, 80.0, 78.0, 30.5, 24.5)


def test_a_managed_node_keeps_its_manners(
    start_node: NodeFactory, probe: Probe, red_model: Path, bond_msgs: None
) -> None:
    from bond.msg import Status

    info = camera_info_message(None, CAMERA, header(1))
    server = probe.node.create_publisher(CameraInfo, "/camera_info", qos_profile(True, True))
    server.publish(info)  # once, before the node is there
    heard = probe.collect(Status, "/bond")
    process = start_node(
        model=red_model,
        autostart=False,
        frame_id="bumper_optical",
        require_camera_info=True,
        ready=None,
        **{
            "qos_overrides./image.subscription.reliability": "reliable",
            "qos_overrides./depth_node/depth/color.publisher.reliability": "best_effort",
            "qos_overrides./imge.subscription.depth": 1,
        },
    )
    diagnostics = probe.diagnostics()
    assert probe.change_state("configure")
    assert not heard.messages, "only an active node is watched"
    assert probe.change_state("activate")

    # The bond: alive under its name, and the manager's goodbye is answered.
    beats = heard.wait(5)
    assert {(each.id, each.active) for each in beats} == {("depth_node", True)}
    assert len({each.instance_id for each in beats}) == 1
    assert beats[0].heartbeat_period == pytest.approx(0.1)
    times = [each.header.stamp.sec + each.header.stamp.nanosec / 1e9 for each in beats[:5]]
    assert 0.05 < np.median(np.diff(times)) < 0.3
    goodbye = Status(id="depth_node", instance_id="manager", active=False)
    other = Status(id="somebody_else", instance_id="manager", active=False)
    manager = probe.node.create_publisher(Status, "/bond", 10)
    wait_until(lambda: manager.get_subscription_count() > 1, "the node on /bond")
    manager.publish(other)
    count = len(heard.messages)
    heard.wait(count + 4)  # not meant
    manager.publish(goodbye)
    answer = heard.wait_for(lambda each: each.instance_id != "manager" and not each.active)
    assert answer.id == "depth_node"

    # QoS: as overridden, visible to ros2 param, and a name that fits nothing is said.
    (image,) = probe.node.get_subscriptions_info_by_topic("/image")
    assert image.qos_profile.reliability.name == "RELIABLE"
    (color,) = probe.node.get_publishers_info_by_topic("/depth_node/depth/color")
    assert color.qos_profile.reliability.name == "BEST_EFFORT"
    (depth,) = probe.node.get_publishers_info_by_topic("/depth_node/depth/image")
    assert depth.qos_profile.reliability.name == "RELIABLE"
    (described,) = probe.describe("qos_overrides./image.subscription.reliability")
    assert described.read_only
    process.wait_for_text("qos_overrides./imge.subscription.depth has no effect")

    # Packed outputs say the same as the others, under the frame that was asked for.
    raw = probe.collect(Image, "/depth_node/depth/image")
    packed = probe.collect(CompressedImage, "/depth_node/depth/image/compressedDepth")
    preview = probe.collect(CompressedImage, "/depth_node/depth/color/compressed")
    calibration = probe.collect(CameraInfo, "/depth_node/depth/camera_info")
    message = image_message(random_rgb(), header(next(STAMPS)), "rgb8")
    wanted = (raw, packed, calibration, preview)
    depth, small, info, jpeg = probe.ask(
        message.header.stamp.sec, lambda: probe.send_image(message), *wanted
    )
    assert {each.header.frame_id for each in (depth, small, info, jpeg)} == {"bumper_optical"}
    assert info.k[0] == CAMERA.fx, "the latched calibration is used"
    assert small.format == "32FC1; compressedDepth png"
    np.testing.assert_allclose(message_depth_m(small), message_depth_m(depth), rtol=1e-3)
    assert jpeg.format == "rgb8; jpeg compressed bgr8"
    assert message_rgb(jpeg).shape == (48, 64, 3)
    probe.set_parameters(max_rate_hz=0.5)
    before, begun_s = len(raw.messages), time.monotonic()

    def over_rate() -> int:
        probe.send_image(message)
        time.sleep(0.02)
        return int(values_of(diagnostics.messages[-1])["frames over max_rate_hz"])

    wait_until(lambda: over_rate() >= 5, "images over the rate")
    assert len(raw.messages) - before <= 2 + 0.5 * (time.monotonic() - begun_s)
    assert diagnostics.messages[-1].status[0].level == b"\0", "what the user sets is no fault"
