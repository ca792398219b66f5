"""The launch file: resolved by a stand-in and run for real; by launch_ros where there is one."""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from sensor_msgs.msg import CameraInfo, Image

from dense_perception.ros.convert import image_message
from dense_perception.ros.parameter_table import table
from dense_perception.ros.params import DepthParameters
from dense_perception.ros.processes import ChildProcess
from test.support.launch_standin import declared_arguments, resolve
from test.support.ros_probe import Probe, header, random_rgb

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch" / "perception.launch.py"
ARGUMENTS = [
    *("model", "backend", "device", "input_image_topic", "input_camera_info_topic"),
    *("params_file", "namespace", "autostart", "log_level", "use_sim_time", "transport_profile"),
]


def test_arguments_are_declared_and_described() -> None:
    declared = declared_arguments(LAUNCH)
    assert sorted(declared) == sorted(ARGUMENTS)
    for name, argument in declared.items():
        assert len(argument.description) > 10, name


def test_what_it_names_exists() -> None:
    """Executables, parameters and files that the launch file mentions."""
    text = LAUNCH.read_text()
    executables = re.findall(r'executable="(\w+)"', text)
    assert executables == ["depth_node"]
    setup = (ROOT / "setup.py").read_text()
    assert all(f"{name} = dense_perception.ros.{name}:main" in setup for name in executables)
    for mentioned in re.findall(r"config/[\w.]+", text):
        assert (ROOT / mentioned).is_file(), mentioned
    known = {spec.name for spec in table(DepthParameters)} | {"use_sim_time"}
    assert {"model", "backend", "device", "autostart", "use_sim_time"} <= known
    ast.parse(text)


def test_defaults_give_the_node_its_own_defaults(tmp_path: Path) -> None:
    (node,) = resolve(LAUNCH, {}, tmp_path)
    assert (node.package, node.executable) == ("dense_perception", "depth_node")
    text = " ".join(node.arguments)
    for wanted in (
        "image:=image",
        "image/compressed:=image/compressed",
        "camera_info:=camera_info",
    ):
        assert f"-r {wanted}" in text
    assert (tmp_path / "launch_params_0.yaml").read_text().split() == [
        *("/**:", "ros__parameters:", "use_sim_time:", "false")
    ]
    (profile,) = node.environment.values()
    assert Path(profile).name == "fastdds_large_images.xml"


def test_topics_and_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"input_image_topic": "/front/image_raw", "transport_profile": ""}
    (node,) = resolve(LAUNCH, given, tmp_path)
    text = " ".join(node.arguments)
    assert "-r image:=/front/image_raw " in text
    assert "-r image/compressed:=/front/image_raw/compressed " in text
    assert "-r camera_info:=/front/camera_info " in text
    assert node.environment == {}
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", "mine.xml")
    (node,) = resolve(LAUNCH, {"input_camera_info_topic": "/calibration"}, tmp_path)
    assert "-r camera_info:=/calibration " in " ".join(node.arguments)
    assert node.environment == {}


@pytest.mark.ros
def test_the_resolved_command_line_runs(
    tmp_path: Path, ros_environment: dict[str, str], domain: int, red_model: Path
) -> None:
    params_file = tmp_path / "mine.yaml"
    params_file.write_text(
        "/**:\n  ros__parameters:\n    depth_encoding: 16UC1\n    model: overridden\n"
        "    backend: onnxruntime\n"
    )
    given = {
        "model": str(red_model),
        "params_file": str(params_file),
        "namespace": "robot",
        "input_image_topic": "/front/image_raw",
        "log_level": "debug",
    }
    (node,) = resolve(LAUNCH, given, tmp_path)
    with ChildProcess(
        f"dense_perception.ros.{node.executable}",
        node.arguments,
        log=tmp_path / "log",
        environment={**ros_environment, **node.environment},
    ) as process:
        process.wait_for_text("waiting for images on /front/image_raw")
        with Probe(domain, "/robot/depth_node") as probe:
            assert probe.state() == "active"
            depth = probe.collect(Image, "/robot/depth_node/depth/image")
            info = probe.collect(CameraInfo, "/robot/depth_node/depth/camera_info")
            message = image_message(random_rgb(), header(5), "rgb8")
            publisher = probe.publisher(Image, "/front/image_raw")
            answer, _ = probe.ask(5, lambda: publisher.publish(message), depth, info)
            assert answer.encoding == "16UC1"
        assert process.stop() == 0


@pytest.mark.skipif(find_spec("launch_ros") is None, reason="launch_ros comes with ROS 2 itself")
def test_the_real_launch_ros_resolves_it_alike() -> None:
    from launch.actions import DeclareLaunchArgument, OpaqueFunction
    from launch.launch_description_sources import get_launch_description_from_python_launch_file
    from launch_ros.actions import LifecycleNode

    from launch import LaunchContext

    description = get_launch_description_from_python_launch_file(str(LAUNCH))
    context = LaunchContext()
    nodes: list[LifecycleNode] = []
    for entity in description.entities:
        assert isinstance(entity, DeclareLaunchArgument | OpaqueFunction)
        nodes += entity.execute(context) or []
    (node,) = nodes
    assert node.node_package == "dense_perception"
    assert node.node_executable == "depth_node"
