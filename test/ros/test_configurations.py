"""Configurations of RViz, Foxglove and Nav2 name topics and classes that the nodes have."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from dense_perception.ros import topics
from dense_perception.ros.topics import TopicSpec

CONFIG = Path(__file__).parents[2] / "config"
DECLARED = {spec.name: spec for spec in vars(topics).values() if isinstance(spec, TopicSpec)}
RVIZ_TYPES = {"Image": "sensor_msgs/Image", "PointCloud2": "sensor_msgs/PointCloud2"}
RVIZ_TYPES |= {"MarkerArray": "visualization_msgs/MarkerArray"}


def spec_of(topic: str, task: str) -> TopicSpec:
    """The declaration of ``/TASK_node/NAME``."""
    node, name = topic.removeprefix("/").split("/", 1)
    assert node == f"{task}_node"
    return DECLARED[name]


@pytest.mark.parametrize("task", ["depth", "segmentation", "instance", "multitask"])
def test_rviz_shows_topics_that_there_are(task: str) -> None:
    text = (CONFIG / "rviz" / f"{task}.rviz").read_text()
    displays = yaml.safe_load(text)["Visualization Manager"]["Displays"]
    shown = {each["Topic"]["Value"]: each for each in displays if "Topic" in each}
    assert len(shown) >= 3
    for topic, display in shown.items():
        kind = display["Class"].removeprefix("rviz_default_plugins/")
        assert spec_of(topic, task).type == RVIZ_TYPES[kind]
        # Matches whatever output_reliability is.
        assert display["Topic"]["Reliability Policy"] == "Best Effort"


def test_foxglove_shows_topics_that_there_are() -> None:
    layout = json.loads((CONFIG / "foxglove" / "multitask.json").read_text())
    panels = layout["configById"]
    shown = re.findall(r'"/multitask_node/[^"]+"', json.dumps(layout))
    assert {spec_of(topic.strip('"'), "multitask").type for topic in shown} == {
        "sensor_msgs/Image",
        "sensor_msgs/PointCloud2",
        "vision_msgs/LabelInfo",
    }

    def leaves(node: object) -> set[str]:
        if isinstance(node, str):
            return {node}
        assert isinstance(node, dict)
        return leaves(node["first"]) | leaves(node["second"])

    assert leaves(layout["layout"]) == set(panels)


def test_nav2_consumes_what_is_published() -> None:
    costmap = yaml.safe_load((CONFIG / "nav2" / "costmap.yaml").read_text())
    parameters = costmap["local_costmap"]["local_costmap"]["ros__parameters"]
    layer = parameters["semantic_segmentation_layer"]
    camera = layer[layer["observation_sources"]]
    expected = {
        "segmentation_topic": topics.LABELS,
        "confidence_topic": topics.CONFIDENCE,
        "labels_topic": topics.LABEL_INFO,
        "pointcloud_topic": topics.POINTS,
    }
    for key, spec in expected.items():
        assert spec_of(camera[key], "multitask") is spec
    perception = yaml.safe_load((CONFIG / "nav2" / "perception.yaml").read_text())
    settings = perception["/**"]["ros__parameters"]
    groups = {group.split(":")[0] for group in settings["label_groups"]}
    costed = [name for kind in camera["class_types"] for name in camera[kind]["classes"]]
    assert sorted(costed) == sorted(groups)
    # Background of the layer is 0, and nothing else may be.
    assert (settings["first_label"], settings["void_label"]) == (1, 0)
    assert camera["max_obstacle_distance"] <= settings["max_depth_m"]
