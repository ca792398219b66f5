"""Example: a model on a recording, live through its node and then in figures.

ros2 launch dense_perception evaluate_bag.launch.py
ros2 launch dense_perception evaluate_bag.launch.py bag:=recording rviz:=true \\
    input_image_topic:=/camera/image_raw image_transport:=raw record:=answers

Plays the bag through depth_node in the bag's own time, compares the model's depth with the depth in
the bag when it is over, and ends. Without arguments it takes the small recording of the demo.
"""

import sys
from pathlib import Path

from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    Shutdown,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

import dense_perception
from dense_perception.ros.transport import transport_environment
from launch import LaunchDescription

HERE = Path(__file__).resolve().parent
DEMO = Path(dense_perception.__file__).resolve().parent / "demo"
ARGUMENTS = {
    "bag": (str(DEMO), "rosbag2 folder, .mcap or .db3 file", None),
    "input_image_topic": ("/camera/color/image_raw", "images of the camera in the bag", None),
    "input_camera_info_topic": (
        "/camera/color/camera_info",
        "its calibration in the bag",
        None,
    ),
    "image_transport": (
        "compressed",
        "how the bag has the images: compressed adds /compressed to their topic",
        ("raw", "compressed"),
    ),
    "model": ("dpt_tiny_indoor", "name of a depth model, or its ONNX file", None),
    "params_file": ("", "YAML file of parameters for depth_node", None),
    "rate": ("1.0", "speed of the replay, 1 is real time", None),
    "record": ("", "new folder for a bag of the node's answers; empty records none", None),
    "rviz": ("false", "true starts RViz on the outputs", ("true", "false")),
}
PASSED_ON = (
    *("input_image_topic", "input_camera_info_topic", "image_transport", "model", "params_file"),
    "rviz",
)
RECORDED = ("/depth_node/depth/image", "/depth_node/depth/camera_info")


def generate_launch_description():
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description, choices=choices)
        for name, (default, description, choices) in ARGUMENTS.items()
    ]
    perception = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(HERE / "perception.launch.py")),
        launch_arguments=[
            *((name, LaunchConfiguration(name)) for name in PASSED_ON),
            ("use_sim_time", "true"),
        ],
    )
    return LaunchDescription([*declared, perception, OpaqueFunction(function=_processes)])


def _processes(context):
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    image = given["input_image_topic"]
    image += "/compressed" if given["image_transport"] == "compressed" else ""
    verb = [sys.executable, "-m", "dense_perception.cli"]
    common = {"output": "screen", "additional_env": transport_environment()}
    evaluation = ExecuteProcess(
        name="evaluate",
        cmd=[*verb, "evaluate", given["model"], "--bag", given["bag"], "--topic", image],
        on_exit=[Shutdown(reason="the recording is evaluated")],
        **common,
    )
    replay = ExecuteProcess(
        name="replay",
        cmd=[
            *(*verb, "replay", given["bag"], "--clock", "--rate", given["rate"]),
            *("--topics", image, given["input_camera_info_topic"]),
            # Until the node has loaded its model and subscribes.
            *("--wait-for-subscribers", "60"),
        ],
        on_exit=[evaluation],
        **common,
    )
    if not given["record"]:
        return [replay]
    recorder = ExecuteProcess(
        name="record",
        cmd=[
            *(sys.executable, "-m", "dense_perception.ros.record", given["record"], *RECORDED),
        ],
        **common,
    )
    return [recorder, replay]
