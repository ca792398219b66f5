"""Groups of depth outputs on a recorded graph, against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dense_perception.core.camera import Frame, Intrinsics
from dense_perception.core.card import ModelCard
from dense_perception.core.card_specs import DepthSpec
from dense_perception.core.labels import LABEL_SETS
from dense_perception.core.prediction import DepthKind, DepthMap, LabelMap, Prediction
from dense_perception.ros.convert import camera_info_message
from dense_perception.ros.map_outputs import LabelledPointOutputs
from dense_perception.ros.outputs import (
    Answer,
    DepthOutputs,
    DepthPreview,
    OutputGroup,
    OutputTopics,
    PointOutputs,
)
from dense_perception.ros.params import DepthParameters, MultitaskParameters
from test.support.artefacts import red_card
from test.support.depth_messages import depth_of, expected_xyz, point_field, xyz_of
from test.support.multitask_artefacts import multitask_card, without_depth
from test.support.recorded_graph import RecordedGraph, recorded_log
from test.support.ros_probe import header, random_rgb

CAMERA = Intrinsics(64, 48, 80.0, 78.0, 30.5, 24.5)
SETTINGS = MultitaskParameters()
INVERSE = replace(red_card(), depth=DepthSpec(DepthKind.RELATIVE_INVERSE))


def depth_hw() -> np.ndarray:
    values_hw = np.random.default_rng(1).uniform(0.5, 9.0, (48, 64)).astype(np.float32)
    values_hw[:2] = np.nan
    return values_hw


def answer(kind: DepthKind = DepthKind.METRIC, **maps: object) -> Answer:
    prediction = Prediction(64, 48, CAMERA, **{"depth": DepthMap(depth_hw(), kind), **maps})
    return Answer(Frame(random_rgb()), prediction, header(7, "optical"), None)


def published(
    group: type[OutputGroup], card: ModelCard, settings: DepthParameters = SETTINGS
) -> tuple[OutputGroup, RecordedGraph]:
    """The group with every topic it offers subscribed to."""
    graph = RecordedGraph()
    topics = OutputTopics(graph, "")
    topics.keep(group.specs(card, settings), "reliable")
    graph.listen(*graph.open)
    return group(topics, card, recorded_log()[0]), graph


@pytest.mark.parametrize(
    ("card", "source", "expected"),
    [
        (red_card(), "none", {"depth/image", "depth/camera_info"}),
        (INVERSE, "none", {"depth/relative", "depth/camera_info"}),
        (INVERSE, "factor", {"depth/image", "depth/relative", "depth/camera_info"}),
        (without_depth(multitask_card()), "none", set()),
    ],
)
def test_only_metric_depth_has_the_topic_of_metres(
    card: ModelCard, source: str, expected: set[str]
) -> None:
    settings = replace(SETTINGS, scale_source=source)
    assert {spec.name for spec in DepthOutputs.specs(card, settings)} == expected
    has_cloud = bool(PointOutputs.specs(card, settings))
    assert has_cloud == ("depth/image" in expected)
    assert bool(DepthPreview.specs(card, settings)) == (card.depth is not None)


def test_metres_and_their_calibration() -> None:
    group, graph = published(DepthOutputs, red_card())
    group.publish(answer(), SETTINGS)
    (depth,), (info,) = graph.sent("~/depth/image"), graph.sent("~/depth/camera_info")
    assert depth.header == info.header == header(7, "optical")
    np.testing.assert_array_equal(depth_of(depth), depth_hw())
    np.testing.assert_allclose(np.reshape(info.k, (3, 3)), CAMERA.matrix())
    assert (info.width, info.height) == (64, 48)


def test_millimetres_are_zero_where_depth_is_invalid() -> None:
    group, graph = published(DepthOutputs, red_card())
    group.publish(answer(), replace(SETTINGS, depth_encoding="16UC1"))
    (depth,) = graph.sent("~/depth/image")
    expected = np.where(np.isnan(depth_hw()), 0, np.rint(depth_hw() * 1000.0))
    np.testing.assert_array_equal(depth_of(depth), expected)


def test_numbers_that_are_no_metres_never_go_where_metres_do() -> None:
    settings = replace(SETTINGS, scale_source="factor")
    group, graph = published(DepthOutputs, INVERSE, settings)
    group.publish(answer(DepthKind.RELATIVE_INVERSE), settings)
    assert not graph.sent("~/depth/image")
    (relative,) = graph.sent("~/depth/relative")
    np.testing.assert_array_equal(depth_of(relative), depth_hw())
    group.publish(answer(), settings)  # the scale is known now
    assert len(graph.sent("~/depth/image")) == len(graph.sent("~/depth/relative")) == 1


def test_the_calibration_of_the_input_is_carried_on() -> None:
    group, graph = published(DepthOutputs, red_card())
    info = camera_info_message(None, CAMERA, header(1))
    info.distortion_model, info.d = "plumb_bob", [0.1, 0.2, 0.0, 0.0, 0.3]
    group.publish(replace(answer(), info=info), SETTINGS)
    (sent,) = graph.sent("~/depth/camera_info")
    assert list(sent.d) == pytest.approx([0.1, 0.2, 0.0, 0.0, 0.3])
    assert sent.header == header(7, "optical")


def test_a_cloud_has_the_points_and_colours_of_its_pixels() -> None:
    group, graph = published(PointOutputs, red_card())
    group.publish(answer(), SETTINGS)
    (cloud,) = graph.sent("~/points")
    assert cloud.header == header(7, "optical")
    np.testing.assert_allclose(
        xyz_of(cloud), expected_xyz(depth_hw(), CAMERA), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(point_field(cloud, "rgb") >> 16, random_rgb()[..., 0])
    group.publish(answer(), replace(SETTINGS, points_rgb=False))
    assert [field.name for field in graph.sent("~/points")[-1].fields] == ["x", "y", "z"]


def test_relative_depth_has_no_cloud() -> None:
    settings = replace(SETTINGS, scale_source="factor")
    group, graph = published(PointOutputs, INVERSE, settings)
    group.publish(answer(DepthKind.RELATIVE_INVERSE), settings)
    group.publish(answer(depth=None), settings)
    assert not graph.sent("~/points")


def test_a_labelled_cloud_has_the_published_labels() -> None:
    labels_hw = np.random.default_rng(2).integers(0, 5, (48, 64)).astype(np.uint8)
    labels = LabelMap(labels_hw, labels_hw, LABEL_SETS["generated_rooms"])
    group, graph = published(LabelledPointOutputs, multitask_card())
    group.publish(answer(labels=labels), replace(SETTINGS, first_label=3))
    (cloud,) = graph.sent("~/points")
    np.testing.assert_array_equal(point_field(cloud, "label"), labels_hw + 3)
    group.publish(answer(labels=labels), replace(SETTINGS, points_label=False))
    names = [field.name for field in graph.sent("~/points")[-1].fields]
    assert names == ["x", "y", "z", "rgb"]


@pytest.mark.parametrize(("has_labels", "needs"), [(True, {"depth", "labels"}), (False, {"depth"})])
def test_a_cloud_asks_for_labels_only_if_it_carries_them(has_labels: bool, needs: set[str]) -> None:
    settings = replace(SETTINGS, points_label=has_labels)
    (spec,) = LabelledPointOutputs.specs(multitask_card(), settings)
    assert set(spec.made_from) == needs
    (spec,) = LabelledPointOutputs.specs(red_card(), settings)
    assert set(spec.made_from) == {"depth"}


@pytest.mark.parametrize("kind", list(DepthKind))
def test_the_preview_is_red_near_and_blue_far(kind: DepthKind) -> None:
    card = (
        replace(red_card(), depth=DepthSpec(kind, 0.1, 100.0))
        if kind is DepthKind.METRIC
        else (replace(red_card(), depth=DepthSpec(kind)))
    )
    group, graph = published(DepthPreview, card)
    ramp_hw = np.tile(np.linspace(1, 10, 64, dtype=np.float32), (48, 1))
    ramp_hw[0] = np.nan
    values_hw = 1 / ramp_hw if kind is DepthKind.RELATIVE_INVERSE else ramp_hw
    group.publish(answer(depth=DepthMap(values_hw, kind)), SETTINGS)
    (preview,) = graph.sent("~/depth/color")
    assert (preview.encoding, preview.header) == ("rgb8", header(7, "optical"))
    rgb_hwc = np.frombuffer(preview.data, np.uint8).reshape(48, 64, 3).astype(int)
    np.testing.assert_array_equal(rgb_hwc[0], 0)
    near, far = rgb_hwc[10, 1], rgb_hwc[10, -2]
    assert near[0] > near[2]
    assert far[2] > far[0]
