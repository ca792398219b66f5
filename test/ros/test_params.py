"""The parameter table, without ROS."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from dense_perception.backends.opening import BACKENDS
from dense_perception.core.errors import InputError
from dense_perception.ros.parameter_table import (
    Changes,
    as_markdown,
    as_yaml,
    changed,
    from_overrides,
    table,
    unknown_names,
)
from dense_perception.ros.params import (
    DepthParameters,
    InstanceParameters,
    MultitaskParameters,
    PerceptionParameters,
    SegmentationParameters,
)

NODES = {
    "depth_node": DepthParameters,
    "segmentation_node": SegmentationParameters,
    "instance_node": InstanceParameters,
    "multitask_node": MultitaskParameters,
}


@pytest.mark.parametrize("kind", NODES.values())
def test_yaml_gives_every_parameter_its_default_in_the_right_type(
    kind: type[PerceptionParameters],
) -> None:
    values = yaml.safe_load(as_yaml("a_node", kind))["/**"]["ros__parameters"]
    assert from_overrides(kind, values) == kind()
    assert list(values) == [spec.name for spec in table(kind)]


def test_markdown_has_a_row_for_every_parameter() -> None:
    text = as_markdown(DepthParameters)
    for spec in table(DepthParameters):
        assert f"| `{spec.name}` |" in text


def test_backends_are_those_there_are() -> None:
    (spec,) = [spec for spec in table(DepthParameters) if spec.name == "backend"]
    assert set(spec.choices) == {"auto", *BACKENDS}


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"threads": -1}, "parameter threads is -1, expected 0 to 256"),
        ({"frame_id": "/camera"}, "frame_id is '/camera', expected a frame's name without"),
        (
            {"frame_id": "x", "cameras": ["a", "b"]},
            "frame_id is 'x' for the cameras a, b, expected",
        ),
        ({"max_rate_hz": -1.0}, "parameter max_rate_hz is -1.0, expected 0 to 1000"),
        ({"threads": True}, "parameter threads is True .true or false., expected a whole number"),
        ({"points_rgb": 1}, "parameter points_rgb is 1 .a whole number., expected true or false"),
        (
            {"default_hfov_deg": float("nan")},
            "parameter default_hfov_deg is nan, expected 1 to 170",
        ),
        ({"max_depth_m": 10}, "expected a number with a point: write 10.0"),
        ({"model": "  "}, "parameter model is empty"),
        ({"model": 3}, "expected a text"),
        ({"cameras": ["left", "left"]}, "expected each name once"),
        ({"cameras": ["left camera"]}, "cameras has the name 'left camera', expected a letter"),
        ({"cameras": [f"c{number}" for number in range(17)]}, "has 17 names, expected at most 16"),
        ({"cameras": [1, 2]}, "expected a list of texts"),
        ({"image_transport": "theora"}, "expected one of raw, compressed"),
        ({"min_depth_m": 2.0, "max_depth_m": 2.0}, "expected the first to be smaller"),
    ],
)
def test_wrong_values_are_named(values: dict[str, object], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        from_overrides(DepthParameters, values)


def test_changes_wait_for_the_right_state() -> None:
    now = DepthParameters()
    assert changed(now, {"max_depth_m": 5.0}, configured=True).max_depth_m == 5.0
    assert changed(now, {"model": "other", "use_sim_time": True}).model == "other"
    assert changed(now, {"model": now.model}, configured=True) == now
    assert changed(now, {"model": "other"}, configured=True).model == "other"
    with pytest.raises(InputError, match="deactivate and clean it up"):
        changed(now, {"cameras": ["left"]}, configured=True)
    with pytest.raises(InputError, match="read at start only"):
        changed(now, {"autostart": False})
    both = changed(now, {"min_depth_m": 20.0, "max_depth_m": 30.0})
    assert (both.min_depth_m, both.max_depth_m) == (20.0, 30.0)


def test_an_empty_list_is_one_blank_text_in_ros() -> None:
    assert from_overrides(DepthParameters, {"cameras": [""]}).cameras == ()
    assert from_overrides(DepthParameters, {"cameras": [" left", "right"]}).cameras == (
        *("left", "right"),
    )


def test_misspelt_names_find_their_neighbour() -> None:
    given = ["modle", "use_sim_time", "qos_overrides./image.reliability", "zzz", "model"]
    given.append("scale.source")  # nested in YAML
    unknown = [("modle", "model"), ("zzz", ""), ("scale.source", "scale_source")]
    assert unknown_names(DepthParameters, given) == unknown


def test_every_row_is_complete() -> None:
    for spec in table(DepthParameters):
        assert spec.description.endswith("."), spec.name
        assert spec.changes in Changes
        if spec.type in (int, float):
            assert spec.low is not None, spec.name
            assert spec.low <= spec.default <= (spec.high or 0), spec.name


def test_the_table_needs_no_ros() -> None:
    code = (
        "import sys, dense_perception.ros.params, dense_perception.ros.parameter_table;"
        "sys.exit('rclpy' in sys.modules or 'cv2' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
