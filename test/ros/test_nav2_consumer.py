"""A consumer like Nav2's semantic segmentation layer, on multitask_node as nav2.launch.py has it.

Labels, confidence and cloud with the sensor-data profile, their stamps within 0.1 s, one width and
height; the names of the labels reliable and transient local. DENSE_PERCEPTION_ENDURANCE=full takes
the small MulT for a minute; otherwise it is a model known in closed form for three seconds.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from sensor_msgs.msg import Image, PointCloud2

from dense_perception.ros.convert import image_message
from dense_perception.ros.processes import ChildProcess
from test.support.multitask_artefacts import write_multitask_artefact
from test.support.ros_probe import Collector, Probe, header, random_rgb, wait_until

pytestmark = pytest.mark.ros

ROOT = Path(__file__).parents[2]
FULL = os.environ.get("DENSE_PERCEPTION_ENDURANCE") == "full"
SECONDS, RATE_HZ = (60, 5) if FULL else (3, 10)
TOGETHER_S = 0.1


def stamp_s(message: Image | PointCloud2) -> float:
    return float(message.header.stamp.sec + message.header.stamp.nanosec / 1e9)


def partner(message: Image, others: Collector) -> Image | PointCloud2 | None:
    """The message nearest in time, if it is near enough."""
    gap, nearest = min(
        ((abs(stamp_s(each) - stamp_s(message)), each) for each in others.messages),
        key=lambda pair: pair[0],
        default=(np.inf, None),
    )
    return nearest if gap <= TOGETHER_S else None


def test_the_layer_accepts_the_frames(
    vision_msgs: None, tmp_path: Path, domain: int, ros_environment: dict[str, str]
) -> None:
    from vision_msgs.msg import LabelInfo

    model = tmp_path / "bytes.onnx"
    write_multitask_artefact(model)
    parameters = ["--params-file", str(ROOT / "config" / "nav2" / "perception.yaml")]
    parameters += ["-p", f"model:={'mult_tiny_indoor' if FULL else model}"]
    with (
        ChildProcess(
            "dense_perception.ros.multitask_node",
            ["--ros-args", *parameters],
            log=tmp_path / "log",
            environment=ros_environment,
        ) as node,
        Probe(domain, "/multitask_node") as probe,
    ):
        node.wait_for_text("waiting for images", 60.0)
        masks, confidences, clouds = (
            probe.collect(kind, f"/multitask_node/{name}", reliable=False)
            for name, kind in (
                ("segmentation/labels", Image),
                ("segmentation/confidence", Image),
                ("points", PointCloud2),
            )
        )
        infos = probe.collect(LabelInfo, "/multitask_node/segmentation/label_info", latched=True)
        names = {each.class_id: each.class_name for each in infos.wait()[0].class_map}
        assert names == {0: "void", 1: "drivable", 2: "obstacle"}
        camera = probe.publisher(Image, "/image", reliable=False)
        rgb_hwc = random_rgb(640, 480)
        probe.ask(
            1,
            lambda: camera.publish(image_message(rgb_hwc, header(1), "rgb8")),
            *(masks, confidences, clouds),
        )
        start = time.monotonic()
        for index in range(SECONDS * RATE_HZ):
            time.sleep(max(0.0, start + index / RATE_HZ - time.monotonic()))
            message = image_message(rgb_hwc, header(10), "rgb8")
            message.header.stamp.sec += index // RATE_HZ
            message.header.stamp.nanosec = index % RATE_HZ * (10**9 // RATE_HZ)
            camera.publish(message)
        last = message.header.stamp
        wait_until(lambda: any(each.header.stamp == last for each in clouds.messages), "the end")
        time.sleep(0.5)

        accepted = 0
        for mask in masks.messages:
            confidence, cloud = partner(mask, confidences), partner(mask, clouds)
            sizes = {(each.width, each.height) for each in (mask, confidence, cloud) if each}
            if confidence is None or cloud is None or len(sizes) > 1:
                continue
            assert mask.encoding == confidence.encoding == "mono8"
            assert set(np.unique(mask.data)) <= names.keys()
            accepted += 1
        seen = len(masks.messages)
        print(f"\n{accepted} of {seen} answered frames accepted, {SECONDS * RATE_HZ} sent")
        assert seen > SECONDS * RATE_HZ / 2
        assert accepted >= 0.99 * seen
