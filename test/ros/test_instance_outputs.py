"""Things on a recorded graph: all messages of a frame agree, and hold what the answer says."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Time

from dense_perception.core.camera import Frame, Intrinsics
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import InputError
from dense_perception.core.prediction import DepthMap, Instances, LabelMap, Prediction
from dense_perception.ros import topics
from dense_perception.ros.instance_outputs import InstanceOutputs
from dense_perception.ros.outputs import Answer, OutputTopics
from dense_perception.ros.params import InstanceParameters
from test.support.instance_artefacts import colour_card
from test.support.recorded_graph import RecordedGraph, recorded_log
from test.support.ros_probe import header, random_rgb

CAMERA = Intrinsics.from_fov(64, 48, 60.0)
SETTINGS = InstanceParameters(model="any", score_threshold=0.3)
CARD = colour_card(panoptic=True, depth=True)
assert CARD.instances is not None
assert CARD.segmentation is not None
CHAIR, TABLE, PERSON = (6, 4, 20, 10), (30, 20, 64, 40), (0, 44, 10, 48)
IDS_HW = np.zeros((48, 64), np.uint8)
for row, (left, top, right, bottom) in enumerate((CHAIR, TABLE, PERSON)):
    IDS_HW[top:bottom, left:right] = row + 1
LABELS_HW = IDS_HW.copy()  # the classes are in the order of the rows, after "none"
THINGS = Instances(
    np.array([CHAIR, TABLE, PERSON], np.float32),
    np.array([0.9, 0.6, 0.25], np.float32),
    np.array([0, 1, 2], np.uint8),
    CARD.instances.label_set,
    IDS_HW,
)


def answer(found: Instances = THINGS, depth_m: float = 2.0, stamp_ns: int = 10**9) -> Answer:
    assert CARD.segmentation is not None
    labels = LabelMap(LABELS_HW, LABELS_HW, CARD.segmentation.label_set)
    depth = DepthMap(np.full((48, 64), depth_m, np.float32))
    prediction = Prediction(
        64, 48, CAMERA, stamp_ns=stamp_ns, depth=depth, labels=labels, instances=found
    )
    return Answer(Frame(random_rgb()), prediction, header(7, "optical"), None)


class Published:
    """The group with every topic subscribed to."""

    def __init__(self, card: ModelCard = CARD) -> None:
        self.graph = RecordedGraph()
        self.topics = OutputTopics(self.graph, "")
        self.topics.keep(InstanceOutputs.specs(card, SETTINGS), "reliable")
        self.graph.listen(*self.graph.open)
        log, self.logged = recorded_log()
        self.group = InstanceOutputs(self.topics, card, log)

    def send(self, given: Answer, settings: InstanceParameters = SETTINGS) -> None:
        self.group.publish(given, settings)

    def last(self, name: str) -> Any:
        message = self.graph.sent(f"~/instances/{name}")[-1]
        if name != "markers":
            assert message.header == header(7, "optical")
        return message

    def pixels(self, name: str) -> np.ndarray:
        message = self.last(name)
        dtype = {"mono16": "<u2", "32SC1": "<i4", "rgb8": "u1"}[message.encoding]
        return np.frombuffer(message.data, dtype).reshape(48, 64, -1).squeeze()


def test_detections_and_id_images_agree(vision_msgs: None) -> None:
    published = Published()
    published.send(answer())
    detections = published.last("detections").detections
    assert [each.results[0].hypothesis.class_id for each in detections] == ["chair", "table"]
    assert [each.id for each in detections] == ["1", "2"]
    assert detections[0].results[0].hypothesis.score == pytest.approx(0.9)
    bounds = detections[0].bbox
    assert (bounds.center.position.x, bounds.center.position.y) == (13, 7)
    assert (bounds.size_x, bounds.size_y) == (14, 6)
    ids_hw = published.pixels("ids")
    np.testing.assert_array_equal(ids_hw, np.where(IDS_HW == 3, 0, IDS_HW))
    coded_hw = published.pixels("panoptic")
    np.testing.assert_array_equal(coded_hw >> 16, LABELS_HW)
    np.testing.assert_array_equal(coded_hw & 0xFFFF, ids_hw)
    assert all(each.header == header(7, "optical") for each in detections)


def test_settings_choose_what_is_published(vision_msgs: None) -> None:
    published = Published()
    for changes, names in (
        ({"score_threshold": 0.0}, ["chair", "table", "person"]),
        ({"score_threshold": 0.0, "max_instances": 1}, ["chair"]),
        ({"instance_classes": (" Table ",)}, ["table"]),
        ({"score_threshold": 0.0, "instance_classes": ("person", "table")}, ["table", "person"]),
        ({"score_threshold": 1.0}, []),
    ):
        published.send(answer(), replace(SETTINGS, **changes))
        detections = published.last("detections").detections
        assert [each.results[0].hypothesis.class_id for each in detections] == names
        ids_hw = published.pixels("ids")
        assert set(np.unique(ids_hw)) - {0} == {int(each.id) for each in detections}
        assert len(published.last("detections_3d").detections) == len(names)
        assert len(published.last("markers").markers) == 1 + 2 * len(names)
    with pytest.raises(InputError, match=r"instance_classes has 'chiar'.*did you mean 'chair'"):
        InstanceOutputs.specs(CARD, replace(SETTINGS, instance_classes=("chiar",)))


def test_places_are_in_the_optical_frame(vision_msgs: None) -> None:
    published = Published()
    given = answer()
    assert given.prediction.depth is not None
    depth_m = given.prediction.depth.values_hw
    depth_m[20:40, 30:64] = 4  # the table
    depth_m[20, 30:34], depth_m[39, 60:] = 9, 0.5  # of its border the mask is wrong
    depth_m[:9, :10] = np.nan
    published.send(given)
    chair, table = published.last("detections_3d").detections
    # The chair's pixels with depth: columns 10 to 19 above row 9, 6 to 19 in row 9.
    x, y = (np.arange(10, 20) - CAMERA.cx) / CAMERA.fx * 2, (9 - CAMERA.cy) / CAMERA.fy * 2
    left = (6 - CAMERA.cx) / CAMERA.fx * 2
    assert chair.bbox.center.position.x == pytest.approx((left + x[-1]) / 2)
    assert chair.bbox.size.x == pytest.approx(x[-1] - left)
    assert chair.bbox.center.position.y + chair.bbox.size.y / 2 == pytest.approx(y, abs=1e-6)
    assert (chair.bbox.size.z, chair.bbox.center.position.z) == (0.001, 2)
    pose = table.results[0].pose.pose
    assert pose.position.z == 4
    assert pose.position.x > 0
    assert pose.orientation.w == 1
    assert table.bbox.size.z == 0.001, "pixels that are elsewhere do not count"
    boxes = [each for each in published.last("markers").markers if each.ns == "boxes"]
    assert [each.id for each in boxes] == [int(chair.id), int(table.id)]
    assert boxes[1].pose == table.bbox.center
    assert all(each.header == header(7, "optical") for each in boxes)


def test_a_model_of_boxes_alone(vision_msgs: None) -> None:
    card = replace(colour_card(masks=False), task="multitask", depth=CARD.depth)
    published = Published(card)
    assert "~/instances/ids" not in published.graph.open
    assert published.topics.wanted() == {"instances", "depth"}
    published.send(answer(replace(THINGS, ids_hw=None)))
    chair, _ = published.last("detections_3d").detections
    wide = 13 / CAMERA.fx * 2  # from the middle of the first pixel to that of the last
    assert chair.bbox.size.x == pytest.approx(wide, rel=1e-5)
    assert chair.results[0].pose.pose.position.z == 2
    assert published.pixels("overlay").shape == (48, 64, 3)


def test_the_overlay_shows_masks_and_leaves_the_rest() -> None:
    published = Published()
    published.send(answer(), replace(SETTINGS, overlay_opacity=1.0))
    drawn, rgb = published.pixels("overlay"), random_rgb()
    inside = drawn[22:38, 32:62].reshape(-1, 3)
    colours, counts = np.unique(inside, axis=0, return_counts=True)
    assert counts.max() > 0.8 * len(inside)
    assert colours[counts.argmax()].any()
    np.testing.assert_array_equal(drawn[42:], rgb[42:], "the faint person is not drawn")


def test_where_message_packages_are_missing_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    missing = {topics.DETECTIONS, topics.DETECTIONS_3D}
    there = topics.is_installed
    monkeypatch.setattr(topics, "is_installed", lambda s: s not in missing and there(s))
    published = Published()
    assert "~/instances/detections" not in published.graph.open
    for _ in range(2):
        published.group.announce(SETTINGS, Time())
        published.send(answer())
    (line,) = published.logged.lines
    assert "vision_msgs is not installed: ~/instances/detections and" in line[1]
    assert "apt install ros-$ROS_DISTRO-vision-msgs" in line[1]
    assert len(published.last("markers").markers) == 5
    assert published.pixels("ids").any()


def test_tracking_without_its_package_is_said_and_goes_on(
    vision_msgs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trackers", None)
    monkeypatch.setitem(sys.modules, "supervision", None)
    published = Published()
    for _ in range(2):
        published.send(answer(), replace(SETTINGS, tracking=True))
    (line,) = published.logged.lines
    assert "pip install 'dense_perception[tracking]'" in line[1]
    assert [each.id for each in published.last("detections").detections] == ["1", "2"]


def test_identities_are_the_ids_of_all_messages(vision_msgs: None) -> None:
    pytest.importorskip("trackers")
    published = Published()
    tracked = replace(SETTINGS, tracking=True)
    seen = []
    for frame in range(4):
        # The table is found first in every second frame.
        order = np.array([1, 0, 2]) if frame % 2 else np.array([0, 1, 2])
        found = Instances(
            THINGS.boxes_n4[order],
            THINGS.scores_n,
            THINGS.classes_n[order],
            THINGS.labels,
            np.array([0, *(np.argsort(order) + 1)], np.uint8)[IDS_HW],
        )
        published.send(answer(found, stamp_ns=frame * 10**8), tracked)
        detections = published.last("detections").detections
        seen.append({d.results[0].hypothesis.class_id: int(d.id) for d in detections})
        ids_hw = published.pixels("ids")
        for name, (left, top, *_) in (("chair", CHAIR), ("table", TABLE)):
            assert ids_hw[top, left] == seen[-1].get(name, 0)
    assert seen[0] == {}
    assert seen[1] == seen[2] == seen[3]
    assert len(set(seen[3].values())) == 2


def test_identities_survive_a_change_of_the_settings(vision_msgs: None) -> None:
    pytest.importorskip("trackers")
    published = Published()
    tracked = replace(SETTINGS, tracking=True)
    stamps_s = (0.0, 0.1, 0.2, 0.3, 0.25)
    seen = []
    for frame, stamp_s in enumerate(stamps_s):
        change = {"score_threshold": 0.1, "track_patience_s": 5.0} if frame > 1 else {}
        published.send(answer(stamp_ns=int(stamp_s * 1e9)), replace(tracked, **change))
        seen.append([d.id for d in published.last("detections").detections])
    assert seen[1]
    assert seen[1] == seen[2][: len(seen[1])] == seen[3][: len(seen[1])]
    assert seen[4] == []
    (line,) = published.logged.lines
    assert "older than the one before it" in line[1]


def test_an_answer_without_things_sends_nothing() -> None:
    published = Published()
    given = answer()
    none = replace(given, prediction=replace(given.prediction, instances=None))
    published.send(none)
    assert not published.graph.sent("~/instances/overlay")
    assert InstanceOutputs.specs(replace(CARD, instances=None), SETTINGS) == ()
