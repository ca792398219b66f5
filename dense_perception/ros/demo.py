"""The demo: a bag through depth_node in real ROS 2 processes, answers as pictures.

Three processes: the player publishes the bag, depth_node answers, this one records. They meet in a
ROS domain of their own and are ended whatever happens.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dense_perception.core.errors import BackendError
from dense_perception.core.storage import atomic_write, prepare_output_folder
from dense_perception.ros.processes import ChildProcess, interrupt_on_signals, resident_mb
from dense_perception.ros.transport import local_environment, reserved_domain, transport_environment

EMBEDDED_BAG = Path(__file__).resolve().parents[1] / "demo"
NODE = "/depth_node"
_OUTPUTS = ("depth/image", "depth/camera_info", "depth/color", "points")
_START_S, _LAST_ANSWER_S = 60.0, 10.0


@dataclass(frozen=True)
class DemoOptions:
    """``output``: an empty or new folder; ``rate``: speed of the player, 1 is the recording's;
    ``topic``: of the images, where the bag has several.
    """

    output: Path
    overwrite: bool = False
    bag: Path = EMBEDDED_BAG
    model: str = "dpt_tiny_indoor"
    rate: float = 0.5
    topic: str | None = None


@dataclass(frozen=True)
class DemoReport:
    """Milliseconds from the arrival of a picture at the recorder to that of its depth."""

    frames_in: int
    answered: int
    latency_median_ms: float
    latency_p95_ms: float
    model: str
    backend: str
    node_memory_mb: float
    pictures: str
    bag: str
    problems: tuple[str, ...] = ()


def run_demo(options: DemoOptions) -> DemoReport:
    """Play, answer, record, draw.

    :raises InputError: if the bag cannot be used or the output folder is not empty.
    :raises BackendError: if a process does not come up; the message ends with its log.
    """
    # The ROS 2 wheels restart the interpreter at this import: there must be no child by then.
    import rclpy  # noqa: F401

    image_topic, info_topic, compressed, count = _input_topics(options.bag, options.topic)
    output: Path = options.output
    prepare_output_folder(output, overwrite=options.overwrite)
    for name in ("pictures", "bag", "logs"):
        shutil.rmtree(output / name, ignore_errors=True)
    (output / "logs").mkdir()
    topics = [image_topic, *([info_topic] if info_topic else [])]
    interrupt_on_signals()
    with reserved_domain() as domain:
        environment = {**local_environment(domain), **transport_environment()}
        os.environ.update(environment)
        remaps = {"camera_info": info_topic or "camera_info"}
        if compressed:
            remaps["image/compressed"] = image_topic
        else:
            remaps["image"] = image_topic
        arguments = ["--ros-args", "-p", f"model:={options.model}"]
        arguments += ["-p", f"image_transport:={'compressed' if compressed else 'raw'}"]
        for source, target in remaps.items():
            arguments += ["-r", f"{source}:={target}"]
        with ChildProcess(
            "dense_perception.ros.depth_node",
            arguments,
            log=output / "logs" / "depth_node.log",
            environment=environment,
        ) as node:
            print(f"starting depth_node, its log is {node.log_path}", file=sys.stderr)
            node.wait_for_text("waiting for images", _START_S, failure="cannot configure")
            with tqdm(total=count, unit="frame", desc="answered", disable=None) as bar:
                played, memory_mb, problems = _play_and_record(
                    options, topics, output, environment, node, bar
                )
    return _report(options, output, image_topic, played, memory_mb, problems)


def _input_topics(path: Path, wanted: str | None) -> tuple[str, str, bool, int | None]:
    """The image topic, its camera_info (perhaps empty), is it compressed, how many pictures."""
    from dense_perception.imaging.messages import camera_info_topic
    from dense_perception.media.bag_images import choose_topic
    from dense_perception.media.bag_reader import BagReader

    with BagReader(path) as bag:
        image = choose_topic(bag, wanted, "picture", "--topic")
        topics = {topic.name: topic for topic in bag.topics}
    info = camera_info_topic(image)
    compressed = topics[image].msgtype.endswith("/CompressedImage")
    return image, info if info in topics else "", compressed, topics[image].count


def _play_and_record(
    options: DemoOptions,
    topics: list[str],
    output: Path,
    environment: dict[str, str],
    node: ChildProcess,
    bar: Any,
) -> tuple[dict[str, Any], float, list[str]]:
    """The player's report, the node's memory at the end, and what went wrong."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from dense_perception.core.machine import keep_freed_memory
    from dense_perception.ros.record import Recorder

    keep_freed_memory()
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    listener = rclpy.create_node("demo_recorder", start_parameter_services=False)
    answers = [f"{NODE}/{name}" for name in _OUTPUTS]
    recorder = Recorder(listener, output / "bag", [*topics, *answers, "/diagnostics"])

    executor = SingleThreadedExecutor()
    executor.add_node(listener)

    def spin_until(condition: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            executor.spin_once(timeout_sec=0.05)
            bar.update(recorder.counts[answers[0]] - bar.n)
        return True

    player_arguments = ["replay", str(options.bag), "--json", f"--rate={options.rate}"]
    player_arguments += ["--wait-for-subscribers=30", "--subscribers=2", "--delay=1"]
    player_arguments += ["--topics", *topics]
    try:
        with ChildProcess(
            "dense_perception.cli",
            player_arguments,
            log=output / "logs" / "replay.log",
            environment=environment,
        ) as player:
            spin_until(lambda: player.returncode is not None, float("inf"))
            if player.returncode not in (0, 1):
                raise BackendError(f"the bag could not be played:\n{player.log()[-2000:]}")
            played, problems = _player_report(player)
        sent = played["published"][topics[0]]
        spin_until(lambda: all(recorder.counts[topic] >= sent for topic in answers), _LAST_ANSWER_S)
        spin_until(lambda: False, 1.1)  # one more message on /diagnostics
        return played, resident_mb(node.pid), [*problems, *recorder.losses]
    finally:
        executor.shutdown()
        recorder.close()
        listener.destroy_node()
        rclpy.try_shutdown()


def _player_report(player: ChildProcess) -> tuple[dict[str, Any], list[str]]:
    text = player.log()
    start, end = text.find("{"), text.rfind("}")
    if start < 0:
        raise BackendError(f"the player said nothing of use:\n{text[-2000:]}")
    played: dict[str, Any] = json.loads(text[start : end + 1])
    return played, list(played["problems"])


def _report(
    options: DemoOptions,
    output: Path,
    image_topic: str,
    played: dict[str, Any],
    memory_mb: float,
    problems: list[str],
) -> DemoReport:
    from dense_perception.imaging.messages import message_depth_m, message_rgb, stamp_ns
    from dense_perception.media.bag_reader import BagReader

    came: dict[int, int] = {}
    answered: dict[int, int] = {}
    waiting: dict[int, dict[str, np.ndarray]] = {}
    diagnostics: dict[str, str] = {}
    drawing = Pictures(output / "pictures")
    with BagReader(output / "bag") as bag:
        for message in bag.messages():
            value = bag.deserialize(message)
            if message.topic == image_topic:
                stamp = stamp_ns(value.header)
                came[stamp] = message.time_ns
                parts = waiting.setdefault(stamp, {})
                parts["rgb_hwc"] = message_rgb(value)
            elif message.topic == f"{NODE}/depth/image":
                stamp = stamp_ns(value.header)
                answered[stamp] = message.time_ns
                parts = waiting.setdefault(stamp, {})
                parts["depth_m"] = message_depth_m(value)
            else:
                parts = {}
            if len(parts) == 2:  # the answer may be recorded just before its picture
                drawing.draw(**waiting.pop(stamp))
            if message.topic == "/diagnostics":
                diagnostics = {each.key: each.value for each in value.status[0].values}
    both = [stamp for stamp in answered if stamp in came]
    times = [(answered[stamp] - came[stamp]) / 1e6 for stamp in both] or [float("nan")]
    return DemoReport(
        frames_in=int(played["published"][image_topic]),
        answered=len(both),
        latency_median_ms=float(np.median(times)),
        latency_p95_ms=float(np.percentile(times, 95)),
        model=diagnostics.get("model", str(options.model)),
        backend=diagnostics.get("backend chosen because", ""),
        node_memory_mb=memory_mb,
        pictures=str(output / "pictures"),
        bag=str(output / "bag"),
        problems=tuple(problems),
    )


class Pictures:
    """Writes numbered side-by-side pictures with steady colours."""

    def __init__(self, folder: Path) -> None:
        from dense_perception.imaging.colorize import DepthColorizer

        folder.mkdir()
        self._folder = folder
        self._colorize = DepthColorizer()
        self._count = 0

    def draw(self, rgb_hwc: np.ndarray, depth_m: np.ndarray) -> None:
        """The next picture, from uint8 RGB (H, W, 3) and float32 metres (H, W).

        :raises InputError: if it cannot be written.
        """
        from dense_perception.imaging.colorize import side_by_side
        from dense_perception.imaging.encode import encode_jpeg

        color_hwc = self._colorize(depth_m)
        near_m, far_m = self._colorize.limits_m or (0.5, 5.0)
        picture = side_by_side(rgb_hwc, color_hwc, near_m, far_m)
        with atomic_write(self._folder / f"{self._count:04d}.jpg") as stream:
            stream.write(encode_jpeg(picture, quality=95))
        self._count += 1
