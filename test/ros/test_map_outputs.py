"""Groups of labels and further maps on a recorded graph, against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from builtin_interfaces.msg import Time

from dense_perception.core.camera import Frame, Intrinsics
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import InputError
from dense_perception.core.labels import LABEL_SETS
from dense_perception.core.prediction import GrayMap, LabelMap, NormalMap, Prediction
from dense_perception.ros import topics
from dense_perception.ros.map_outputs import MapOutputs, SegmentationOutputs
from dense_perception.ros.outputs import Answer, OutputGroup, OutputTopics
from dense_perception.ros.params import SegmentationParameters
from test.support.artefacts import red_card
from test.support.multitask_artefacts import multitask_card
from test.support.recorded_graph import RecordedGraph, RecordedLog, recorded_log
from test.support.ros_probe import header, random_rgb

CAMERA = Intrinsics.from_fov(64, 48, 60.0)
SETTINGS = SegmentationParameters()
GRAYS = ("edges", "keypoints", "reshading")
ROOMS = LABEL_SETS["generated_rooms"]
GROUPED = replace(SETTINGS, label_groups=("drivable: floor, rug", "obstacle: *"))
rng = np.random.default_rng(4)
LABELS_HW = rng.integers(0, len(ROOMS.labels), (48, 64)).astype(np.uint8)
CONFIDENCE_HW = rng.integers(0, 256, (48, 64)).astype(np.uint8)


def answer(**maps: object) -> Answer:
    return Answer(
        Frame(random_rgb()), Prediction(64, 48, CAMERA, **maps), header(7, "optical"), None
    )


def labelled() -> Answer:
    return answer(labels=LabelMap(LABELS_HW, CONFIDENCE_HW, ROOMS))


class Published:
    """A group with every topic it offers subscribed to."""

    def __init__(self, kind: type[OutputGroup], card: ModelCard) -> None:
        self.graph = RecordedGraph()
        outputs = OutputTopics(self.graph, "")
        outputs.keep(kind.specs(card, SETTINGS), "reliable")
        self.graph.listen(*self.graph.open)
        log, self.logged = recorded_log()
        self.group = kind(outputs, card, log)

    def pixels(self, topic: str) -> np.ndarray:
        """Of the newest message on ``~/topic``, whose header is the image's."""
        message = self.graph.sent(f"~/{topic}")[-1]
        assert message.header == header(7, "optical")
        dtype = {"mono8": "u1", "rgb8": "u1", "mono16": "<u2", "32FC3": "<f4"}[message.encoding]
        channels = message.step // (message.width * np.dtype(dtype).itemsize)
        return np.frombuffer(message.data, dtype).reshape(48, 64, channels).squeeze()


def test_labels_and_their_confidence() -> None:
    published = Published(SegmentationOutputs, multitask_card())
    published.group.publish(labelled(), SETTINGS)
    np.testing.assert_array_equal(published.pixels("segmentation/labels"), LABELS_HW)
    np.testing.assert_array_equal(published.pixels("segmentation/confidence"), CONFIDENCE_HW)
    assert published.graph.sent("~/segmentation/labels")[0].encoding == "mono8"


def test_labels_follow_the_settings_of_each_batch() -> None:
    published = Published(SegmentationOutputs, multitask_card())
    drivable = np.isin(LABELS_HW, [ROOMS.labels.index(name) for name in ("floor", "rug")])
    for settings, expected in (
        (GROUPED, np.where(drivable, 0, 1)),
        (replace(SETTINGS, first_label=300), LABELS_HW.astype(int) + 300),
        (SETTINGS, LABELS_HW),
    ):
        published.group.publish(labelled(), settings)
        np.testing.assert_array_equal(published.pixels("segmentation/labels"), expected)


