"""Nodes on moving things: do all messages of a frame agree, and what does a frame cost?

``python -m test.support.instances_live`` starts ``instance_node`` and then ``multitask_node`` on a
hand-made model whose things are the colours of the picture, sends pictures at a rate, subscribes to
everything, and compares headers, sizes and ids of what comes, frame by frame. Things that are
hidden for five frames must keep their identities. The processor time of the node's threads is
divided by the frames. It prints JSON lines and exits with 1 if something disagrees. vision_msgs is
built if it is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from sensor_msgs.msg import Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from dense_perception.ros.convert import image_message
from dense_perception.ros.processes import ChildProcess, cpu_s
from dense_perception.ros.transport import local_environment, reserved_domain, transport_environment
from test.support.instance_artefacts import colour_card, write_colour_artefact
from test.support.ros_interfaces import importable
from test.support.ros_probe import Probe, header

OF_MULTITASK = {
    "depth/image": Image,
    "points": PointCloud2,
    "segmentation/labels": Image,
    "segmentation/confidence": Image,
    "segmentation/overlay": Image,
}
SETTLE_S = 3.0


def scene(frame: int, width: int, height: int) -> np.ndarray:
    """A red, a green and a blue thing to and fro; the red one is hidden for 5 of 70 frames."""
    rgb_hwc = np.full((height, width, 3), 60, np.uint8)
    wide, high = width // 8, height // 4
    for channel, speed in enumerate((4, 3, 2)):
        if channel == 0 and frame % 70 in range(30, 35):  # not where it turns
            continue
        way = (width // 4 * channel + speed * frame) % (2 * (width - wide))
        left = min(way, 2 * (width - wide) - way)
        top = height // 12 + channel * height // 3
        rgb_hwc[top : top + high, left : left + wide] = 0
        rgb_hwc[top : top + high, left : left + wide, channel] = 250 - 20 * channel
    return rgb_hwc


def stamp_of(message: Any) -> tuple[int, int]:
    each = message.markers[0].header if isinstance(message, MarkerArray) else message.header
    return each.stamp.sec, each.stamp.nanosec


def problems(name: str, found: dict[str, Any], width: int, height: int) -> list[str]:
    """What disagrees among the messages of one frame."""
    wrong = []
    for topic, message in found.items():
        each = message.markers[0].header if isinstance(message, MarkerArray) else message.header
        if each.frame_id != "camera_optical":
            wrong.append(f"{name} {topic}: frame {each.frame_id}")
        size = getattr(message, "width", width), getattr(message, "height", height)
        if size != (width, height):
            wrong.append(f"{name} {topic}: size {size}")
    if "instances/ids" not in found:
        return wrong
    ids_hw = np.frombuffer(found["instances/ids"].data, "<u2").reshape(height, width)
    coded_hw = np.frombuffer(found["instances/panoptic"].data, "<i4").reshape(height, width)
    detections = found["instances/detections"].detections
    listed = {int(each.id) for each in detections}
    in_space = {int(each.id) for each in found["instances/detections_3d"].detections}
    drawn = {each.id for each in found["instances/markers"].markers if each.ns == "boxes"}
    pixels = {int(number) for number in np.unique(ids_hw)} - {0}
    if not listed == in_space == drawn == pixels:
        wrong.append(f"{name}: ids {listed}, in space {in_space}, drawn {drawn}, pixels {pixels}")
    if not np.array_equal(coded_hw & 0xFFFF, ids_hw):
        wrong.append(f"{name}: the panoptic image has other ids")
    for each in detections:
        rows, columns = np.nonzero(ids_hw == int(each.id))
        middle, size = each.bbox.center.position, (each.bbox.size_x, each.bbox.size_y)
        box = (middle.x - size[0] / 2, middle.y - size[1] / 2)
        if not (len(rows) and box == (columns.min(), rows.min())):
            wrong.append(f"{name}: the box of {each.id} is not that of its pixels")
    return wrong


def measure(
    node: str, topics: dict[str, Any], model: Path, options: argparse.Namespace, track: bool
) -> dict[str, Any]:
    size = (options.width, options.height)
    with ExitStack() as stack:
        domain = stack.enter_context(reserved_domain())
        environment = {**local_environment(domain), **transport_environment()}
        os.environ.update(environment)
        arguments = ["--ros-args", "-p", "backend:=onnxruntime", "-p", "threads:=1"]
        arguments += ["-p", f"model:={model}", "-p", f"tracking:={str(track).lower()}"]
        process = ChildProcess(
            f"dense_perception.ros.{node}",
            arguments,
            log=model.parent / f"{node}.log",
            environment=environment,
        )
        stack.enter_context(process)
        process.wait_for_text("waiting for images", failure="cannot configure", timeout_s=90)
        probe = stack.enter_context(Probe(domain, f"/{node}"))
        frames: dict[tuple[int, int], dict[str, Any]] = {}

        def keep(topic: str) -> Callable[[Any], None]:
            return lambda message: frames.setdefault(stamp_of(message), {}).update({topic: message})

        for topic, kind in topics.items():
            probe.node.create_subscription(kind, f"/{node}/{topic}", keep(topic), 10)
        wrong: list[str] = []
        identities: dict[str, set[int]] = {}
        sent = complete = 0
        images = probe.publisher(Image, "/image")
        time.sleep(SETTLE_S)
        used_s, begun_s = cpu_s(process.pid), time.monotonic()
        while time.monotonic() - begun_s < options.seconds:
            message = image_message(scene(sent, *size), header(1000 + sent // 10), "rgb8")
            message.header.stamp.nanosec = sent % 10 * 100_000_000
            images.publish(message)
            sent += 1
            time.sleep(max(0.0, begun_s + sent / options.rate - time.monotonic()))
            for key in [k for k, each in list(frames.items()) if len(each) == len(topics)]:
                found = frames.pop(key)
                complete += 1
                wrong += problems(f"{node} {key}", found, *size)
                for each in getattr(found.get("instances/detections"), "detections", ()):
                    name = each.results[0].hypothesis.class_id
                    identities.setdefault(name, set()).add(int(each.id))
        used_s = cpu_s(process.pid) - used_s
        return {
            "node": node,
            "topics": len(topics),
            "tracking": track,
            "sent": sent,
            "complete": complete,
            "incomplete": len(frames),
            "cpu_ms": round(1e3 * used_s / max(1, complete + len(frames)), 1),
            "wrong": wrong[:5],
            "identities": {name: sorted(each) for name, each in identities.items()},
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=10.0)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--no-tracking", action="store_true")
    options = parser.parse_args()
    with importable("vision_msgs"), tempfile.TemporaryDirectory() as folder:
        from vision_msgs.msg import Detection2DArray, Detection3DArray

        things = {
            "instances/detections": Detection2DArray,
            "instances/detections_3d": Detection3DArray,
            "instances/ids": Image,
            "instances/panoptic": Image,
            "instances/overlay": Image,
            "instances/markers": MarkerArray,
        }
        model = Path(folder) / "colour.onnx"
        card = colour_card(height=options.height, width=options.width, panoptic=True, depth=True)
        write_colour_artefact(model, card)
        track = not options.no_tracking
        found = []
        for node, topics, follows in (
            ("instance_node", things, track),
            ("multitask_node", OF_MULTITASK, False),
            ("multitask_node", {**OF_MULTITASK, **things}, track),
        ):
            found.append(measure(node, topics, model, options, follows))
            print(json.dumps(found[-1]), flush=True)
    swapped = any(len(ids) > 1 for each in found for ids in each["identities"].values())
    return int(any(each["wrong"] or not each["complete"] for each in found) or (track and swapped))


if __name__ == "__main__":
    sys.exit(main())
