"""Example: a model on a recording, live through its node and then in figures.

ros2 launch dense_perception evaluate_bag.launch.py
ros2 launch dense_perception evaluate_bag.launch.py bag:=recording rviz:=true \\
    input_image_topic:=/camera/image_raw image_transport:=raw record:=answers
ros2 launch dense_perception evaluate_bag.launch.py task:=multitask namespace:=robot record:=answers

Plays the bag through a node in the bag's own time, compares the model's depth with the depth in the
bag when it is over, and ends. Without arguments it takes the small recording of the demo. All
arguments of perception.launch.py are taken. The exit code is 1 if anything fails.
"""

import sys
from pathlib import Path

from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
)
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

import dense_perception
from dense_perception.core.errors import DensePerceptionError
from dense_perception.evaluation.bags import PairSource
from dense_perception.ros.transport import transport_environment
from launch import LaunchDescription

HERE = Path(__file__).resolve().parent
DEMO = Path(dense_perception.__file__).resolve().parent / "demo"
# Model and recorded topics below the node, by task.
TASKS = {
    "depth": ("dpt_tiny_indoor", ("depth/image", "depth/camera_info")),
    "segmentation": (
        "mult_tiny_indoor",
        ("segmentation/labels", "segmentation/confidence", "segmentation/label_info"),
    ),
    "multitask": (
        "mult_tiny_indoor",
        ("depth/image", "depth/camera_info", "segmentation/labels", "segmentation/confidence"),
    ),
}
ARGUMENTS = {
    "bag": (str(DEMO), "rosbag2 folder, .mcap or .db3 file", None),
    "task": ("depth", "which node: depth, segmentation or multitask", tuple(TASKS)),
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
    "model": (
        "",
        "name of a model that gives depth, or its ONNX file; empty is that of the task",
        None,
    ),
    "params_file": ("", "YAML file of parameters for the node", None),
    "namespace": ("", "namespace of the node", None),
    "node_name": ("", "name of the node; empty is depth_node and the like, by the task", None),
    "rate": ("1.0", "speed of the replay, 1 is real time", None),
    "record": ("", "new folder for a bag of the node's answers; empty records none", None),
    "rviz": ("false", "true starts RViz on the outputs", ("true", "false")),
}
OWN = ("bag", "rate", "record", "model")


def generate_launch_description():
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description, choices=choices)
        for name, (default, description, choices) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_all)])


def _all(context):
    """Everything that can be refused is refused here, before a process is started."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    default_model, recorded = TASKS[given["task"]]
    model = given["model"] or default_model
    image = given["input_image_topic"]
    image += "/compressed" if given["image_transport"] == "compressed" else ""
    _check(given, image)
    perception = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(HERE / "perception.launch.py")),
        launch_arguments=[
            *((name, text) for name, text in given.items() if name not in OWN),
            ("model", model),
            ("use_sim_time", "true"),
        ],
    )
    verb = [sys.executable, "-m", "dense_perception.cli"]
    common = {"output": "screen", "additional_env": transport_environment()}
    evaluation = ExecuteProcess(
        name="evaluate",
        cmd=[*verb, "evaluate", model, "--bag", given["bag"], "--topic", image],
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
    recorders = []
    if given["record"]:
        node = "/".join(
            [given["namespace"].strip("/"), given["node_name"] or f"{given['task']}_node"]
        )
        topics = [f"/{node.lstrip('/')}/{topic}" for topic in recorded]
        recorders = [
            ExecuteProcess(
                name="record",
                cmd=[sys.executable, "-m", "dense_perception.ros.record", given["record"], *topics],
                **common,
            )
        ]
    # Before the others' own on_exit: the first failure ends the launch.
    failures = RegisterEventHandler(OnProcessExit(on_exit=_end_if_failed))
    return [failures, perception, *recorders, replay]


def _check(given, image):
    try:
        rate = float(given["rate"])
    except ValueError:
        rate = 0.0
    if not 0.001 <= rate <= 1000:
        raise ValueError(f"rate is {given['rate']!r}, expected 0.001 to 1000 (1 is real time)")
    if given["record"] and Path(given["record"]).exists():
        raise ValueError(f"record is {given['record']!r}, which exists: name a new folder")
    try:
        PairSource(Path(given["bag"]), topic=image).close()
    except DensePerceptionError as error:
        raise ValueError(str(error)) from None


def _end_if_failed(event, context):
    """An exception is the one thing that lets `ros2 launch` end with another code than 0."""
    if event.returncode != 0 and not context.is_shutdown:
        raise RuntimeError(f"{event.process_name} ended with exit code {event.returncode}")