def test_the_overlay_is_tinted_as_strongly_as_asked() -> None:
    published = Published(SegmentationOutputs, multitask_card())
    published.group.publish(labelled(), replace(SETTINGS, overlay_opacity=0.0))
    np.testing.assert_array_equal(published.pixels("segmentation/overlay"), random_rgb())
    published.group.publish(labelled(), replace(SETTINGS, overlay_opacity=1.0))
    tinted = published.pixels("segmentation/overlay")
    for label in np.unique(LABELS_HW):  # nothing of the image is left
        assert len(np.unique(tinted[label == LABELS_HW], axis=0)) == 1


def test_a_model_without_labels_offers_none_and_an_answer_without_them_sends_none() -> None:
    assert SegmentationOutputs.specs(red_card(), SETTINGS) == ()
    published = Published(SegmentationOutputs, multitask_card())
    published.group.publish(answer(), SETTINGS)
    assert not published.graph.sent("~/segmentation/labels")


def test_groups_that_do_not_fit_the_model_are_refused() -> None:
    wrong = replace(SETTINGS, label_groups=("drivable: flor",))
    with pytest.raises(InputError, match="did you mean 'floor'"):
        SegmentationOutputs.specs(multitask_card(), wrong)


def test_the_names_of_the_labels_are_announced_and_latched(vision_msgs: None) -> None:
    published = Published(SegmentationOutputs, multitask_card())
    topic = "~/segmentation/label_info"
    published.graph.listen()  # a latched topic is kept for those who come later
    for settings, expected in (
        (SETTINGS, {**dict(enumerate(ROOMS.labels)), 255: "void"}),
        (GROUPED, {0: "drivable", 1: "obstacle", 255: "void"}),
    ):
        published.group.announce(settings, Time(sec=12))
        message = published.graph.sent(topic)[-1]
        assert {each.class_id: each.class_name for each in message.class_map} == expected
        assert message.header.stamp.sec == 12
        assert message.threshold == 0
    assert len(published.graph.sent(topic)) == 2


def test_where_vision_msgs_is_missing_it_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "is_installed", lambda spec: spec is not topics.LABEL_INFO)
    log, logged = recorded_log()
    assert isinstance(logged, RecordedLog)
    specs = SegmentationOutputs.specs(multitask_card(), SETTINGS)
    assert topics.LABEL_INFO not in specs
    for _ in range(2):  # as for two cameras, or two activations
        group = SegmentationOutputs(OutputTopics(RecordedGraph(), ""), multitask_card(), log)
        group.announce(SETTINGS, Time())
    ((level, text),) = logged.lines
    assert level == "warning"
    assert "vision_msgs is not installed" in text


def test_further_maps_keep_their_numbers() -> None:
    published = Published(MapOutputs, multitask_card())
    normals_hwc = rng.normal(size=(48, 64, 3)).astype(np.float32)
    normals_hwc /= np.linalg.norm(normals_hwc, axis=2, keepdims=True)
    grays = {name: rng.integers(0, 256, (48, 64)).astype(np.uint8) for name in GRAYS}
    published.group.publish(
        answer(
            normals=NormalMap(normals_hwc),
            **{name: GrayMap(values) for name, values in grays.items()},
        ),
        SETTINGS,
    )
    np.testing.assert_array_equal(published.pixels("normals"), normals_hwc)
    x, y, z = np.moveaxis(normals_hwc.astype(np.float64), 2, 0)
    expected = (np.stack([x, -y, -z], axis=2) + 1) / 2 * 255  # right, up, towards the viewer
    np.testing.assert_allclose(published.pixels("normals/color"), expected, atol=1.0)
    for name, values in grays.items():
        np.testing.assert_array_equal(published.pixels(name), values)


def test_only_the_maps_of_the_model_are_offered() -> None:
    assert MapOutputs.specs(red_card(), SETTINGS) == ()
    only_edges = replace(multitask_card(), maps=("edges",))
    assert [spec.name for spec in MapOutputs.specs(only_edges, SETTINGS)] == ["edges"]
    published = Published(MapOutputs, multitask_card())
    published.group.publish(answer(edges=GrayMap(CONFIDENCE_HW)), SETTINGS)
    assert published.graph.sent("~/edges")
    assert not published.graph.sent("~/normals")
    assert not published.graph.sent("~/keypoints")
