"""The launch files: resolved by a stand-in and run for real; by launch_ros where there is one."""

from __future__ import annotations

import argparse
import ast
import re
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml
from sensor_msgs.msg import CameraInfo, Image

from dense_perception import cli
from dense_perception.backends.opening import BACKENDS
from dense_perception.commands import evaluate as evaluate_command
from dense_perception.commands import replay as replay_command
from dense_perception.core.errors import InputError
from dense_perception.ros.convert import image_message
from dense_perception.ros.parameter_table import table
from dense_perception.ros.params import MultitaskParameters
from dense_perception.ros.processes import ChildProcess
from test.support import recordings
from test.support.bags import picture_messages, write_bag
from test.support.launch_standin import (
    ResolvedNode,
    declared_arguments,
    included_files,
    processes,
    resolve,
)
from test.support.ros_probe import Probe, header, random_rgb

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "launch").glob("*.launch.py"))
LAUNCH = ROOT / "launch" / "perception.launch.py"
TASKS = ("depth", "segmentation", "instance", "multitask")
ARGUMENTS = {
    *("task", "input_image_topic", "input_camera_info_topic", "params_file", "namespace"),
    *("node_name", "respawn", "respawn_delay", "log_level", "use_sim_time", "rviz"),
    *("rviz_fixed_frame", "transport_profile"),
}


def parameters_of(node: ResolvedNode) -> dict[str, object]:
    """What the parameter files of a command line give, later ones over earlier ones."""
    values: dict[str, object] = {}
    for flag, path in zip(node.arguments, node.arguments[1:], strict=False):
        if flag == "--params-file":
            values |= yaml.safe_load(Path(path).read_text())["/**"]["ros__parameters"]
    return values


def test_arguments_are_declared_and_described() -> None:
    declared = declared_arguments(LAUNCH)
    assert declared.keys() == ARGUMENTS | {spec.name for spec in table(MultitaskParameters)}
    assert set(declared["backend"].choices or ()) == {"", "auto", *BACKENDS}
    assert declared["task"].choices == TASKS


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_file_says_what_its_arguments_mean(path: Path) -> None:
    for name, argument in declared_arguments(path).items():
        assert len(argument.description) > 10, name
        if argument.choices is not None:  # a wrong default breaks the real launch, too
            assert argument.default_value in argument.choices
    text = path.read_text()
    assert "ros2 launch dense_perception " + path.name in (ast.get_docstring(ast.parse(text)) or "")
    for mentioned in re.findall(r"config/[\w./]+\.\w+", text):
        assert (ROOT / mentioned).is_file(), mentioned
    assert not re.search(r"SetEnvironmentVariable|os\.environ", text), "the user's environment"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_file_starts_what_the_package_has(path: Path, tmp_path: Path) -> None:
    (node,) = resolve(path, {}, tmp_path)
    assert node.package == "dense_perception"
    setup = (ROOT / "setup.py").read_text()
    assert f'"{node.executable}"' in setup or f'"{node.executable} =' in setup
    files = [each for each in node.arguments if each.endswith(".yaml")]
    assert files
    assert all(Path(each).is_file() for each in files)
    config = yaml.safe_load((ROOT / "config" / f"{node.executable}.yaml").read_text())
    known = {*config["/**"]["ros__parameters"], "use_sim_time"}
    assert set(parameters_of(node)) <= known


def test_an_argument_outside_its_choices_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="task is 'flow', expected one of"):
        resolve(LAUNCH, {"task": "flow"}, tmp_path)


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
    assert parameters_of(node) == {"use_sim_time": False}
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


