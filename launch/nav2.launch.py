"""Example: one RGB camera for Nav2's semantic segmentation layer, without a depth camera.

ros2 launch dense_perception nav2.launch.py input_image_topic:=/camera/image_raw
ros2 launch nav2_bringup navigation_launch.py params_file:=YOURS

where YOURS has the layer of config/nav2/costmap.yaml in its local costmap: it consumes the labels,
their confidence, the label_info and the cloud of the node that this file starts.
"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription

HERE = Path(__file__).resolve().parent
ARGUMENTS = {
    "input_image_topic": ("/camera/image_raw", "images of the camera", None),
    "model": ("", "name of a model that gives depth and labels, or its ONNX file", None),
    "params_file": (
        str(HERE.parent / "config" / "nav2" / "perception.yaml"),
        "YAML file of parameters for multitask_node",
        None,
    ),
    "use_sim_time": ("false", "true takes the time from /clock", ("true", "false")),
    "rviz": ("false", "true starts RViz on the outputs", ("true", "false")),
}


def generate_launch_description():
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description, choices=choices)
        for name, (default, description, choices) in ARGUMENTS.items()
    ]
    given = [(name, LaunchConfiguration(name)) for name in ARGUMENTS]
    perception = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(HERE / "perception.launch.py")),
        launch_arguments=[("task", "multitask"), *given],
    )
    return LaunchDescription([*declared, perception])
