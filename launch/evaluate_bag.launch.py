"""Example: a model on a recording, live through its node and then in figures.

ros2 launch dense_perception evaluate_bag.launch.py
ros2 launch dense_perception evaluate_bag.launch.py bag:=recording rviz:=true \\
    input_image_topic:=/camera/image_raw image_transport:=raw record:=answers
ros2 launch dense_perception evaluate_bag.launch.py report:=live_report
ros2 launch dense_perception evaluate_bag.launch.py task:=multitask namespace:=robot record:=answers

Plays the bag through a node in the bag's own time, compares the model's depth with the depth in the
bag when it is over, and ends. With report:=FOLDER it records the images, the truth and what the
node answered meanwhile, and writes a report in which the live answers stand beside the model's.
Without arguments it takes the small recording of the demo. All arguments of perception.launch.py
are taken. The exit code is 1 if anything fails.
"""

import sys
from itertools import islice
from pathlib import Path

from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    SetLaunchConfiguration,
    Shutdown,
)
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

import dense_perception
from dense_perception.core.errors import DensePerceptionError
from dense_perception.core.registry import find_model
from dense_perception.evaluation.bags import PairSource
from dense_perception.imaging.messages import stamp_ns
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
        "its calibration in the bag; empty if there is none",
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
    "report": ("", "new folder for a report on the live answers; empty writes none", None),
    "rviz": ("false", "true starts RViz on the outputs", ("true", "false")),
}
# What a report compares of the answers.
JUDGED = ("depth/image",)
PASSED_ON = tuple(name for name in ARGUMENTS if name not in ("bag", "rate", "record", "report"))


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
    return LaunchDescription(
        [
            *declared,
            OpaqueFunction(function=_prepare),
            perception,
            OpaqueFunction(function=_processes),
        ]
    )


def _given(context):
    return {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}


def _image(given):
    suffix = "/compressed" if given["image_transport"] == "compressed" else ""
    return given["input_image_topic"] + suffix


def _prepare(context):
    """Everything that can be refused is refused here, before a process is started."""
    given = _given(context)
    model = given["model"] or TASKS[given["task"]][0]
    _check(given, model)
    return [
        SetLaunchConfiguration("model", model),
        RegisterEventHandler(OnProcessExit(on_exit=_end_if_failed)),
    ]


def _processes(context):
    given = _given(context)
    if given["report"]:
        return _live_processes(given)
    image = _image(given)
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
            *("--topics", *filter(None, (image, given["input_camera_info_topic"]))),
            # Until the node has loaded its model and subscribes.
            *("--wait-for-subscribers", "60", "--require-subscribers"),
        ],
        on_exit=[evaluation],
        **common,
    )
    if not given["record"]:
        return [replay]
    recorder = ExecuteProcess(
        name="record",
        cmd=[
            *(sys.executable, "-m", "dense_perception.ros.record", given["record"]),
            *_answer_topics(given),
        ],
        **common,
    )
    return [recorder, replay]


def _live_processes(given):
    """Replay and recorder at the same time, then the report on what was recorded.

    The recorder takes the images, the truth and the answers into one bag, with the images' stamps
    in the answers' headers. It subscribes after the node, so that the replay, which waits for
    subscribers, cannot take it for the node; and it ends by itself when the replay is over.
    """
    verb = [sys.executable, "-m", "dense_perception.cli"]
    common = {"output": "screen", "additional_env": transport_environment()}
    image, answers = _image(given), _answer_topics(given)
    truth = _truth_topics(given)
    played = list(dict.fromkeys(filter(None, (image, given["input_camera_info_topic"], *truth))))
    bag = str(Path(given["report"]) / "live")
    judged = [f"topic:{topic}" for topic in answers if topic.endswith(JUDGED)]
    evaluation = ExecuteProcess(
        name="evaluate",
        cmd=[
            *(*verb, "evaluate", given["model"], *judged, "--data", bag),
            *("--topic", image, "--depth-topic", truth[0], "--out", given["report"]),
        ],
        on_exit=[Shutdown(reason="the live answers are evaluated")],
        **common,
    )
    recorder = ExecuteProcess(
        name="record",
        cmd=[
            *(sys.executable, "-m", "dense_perception.ros.record", "--answers-of", _node(given)),
            *(bag, *played, *answers),
        ],
        on_exit=[evaluation],
        **common,
    )
    replay = ExecuteProcess(
        name="replay",
        cmd=[
            *(*verb, "replay", given["bag"], "--clock", "--rate", given["rate"]),
            *("--topics", *played),
            *("--wait-for-subscribers", "60", "--require-subscribers"),
        ],
        **common,
    )
    return [recorder, replay]


def _node(given):
    name = given["node_name"] or f"{given['task']}_node"
    return "/" + f"{given['namespace'].strip('/')}/{name}".lstrip("/")


def _answer_topics(given):
    return [f"{_node(given)}/{topic}" for topic in TASKS[given["task"]][1]]


def _truth_topics(given):
    """The depth in the bag, and its calibration where there is one."""
    source = PairSource(Path(given["bag"]), topic=_image(given))
    try:
        recorded = {topic.name for topic in source.bag.topics}
        info = source.depth_info_topic
        return [source.depth_topic, *([info] if info in recorded else [])]
    finally:
        source.close()


def _check(given, model):
    try:
        rate = float(given["rate"])
    except ValueError:
        rate = 0.0
    if not 0.001 <= rate <= 1000:
        raise ValueError(f"rate is {given['rate']!r}, expected 0.001 to 1000 (1 is real time)")
    for name in ("record", "report"):
        if given[name] and Path(given[name]).exists():
            raise ValueError(f"{name} is {given[name]!r}, which exists: name a new folder")
    if given["record"] and given["report"]:
        raise ValueError("record and report are both given: a report's folder has the answers, too")
    if given["report"] and given["task"] == "segmentation":
        raise ValueError(
            "report judges depth, which task:=segmentation does not give: "
            "expected task:=depth or task:=multitask"
        )
    try:
        if find_model(model).card.depth is None:
            raise ValueError(f"model {model} gives no depth, expected one that does")
        source = PairSource(Path(given["bag"]), topic=_image(given))
        try:
            if given["report"]:
                _check_stamps(source)
        finally:
            source.close()
    except DensePerceptionError as error:
        raise ValueError(str(error)) from None


def _check_stamps(source):
    """A live answer is known to be that of an image by its stamp alone."""
    images = islice(source.bag.messages([source.topic]), 2)
    stamps = [stamp_ns(source.bag.deserialize(image).header) for image in images]
    if 0 in stamps or len(set(stamps)) < len(stamps):
        raise ValueError(
            f"stamps of {source.topic} are {' and '.join(map(str, stamps))} ns, expected times "
            "that grow: live answers are matched with images by stamp, so report cannot judge "
            "them; have the driver stamp each image, or leave report out"
        )


def _end_if_failed(event, context):
    """An exception is the one thing that lets `ros2 launch` end with another code than 0."""
    if event.returncode != 0 and not context.is_shutdown:
        raise RuntimeError(f"{event.process_name} ended with exit code {event.returncode}")
