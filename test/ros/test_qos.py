"""Every reliability against every other, in real processes: delivered, or named with both sides."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from dense_perception.core.camera import Intrinsics
from dense_perception.core.labels import LABEL_SETS
from dense_perception.ros.convert import camera_info_message, image_message
from test.ros.conftest import NodeFactory
from test.support.multitask_artefacts import write_multitask_artefact
from test.support.ros_probe import Probe, header, qos_profile, random_rgb, wait_until

pytestmark = pytest.mark.ros

STAMPS = itertools.count(100)
# One topic for each kind of subscriber: whether it is reliable, whether transient local.
SUBSCRIBERS = {
    ("depth/image", Image): (True, False),
    ("depth/color", Image): (False, False),
    ("points", PointCloud2): (True, True),
    ("depth/camera_info", CameraInfo): (False, True),
}


def words(reliable: bool, latched: bool = False) -> str:
    """As the node's warnings put it."""
    return (
        f"{'reliable' if reliable else 'best_effort'}, "
        f"{'transient_local' if latched else 'volatile'}"
    )


@pytest.mark.parametrize("own", ["best_effort", "reliable"])
def test_a_pair_is_delivered_or_both_sides_are_named(
    own: str, start_node: NodeFactory, probe: Probe, red_model: Path
) -> None:
    node = start_node(model=red_model, input_reliability=own, output_reliability=own)
    is_reliable = own == "reliable"
    outputs = {
        settings: probe.collect(kind, f"/depth_node/{topic}", *settings)
        for (topic, kind), settings in SUBSCRIBERS.items()
    }
    publishers = {
        reliable: probe.node.create_publisher(Image, "/image", qos_profile(reliable))
        for reliable in (False, True)
    }
    # A publisher may offer more than is asked for, and never less.
    heard = [reliable for reliable in publishers if reliable or not is_reliable]
    served = [each for each in outputs if not each[1] and (is_reliable or not each[0])]
    for reliable in heard:
        message = image_message(random_rgb(), header(next(STAMPS)), "rgb8")
        probe.ask(
            message.header.stamp.sec,
            lambda p=publishers[reliable], m=message: p.publish(m),
            *(outputs[settings] for settings in served),
        )
    for reliable in publishers.keys() - heard:
        node.wait_for_text("no frames will come from a publisher of /image: ")
        assert f"this node subscribes {words(is_reliable)}, published are " in node.log()
        assert f"/probe ({words(reliable)})" in node.log()
        assert publishers[reliable].get_subscription_count() == 0
    for settings in outputs.keys() - served:
        topic = outputs[settings].topic
        node.wait_for_text(
            f"a subscriber of {topic} gets nothing: this node publishes {words(is_reliable)}, "
            f"subscribed are /probe ({words(*settings)}): "
        )
        assert not outputs[settings].messages
    assert node.log().count("gets nothing") == len(outputs) - len(served)
    assert node.log().count("no frames will come") == len(publishers) - len(heard)


def test_a_latched_calibration_from_before_the_start_is_used(
    start_node: NodeFactory, probe: Probe, red_model: Path
) -> None:
    camera = Intrinsics(64, 48, 80.0, 78.0, 30.5, 24.5)
    publisher = probe.node.create_publisher(CameraInfo, "/camera_info", qos_profile(True, True))
    publisher.publish(camera_info_message(None, camera, header(1)))
    node = start_node(model=red_model)
    node.wait_for_text("no publisher on /image: start the camera")
    outputs = probe.collect(CameraInfo, "/depth_node/depth/camera_info")
    message = image_message(random_rgb(), header(next(STAMPS)), "rgb8")
    (info,) = probe.ask(message.header.stamp.sec, lambda: probe.send_image(message), outputs)
    assert info.k[0] == 80.0


def test_late_subscribers_get_the_names_of_the_labels(
    vision_msgs: None, start_node: NodeFactory, domain: int, tmp_path: Path
) -> None:
    from vision_msgs.msg import LabelInfo

    model = tmp_path / "bytes.onnx"
    write_multitask_artefact(model)
    node = start_node(node="segmentation_node", model=model)
    assert "vision_msgs is not installed" not in node.log()
    topic = "/segmentation_node/segmentation/label_info"

    def named(message: LabelInfo) -> dict[int, str]:
        return {each.class_id: each.class_name for each in message.class_map}

    with Probe(domain, "/segmentation_node") as probe:
        early = probe.collect(LabelInfo, topic, latched=True)
        (first,) = early.wait()
        labels = LABEL_SETS["generated_rooms"].labels
        assert named(first) == {**dict(enumerate(labels)), 255: "void"}
        assert first.threshold == 0
        assert first.header.stamp.sec > 0

        (accepted,) = probe.set_parameters(label_groups=["drivable: floor, rug", "obstacle: *"])
        assert accepted.successful, accepted.reason
        grouped = {0: "drivable", 1: "obstacle", 255: "void"}
        assert named(early.wait(2)[-1]) == grouped
        late = probe.collect(LabelInfo, topic, latched=True)
        assert [named(each) for each in late.wait()] == [grouped]

        # A new activation says them again, to whoever came before it.
        assert probe.change_state("deactivate")
        assert probe.change_state("activate")
        assert named(early.wait(3)[-1]) == grouped
        wait_until(lambda: len(late.messages) == 2, "the second announcement")
