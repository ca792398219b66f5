"""Brings up one node of dense_perception on one camera, or on several that share the model.

ros2 launch dense_perception perception.launch.py input_image_topic:=/camera/image_raw
ros2 launch dense_perception perception.launch.py task:=multitask rviz:=true
ros2 launch dense_perception perception.launch.py cameras:=front,left \\
    input_image_topic:=/{camera}/image_raw
ros2 launch dense_perception perception.launch.py max_depth_m:=8.0 respawn:=true

The environment of the user is left as it is: the transport profile reaches the started node alone.
"""

from pathlib import Path

import yaml
from ament_index_python.packages import get_package_prefix
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue

from dense_perception.ros.parameter_table import plain, table
from dense_perception.ros.params import (
    DepthParameters,
    InstanceParameters,
    MultitaskParameters,
    SegmentationParameters,
)
from dense_perception.ros.transport import transport_environment
from launch import LaunchDescription

CONFIG = Path(__file__).resolve().parents[1] / "config"
TASKS = {
    "depth": DepthParameters,
    "segmentation": SegmentationParameters,
    "instance": InstanceParameters,
    "multitask": MultitaskParameters,
}
# Of all nodes: multitask_node has the parameters of the others. Each is an argument, as text of
# the parameter's type, and offers its choices. Lists have commas between, or are written as YAML.
PARAMETERS = {spec.name: spec for spec in table(MultitaskParameters)}
BOOLEANS = ("true", "false")

# An empty default means: not given, so the parameter file or the node's own default decides.
# name: (default, description, choices); a parameter's own description where this file says nothing.
ARGUMENTS = {
    "task": (
        "depth",
        "which node: depth, segmentation, instance or multitask (all that the model gives)",
        tuple(TASKS),
    ),
    "input_image_topic": (
        "image",
        "images of the camera; with image_transport other than raw, its name is added; with "
        "cameras, {camera} stands for the name of each",
        None,
    ),
    "input_camera_info_topic": (
        "",
        "its calibration; empty takes camera_info beside the images",
        None,
    ),
    "cameras": ("", "names of several cameras that share the model, with commas between", None),
    "params_file": ("", "YAML file of parameters; config/depth_node.yaml is one to copy", None),
    "namespace": ("", "namespace of the node", None),
    "node_name": ("", "name of the node; empty is depth_node and the like, by the task", None),
    "respawn": ("false", "true starts the node again when its process ends", BOOLEANS),
    "respawn_delay": ("2.0", "seconds before it is started again", None),
    "log_level": (
        "info",
        "the least severity that is logged",
        ("debug", "info", "warn", "error", "fatal"),
    ),
    "use_sim_time": ("false", "true takes the time from /clock", BOOLEANS),
    "rviz": ("false", "true starts RViz on the outputs of the (first) camera", BOOLEANS),
    "rviz_fixed_frame": ("camera_optical", "frame in which RViz shows the cloud", None),
    "transport_profile": (
        "default",
        "Fast DDS profile of the node: default is the package's for large images, empty is none, "
        "or the path of an XML file; a profile set in the environment wins",
        None,
    ),
}
ARGUMENTS |= {
    spec.name: ("", f"parameter: {spec.description}", None)
    for spec in PARAMETERS.values()
    if spec.name not in ARGUMENTS
}
# What the RViz configurations show, below the node's name.
SHOWN = (
    *("points", "depth/image", "depth/color", "segmentation/labels", "segmentation/overlay"),
    *("normals/color", "instances/overlay", "instances/ids", "instances/markers"),
)


def generate_launch_description():
    declared = [
        DeclareLaunchArgument(
            name,
            default_value=default,
            description=description,
            choices=choices or _choices(PARAMETERS.get(name)),
        )
        for name, (default, description, choices) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_nodes)])