def test_every_parameter_is_an_argument(tmp_path: Path) -> None:
    declared = declared_arguments(LAUNCH)
    for spec in table(MultitaskParameters):
        assert spec.name == "cameras" or spec.description in declared[spec.name].description
    assert declared["points_rgb"].choices == ("", "true", "false")
    groups = "['drivable: road, floor', 'obstacle: *']"
    given = {
        "max_depth_m": "8",
        "points_rgb": "false",
        "void_label": "7",
        "cameras": " , ",
        "label_groups": groups,
        "frame_id": "1e3",
        "task": "multitask",
    }
    (node,) = resolve(LAUNCH, given, tmp_path)
    own = parameters_of(node)
    assert own == {
        "max_depth_m": 8.0,
        "points_rgb": False,
        "void_label": 7,
        "label_groups": ["drivable: road, floor", "obstacle: *"],
        "frame_id": "1e3",
        "use_sim_time": False,
    }
    assert isinstance(own["max_depth_m"], float)
    (node,) = resolve(LAUNCH, {}, tmp_path)
    assert parameters_of(node) == {"use_sim_time": False}
    # Also through the files that include this one, as launch passes arguments on.
    # An include that stands in the file itself is what --show-args lists.
    for name in ("nav2.launch.py", "multi_camera.launch.py", "evaluate_bag.launch.py"):
        assert included_files(LAUNCH.with_name(name)) == [LAUNCH.name]
        (node,) = resolve(LAUNCH.with_name(name), {"max_rate_hz": "5"}, tmp_path / name)
        assert parameters_of(node)["max_rate_hz"] == 5.0


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"max_depth_m": "abc"}, "parameter max_depth_m is 'abc' .a text., expected a number"),
        ({"threads": "2.5"}, "parameter threads is '2.5' .a text., expected a whole number"),
        ({"max_output_side": "3"}, "parameter max_output_side is 3, expected 16 to 16384"),
        ({"label_groups": "a: b"}, "label_groups is no parameter of task depth, expected task seg"),
        ({"label_groups": "[a", "task": "multitask"}, "got the list '.a', expected YAML as"),
        ({"label_groups": "[1]", "task": "multitask"}, "expected a list of texts"),
        ({"respawn_delay": "soon"}, "respawn_delay is 'soon', expected a number of seconds"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_starts(
    given: dict[str, str], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises((ValueError, InputError), match=complaint):
        resolve(LAUNCH, given, tmp_path)


def test_name_and_respawn(tmp_path: Path) -> None:
    given = {"node_name": "eyes", "respawn": "true", "respawn_delay": "0.5", "task": "multitask"}
    (node,) = resolve(LAUNCH, given, tmp_path)
    assert (node.executable, node.respawn, node.respawn_delay) == ("multitask_node", True, 0.5)
    assert "-r __node:=eyes " in " ".join(node.arguments)
    (node,) = resolve(LAUNCH, {}, tmp_path)
    assert not node.respawn


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_rviz_that_is_missing_is_said_before_anything_starts(path: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="rviz2 is not installed: sudo apt install"):
        resolve(path, {"rviz": "true"}, tmp_path)


def test_several_cameras_share_a_node(tmp_path: Path) -> None:
    given = {"cameras": "front, rear", "task": "multitask"}
    (node,) = resolve(LAUNCH.with_name("multi_camera.launch.py"), given, tmp_path)
    assert node.executable == "multitask_node"
    assert parameters_of(node)["cameras"] == ["front", "rear"]
    text = " ".join(node.arguments)
    for camera in ("front", "rear"):
        assert f"-r {camera}/image:=/{camera}/image_raw " in text
        assert f"-r {camera}/image/compressed:=/{camera}/image_raw/compressed " in text
        assert f"-r {camera}/camera_info:=/{camera}/camera_info " in text


def test_cameras_never_share_one_topic(tmp_path: Path) -> None:
    given = {"cameras": "front,left", "input_image_topic": "/camera/image_raw"}
    with pytest.raises(ValueError, match=r"'/camera/image_raw', expected \{camera\} in it"):
        resolve(LAUNCH, given, tmp_path)
    (node,) = resolve(LAUNCH, {"cameras": "front,left"}, tmp_path)
    text = " ".join(node.arguments)
    assert "-r front/image:=front/image " in text
    assert "-r left/camera_info:=left/camera_info " in text


def test_a_bag_is_played_then_evaluated_and_all_is_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = LAUNCH.with_name("evaluate_bag.launch.py")
    (node,) = resolve(path, {}, tmp_path / "nodes")
    wanted = {"use_sim_time": True, "image_transport": "compressed", "model": "dpt_tiny_indoor"}
    assert parameters_of(node) == wanted
    (replay,) = processes(path, {}, tmp_path / "plain")
    recorder, same = processes(path, {"record": "answers"}, tmp_path / "recorded")
    assert same.cmd == replay.cmd
    assert recorder.cmd[recorder.cmd.index("dense_perception.ros.record") + 1] == "answers"
    # The node subscribes to just what is played.
    options = parsed(replay_command, replay.cmd)
    assert options.clock
    for own, played in zip(("image/compressed", "camera_info"), options.topics, strict=True):
        assert f"-r {own}:={played}" in " ".join(node.arguments)
    (evaluation,) = replay.on_exit
    assert type(evaluation.on_exit[0]).__name__ == "Shutdown"
    assert parsed(evaluate_command, evaluation.cmd).topic == options.topics[0]
    # The bag it has by default, for real.
    assert cli.main([*evaluation.cmd[3:], "--limit", "2", "--backend", "onnxruntime"]) == 0
    assert "2 frames of /camera/color/image_raw/compressed" in capsys.readouterr().out


def test_a_report_is_on_what_the_live_node_answered(tmp_path: Path) -> None:
    path = LAUNCH.with_name("evaluate_bag.launch.py")
    given = {"report": str(tmp_path / "report"), "task": "multitask", "namespace": "robot"}
    recorder, replay = processes(path, given, tmp_path / "a")
    played = parsed(replay_command, replay.cmd).topics
    # Images, calibration and truth, and the answers beside them, until the replay is over.
    assert played[0] == "/camera/color/image_raw/compressed"
    assert any("depth" in topic for topic in played)
    node, bag, *recorded = recorder.cmd[recorder.cmd.index("--answers-of") + 1 :]
    assert node == "/robot/multitask_node"
    assert recorded[: len(played)] == list(played)
    assert replay.on_exit == []
    (evaluation,) = recorder.on_exit
    options = parsed(evaluate_command, evaluation.cmd)
    # The bag has no true labels, so those of the node cannot be judged.
    assert options.model == ["mult_tiny_indoor", "topic:/robot/multitask_node/depth/image"]
    assert {model.removeprefix("topic:") for model in options.model[1:]} < set(recorded)
    assert options.data == [bag]
    assert options.topic == played[0]
    assert options.depth_topic in played[1:]
    assert str(options.out) == given["report"]
    with pytest.raises(ValueError, match="report judges depth"):
        processes(path, {**given, "task": "segmentation"}, tmp_path / "c")
    with pytest.raises(ValueError, match="record and report are both given"):
        processes(path, {**given, "record": str(tmp_path / "answers")}, tmp_path / "b")


def test_what_is_recorded_and_compared_follows_namespace_name_and_task(tmp_path: Path) -> None:
    path = LAUNCH.with_name("evaluate_bag.launch.py")
    given = {"record": str(tmp_path / "answers"), "namespace": "/robot/", "task": "segmentation"}
    recorder, replay = processes(path, given, tmp_path / "a")
    below = "/robot/segmentation_node/segmentation/"
    assert recorder.cmd[-3:] == [below + each for each in ("labels", "confidence", "label_info")]
    assert "mult_tiny_indoor" in replay.on_exit[0].cmd
    (node,) = resolve(path, given, tmp_path / "b")
    assert node.executable == "segmentation_node"
    assert parameters_of(node)["model"] == "mult_tiny_indoor"
    assert "-r __ns:=/robot" in " ".join(node.arguments)
    recorder, _ = processes(path, {**given, "node_name": "eyes", "task": "depth"}, tmp_path / "c")
    assert recorder.cmd[-2:] == ["/robot/eyes/depth/image", "/robot/eyes/depth/camera_info"]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"bag": "/nowhere"}, "there is no bag /nowhere"),
        ({"rate": "abc"}, "rate is 'abc', expected 0.001 to 1000"),
        ({"rate": "0"}, "rate is '0', expected 0.001 to 1000"),
        ({"input_image_topic": "/other"}, "/other/compressed"),
        ({"record": "."}, "record is '.', which exists"),
        ({"bag": "no depth"}, "depth"),
        ({"bag": "no stamps", "report": "new"}, "stamps of /camera/image are 0 and 0 ns, expected"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_anything_starts(
    given: dict[str, str], complaint: str, tmp_path: Path
) -> None:
    path = LAUNCH.with_name("evaluate_bag.launch.py")
    if given.get("bag") == "no depth":
        write_bag(tmp_path / "bag", picture_messages(2))
        given = {"bag": str(tmp_path / "bag"), "image_transport": "raw"}
        given["input_image_topic"] = "/camera/image"
    if given.get("bag") == "no stamps":
        rgb_hwc, depth_mm = random_rgb(), np.full((48, 64), 900, np.uint16)
        messages = [
            (topic, k, recordings.image(array, encoding, 0))
            for k in range(3)
            for topic, array, encoding in (
                ("/camera/image", rgb_hwc, "rgb8"),
                ("/camera/depth", depth_mm, "16UC1"),
            )
        ]
        recordings.write_bag(tmp_path / "bag", messages)
        given = {**given, "bag": str(tmp_path / "bag"), "image_transport": "raw"}
        given["input_image_topic"] = "/camera/image"
    with pytest.raises(ValueError, match=complaint):
        processes(path, given, tmp_path)


def parsed(command: ModuleType, words: list[str]) -> argparse.Namespace:
    """``python -m dense_perception.cli VERB ...`` as the verb's own parser reads it."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words[4:])


@pytest.mark.parametrize("task", TASKS)
def test_rviz_gets_its_configuration_and_the_topics_of_the_node(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_rviz(tmp_path / "ros", monkeypatch)
    given = {"rviz": "true", "task": task, "namespace": "robot", "cameras": "front,rear"}
    given["node_name"] = "eyes"
    _, rviz = resolve(LAUNCH, given, tmp_path)
    assert (rviz.package, rviz.executable) == ("rviz2", "rviz2")
    configuration = Path(rviz.arguments[rviz.arguments.index("-d") + 1])
    shown = set(re.findall(r"Value: (/\S+)", configuration.read_text()))
    assert shown
    text = " ".join(rviz.arguments) + " "
    for topic in shown:
        below = topic.removeprefix(f"/{task}_node")
        assert f"-r {topic}:=/robot/eyes/front{below} " in text


def install_rviz(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as ament knows."""
    index = prefix / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "rviz2").touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(prefix))


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
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_real_launch_ros_resolves_it_alike(path: Path, tmp_path: Path) -> None:
    from launch.actions import ExecuteProcess
    from launch.launch_description_sources import get_launch_description_from_python_launch_file
    from launch_ros.actions import LifecycleNode

    from launch import LaunchContext

    context = LaunchContext()
    entities = list(get_launch_description_from_python_launch_file(str(path)).entities)
    nodes: list[LifecycleNode] = []
    while entities:
        entity = entities.pop(0)
        if isinstance(entity, LifecycleNode):
            nodes.append(entity)
        elif not isinstance(entity, ExecuteProcess):
            # Arguments, functions, included files and what they lead to.
            entities += entity.visit(context) or []
    (node,) = nodes
    (expected,) = resolve(path, {}, tmp_path)
    assert node.node_package == expected.package
    assert node.node_executable == expected.executable
