"""The publishers of one camera on a recorded graph: which are open, what is sent and when."""

from __future__ import annotations

import numpy as np
import pytest
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from dense_perception.core.errors import InputError
from dense_perception.imaging.messages import message_rgb
from dense_perception.ros import topics
from dense_perception.ros.convert import image_message
from dense_perception.ros.outputs import OutputTopics
from dense_perception.ros.topics import TopicSpec, is_installed, message_class, message_type
from test.support.recorded_graph import RecordedGraph

LATCHED = TopicSpec("facts", "std_msgs/Header", "", "Said once.", (), latched=True)
SPECS = (topics.DEPTH_IMAGE, topics.LABELS, LATCHED)


@pytest.fixture
def graph() -> RecordedGraph:
    return RecordedGraph()


def kept(graph: RecordedGraph, camera: str = "", reliability: str = "reliable") -> OutputTopics:
    outputs = OutputTopics(graph, camera)
    outputs.keep(SPECS, reliability)
    return outputs


def test_each_camera_publishes_below_its_name(graph: RecordedGraph) -> None:
    kept(graph)
    kept(graph, "left")
    names = [spec.name for spec in SPECS]
    names += ["depth/image/compressedDepth", "segmentation/labels/compressed"]
    assert set(graph.open) == {*(f"~/{n}" for n in names), *(f"~/left/{n}" for n in names)}
    assert graph.open["~/left/depth/image"].kind is Image


@pytest.mark.parametrize("reliability", ["reliable", "best_effort"])
def test_latched_topics_are_kept_for_late_subscribers_and_others_are_not(
    graph: RecordedGraph, reliability: str
) -> None:
    kept(graph, reliability=reliability)
    profiles = {name: each.profile for name, each in graph.open.items()}
    assert profiles["~/facts"].durability is DurabilityPolicy.TRANSIENT_LOCAL
    assert profiles["~/facts"].reliability is ReliabilityPolicy.RELIABLE
    assert profiles["~/facts"].depth == 1
    assert profiles["~/depth/image"].durability is DurabilityPolicy.VOLATILE
    assert profiles["~/depth/image"].reliability is ReliabilityPolicy[reliability.upper()]


def test_nothing_is_made_for_nobody(graph: RecordedGraph) -> None:
    outputs, made = kept(graph), []

    def make() -> Image:
        made.append(1)
        return Image()

    outputs.send(topics.DEPTH_IMAGE, make)
    assert not made
    graph.listen("~/depth/image")
    outputs.send(topics.DEPTH_IMAGE, make)
    assert len(made) == len(graph.sent("~/depth/image")) == 1


def test_a_packed_topic_is_made_for_those_who_want_it_alone(graph: RecordedGraph) -> None:
    outputs, made = kept(graph), []
    labels_hw = np.arange(12, dtype=np.uint8).reshape(3, 4)

    def make() -> Image:
        made.append(1)
        return image_message(labels_hw, Header(frame_id="camera"), "mono8")

    graph.listen("~/segmentation/labels/compressed")
    assert outputs.wanted() == {"labels"}
    outputs.send(topics.LABELS, make)
    assert not graph.sent("~/segmentation/labels")
    (packed,) = graph.sent("~/segmentation/labels/compressed")
    assert (packed.header.frame_id, packed.format) == ("camera", "mono8; png compressed ")
    assert (message_rgb(packed) == labels_hw[..., None]).all()
    graph.listen("~/segmentation/labels/compressed", "~/segmentation/labels")
    outputs.send(topics.LABELS, make)
    assert len(made) == 2, "made once for both"
    assert len(graph.sent("~/segmentation/labels")) == 1


def test_a_topic_that_was_not_declared_is_refused_and_a_closed_one_is_left_out(
    graph: RecordedGraph,
) -> None:
    outputs = kept(graph)
    with pytest.raises(LookupError, match="~/points is sent but not among the group's specs"):
        outputs.send(topics.POINTS, Image)
    outputs.close()
    outputs.send(topics.DEPTH_IMAGE, Image)  # the model changed while this frame was worked on
    assert not graph.open


def test_a_latched_message_is_sent_before_anybody_listens(graph: RecordedGraph) -> None:
    kept(graph).send(LATCHED, lambda: Header(frame_id="kept"))
    assert [each.frame_id for each in graph.sent("~/facts")] == ["kept"]


def test_what_is_wanted_follows_the_subscribers(graph: RecordedGraph) -> None:
    outputs = kept(graph)
    assert outputs.wanted() == frozenset()
    graph.listen("~/facts")
    assert outputs.wanted() == frozenset()  # it is made from no prediction
    graph.listen("~/depth/image", "~/segmentation/labels")
    assert outputs.wanted() == {"depth", "labels"}


def test_changes_leave_publishers_of_topics_that_stay(graph: RecordedGraph) -> None:
    outputs = kept(graph)
    depth = graph.open["~/depth/image"]
    graph.listen("~/depth/image")
    outputs.keep((topics.DEPTH_IMAGE, topics.POINTS), "reliable")
    packed = "~/depth/image/compressedDepth"
    assert set(graph.open) == {"~/depth/image", packed, "~/points"}
    assert graph.open["~/depth/image"] is depth
    outputs.close()
    assert not graph.open
    assert outputs.wanted() == frozenset()


def test_message_classes_go_by_either_spelling() -> None:
    assert message_class("sensor_msgs/msg/Image") is message_class("sensor_msgs/Image") is Image
    assert message_type(topics.DEPTH_IMAGE) is Image
    missing = TopicSpec("x", "no_such_msgs/Thing", "", "", ())
    assert is_installed(topics.POINTS)
    assert not is_installed(missing)
    with pytest.raises(InputError, match="install the package no_such_msgs"):
        message_type(missing)
