"""The committed pages and parameter files are those that the code declares, and the node agrees."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dense_perception.commands import reference
from dense_perception.ros import node_pages
from dense_perception.ros.node_pages import NODES
from dense_perception.ros.parameter_table import from_overrides, table
from dense_perception.ros.topics import with_packed
from test.ros.conftest import Live
from test.support.ros_probe import wait_until

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", node_pages.files())
def test_the_committed_file_is_what_the_code_declares(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    assert text == node_pages.files()[path], "stale: run `make docs`"


def test_every_page_is_about_a_node_and_every_node_has_one() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "nodes").glob("*.md")}
    modules = {path.stem for path in (ROOT / "dense_perception" / "ros").glob("*_node.py")}
    assert pages == set(NODES) == modules - {"perception_node"}


@pytest.mark.parametrize("name", NODES)
def test_the_parameter_file_starts_the_node_with_its_defaults(name: str) -> None:
    text = (ROOT / "config" / f"{name}.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text)["/**"]["ros__parameters"]
    kind = NODES[name].parameters
    assert from_overrides(kind, values) == kind()
    assert list(values) == [spec.name for spec in table(kind)]


def test_it_writes_below_the_root_it_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reference.main([str(tmp_path)]) == 2
    assert "give the root of the project" in capsys.readouterr().err
    (tmp_path / "docs").mkdir()
    (tmp_path / "config").mkdir()
    assert reference.main([str(tmp_path)]) == 0
    for path, text in node_pages.files().items():
        assert (tmp_path / path).read_text(encoding="utf-8") == text


@pytest.mark.ros
def test_a_running_node_has_the_topics_of_its_page(live: Live) -> None:
    """Of a metric model without a scale source: names, types and QoS as the graph shows them."""
    node = live.probe.node
    page = NODES["depth_node"]
    wait_until(lambda: ("depth_node", "/") in node.get_node_names_and_namespaces(), "the node")
    wait_until(lambda: node.get_publishers_info_by_topic("/depth_node/points"), "its publishers")
    published = dict(node.get_publisher_names_and_types_by_node("depth_node", "/"))
    own = {name: types for name, types in published.items() if name.startswith("/depth_node/")}
    own.pop("/depth_node/transition_event")
    outputs = with_packed(spec for spec in page.outputs if spec.name != "depth/relative")
    assert {name: types[0].replace("/msg/", "/") for name, types in own.items()} == {
        f"/depth_node/{spec.name}": spec.type for spec in outputs
    }
    for spec in outputs:
        (info,) = node.get_publishers_info_by_topic(f"/depth_node/{spec.name}")
        assert info.qos_profile.reliability.name == "RELIABLE"
        latched = info.qos_profile.durability.name == "TRANSIENT_LOCAL"
        assert latched == spec.latched
    subscribed = dict(node.get_subscriber_names_and_types_by_node("depth_node", "/"))
    inputs = {f"/{spec.name.removeprefix('/')}": spec for spec in page.inputs if not spec.only}
    inputs["/image"] = page.inputs[0]
    assert {
        name: types[0].replace("/msg/", "/")
        for name, types in subscribed.items()
        if name not in ("/parameter_events", "/clock")
    } == {name: spec.type for name, spec in inputs.items()}
    for name, spec in inputs.items():
        infos = node.get_subscriptions_info_by_topic(name)
        (info,) = [each for each in infos if each.node_name == "depth_node"]
        wanted = "best effort" if "input_reliability" in spec.qos else spec.qos.split(",")[0]
        assert info.qos_profile.reliability.name == wanted.upper().replace(" ", "_")
