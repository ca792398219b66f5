"""Example: three cameras in one node, their frames batched into one inference.

ros2 launch dense_perception multi_camera.launch.py cameras:=front,left,right \\
    input_image_topic:=/{camera}/image_raw
"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription

ARGUMENTS = {
    "task": (
        "depth",
        "which node: depth, segmentation or multitask",
        ("depth", "segmentation", "multitask"),
    ),
    "cameras": ("front,left,right", "names of the cameras, with commas between", None),
    "input_image_topic": (
        "/{camera}/image_raw",
        "images of each camera, whose name {camera} stands for",
        None,
    ),
    "params_file": ("", "YAML file of parameters for the node", None),
    "use_sim_time": ("false", "true takes the time from /clock", ("true", "false")),
}


def generate_launch_description():
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description, choices=choices)
        for name, (default, description, choices) in ARGUMENTS.items()
    ]
    perception = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(Path(__file__).parent / "perception.launch.py")),
        launch_arguments=[(name, LaunchConfiguration(name)) for name in ARGUMENTS],
    )
    return LaunchDescription([*declared, perception])