def _nodes(context):
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    cameras = _listed(given["cameras"])
    if len(cameras) > 1 and "{camera}" not in given["input_image_topic"]:
        if given["input_image_topic"] != ARGUMENTS["input_image_topic"][0]:
            raise ValueError(
                f"cameras is {given['cameras']!r} and input_image_topic is "
                f"{given['input_image_topic']!r}, expected {{camera}} in it, which stands for the "
                "name of each: input_image_topic:=/{camera}/image_raw"
            )
        given["input_image_topic"] = "{camera}/image"
    overrides = {
        name: _parameter(PARAMETERS[name], text, given["task"])
        for name, text in given.items()
        if name in PARAMETERS and text.strip(" ,")
    }
    overrides["use_sim_time"] = given["use_sim_time"] == "true"
    profile = None if given["transport_profile"] == "default" else given["transport_profile"]
    executable = f"{given['task']}_node"
    name = given["node_name"] or executable
    if given["rviz"] == "true":
        _require_rviz()
    node = LifecycleNode(
        package="dense_perception",
        executable=executable,
        name=name,
        namespace=given["namespace"],
        parameters=[*([given["params_file"]] if given["params_file"] else []), overrides],
        remappings=[pair for camera in cameras or [""] for pair in _inputs(given, camera)],
        ros_arguments=["--log-level", given["log_level"]],
        additional_env=transport_environment(profile),
        output="screen",
        emulate_tty=True,
        respawn=given["respawn"] == "true",
        respawn_delay=_seconds(given["respawn_delay"]),
    )
    if given["rviz"] != "true":
        return [node]
    return [node, _rviz(given, name, cameras, profile)]


def _choices(spec):
    """What an argument offers that sets this parameter; None without a parameter or a choice."""
    if spec is None:
        return None
    values = BOOLEANS if spec.type is bool else spec.choices
    return ("", *values) if values else None


def _parameter(spec, text, task):
    """The text of an argument as a checked value of the parameter's type."""
    tasks = [each for each, kind in TASKS.items() if spec in table(kind) or spec.name == "model"]
    if task not in tasks:
        raise ValueError(
            f"{spec.name} is no parameter of task {task}, expected task {' or '.join(tasks)}"
        )
    value = _value(spec.type, text)
    spec.check(plain(value))
    # Typed, because a plain text such as 1e3 would be read as a number.
    return ParameterValue(value, value_type=str) if spec.type is str else value


def _value(kind, text):
    """The text itself where it is none of that type: the check then says what was expected."""
    if kind is bool:
        return text == "true"
    if kind is tuple:
        return _listed(text)
    try:
        return kind(text)
    except ValueError:
        return text


def _seconds(text):
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"respawn_delay is {text!r}, expected a number of seconds") from None


def _listed(text):
    """Parts with commas between, or a YAML list, for those that have commas inside."""
    if not text.strip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(f"got the list {text!r}, expected YAML as ['a: b, c', 'd: *']") from None


def _inputs(given, camera):
    """The remappings of one camera; its name is empty for the only one."""
    image = given["input_image_topic"].replace("{camera}", camera)
    info = given["input_camera_info_topic"].replace("{camera}", camera)
    own = f"{camera}/" if camera else ""
    return [
        (f"{own}image", image),
        (f"{own}image/compressed", f"{image}/compressed"),
        (f"{own}camera_info", info or _beside(image, "camera_info")),
    ]


def _require_rviz():
    """Else the node would be started and left alone, when launch finds that RViz is missing."""
    try:
        get_package_prefix("rviz2")
    except (LookupError, OSError):
        raise RuntimeError(
            "rviz is true and rviz2 is not installed: sudo apt install ros-$ROS_DISTRO-rviz2, or "
            "leave out rviz:=true"
        ) from None


def _rviz(given, name, cameras, profile):
    """The configurations name the topics of a node without a namespace and with one camera."""
    namespace = given["namespace"].strip("/")
    below = f"/{namespace}/{name}" if namespace else f"/{name}"
    below += f"/{cameras[0]}" if cameras else ""
    return Node(
        package="rviz2",
        executable="rviz2",
        name="rviz",
        arguments=[
            *("-d", str(CONFIG / "rviz" / f"{given['task']}.rviz")),
            *("-f", given["rviz_fixed_frame"]),
        ],
        parameters=[{"use_sim_time": given["use_sim_time"] == "true"}],
        remappings=[(f"/{given['task']}_node/{topic}", f"{below}/{topic}") for topic in SHOWN],
        additional_env=transport_environment(profile),
        output="screen",
    )


def _beside(topic, name):
    """The topic of that name in the same namespace, as image_transport pairs them."""
    head, slash, _ = topic.rpartition("/")
    return f"{head}{slash}{name}"
