"""Brings up depth_node on one camera.

ros2 launch dense_perception perception.launch.py input_image_topic:=/camera/image_raw

The environment of the user is left as it is: the transport profile reaches the started node alone.
"""

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

from dense_perception.ros.transport import transport_environment
from launch import LaunchDescription

# An empty default means: not given, so the parameter file or the node's own default decides.
ARGUMENTS = {
    "model": ("", "name of a model, or path of an ONNX file with a card"),
    "backend": ("", "auto, onnxruntime or openvino"),
    "device": ("", "device of the backend, such as cpu or gpu"),
    "input_image_topic": (
        "image",
        "images of the camera; with image_transport compressed, /compressed is added",
    ),
    "input_camera_info_topic": ("", "its calibration; empty takes camera_info beside the images"),
    "params_file": ("", "YAML file of parameters; config/depth_node.yaml is one to copy"),
    "namespace": ("", "namespace of the node"),
    "autostart": ("", "true or false: configure and activate at start"),
    "log_level": ("info", "debug, info, warn, error or fatal"),
    "use_sim_time": ("false", "true takes the time from /clock"),
    "transport_profile": (
        "default",
        "Fast DDS profile of the node: default is the package's for large images, empty is none, "
        "or the path of an XML file; a profile set in the environment wins",
    ),
}


def generate_launch_description():
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_nodes)])


def _nodes(context):
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    overrides = {
        # Typed, because a plain text such as 1e3 would be read as a number.
        name: ParameterValue(given[name], value_type=str)
        for name in ("model", "backend", "device")
        if given[name]
    }
    for name in ("autostart", "use_sim_time"):
        if given[name]:
            overrides[name] = ParameterValue(given[name], value_type=bool)
    image = given["input_image_topic"]
    info = given["input_camera_info_topic"] or _beside(image, "camera_info")
    profile = None if given["transport_profile"] == "default" else given["transport_profile"]
    node = LifecycleNode(
        package="dense_perception",
        executable="depth_node",
        name="depth_node",
        namespace=given["namespace"],
        parameters=[*([given["params_file"]] if given["params_file"] else []), overrides],
        remappings=[
            ("image", image),
            ("image/compressed", f"{image}/compressed"),
            ("camera_info", info),
        ],
        ros_arguments=["--log-level", given["log_level"]],
        additional_env=transport_environment(profile),
        output="screen",
        emulate_tty=True,
    )
    return [node]


def _beside(topic, name):
    """The topic of that name in the same namespace, as image_transport pairs them."""
    head, slash, _ = topic.rpartition("/")
    return f"{head}{slash}{name}"
