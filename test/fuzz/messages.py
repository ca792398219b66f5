"""Mutated camera messages through everything a node does between subscription and publisher.

The cameras are the node's own, on a recorded graph: images raw and compressed, camera_info, and
what the scale is taken from. No process and no DDS, so that a hundred thousand take minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan, PointCloud2, PointField
from std_msgs.msg import Header

from dense_perception.core.camera import Intrinsics
from dense_perception.imaging.encodings import DEPTH_ENCODINGS, IMAGE_ENCODINGS
from dense_perception.ros.batch import Received, answer_batch
from dense_perception.ros.camera import Camera
from dense_perception.ros.convert import CloudWriter, camera_info_message
from dense_perception.ros.outputs import DepthOutputs, PointOutputs
from dense_perception.ros.params import DepthParameters
from dense_perception.runtime.perceiver import Perceiver
from test.fuzz.mutations import ODD_TEXTS, pick
from test.fuzz.pictures import broken, depth_png, valid
from test.support.artefacts import write_red_artefact
from test.support.recorded_graph import RecordedGraph, recorded_log

GROUPS = (DepthOutputs, PointOutputs)
TOPICS = ("~/depth/image", "~/depth/camera_info", "~/points")
WIDTH, HEIGHT = 32, 24
SIDES = (0, 1, 2, 23, 25, 31, 33, 4096, 65536, 2**31 - 1, 2**32 - 1)
FLOATS = (0.0, -0.0, -1.0, 1e-300, 1e300, float("nan"), float("inf"), float("-inf"))
ENCODINGS = (*IMAGE_ENCODINGS, *DEPTH_ENCODINGS, "", "junk", "rgb8 ", "RGB8", "bayer_rggb32", "\0")
FORMATS = (
    "jpeg", "png", "rgb8; jpeg compressed bgr8", "bayer_rggb8; jpeg compressed ", "mono16; png",
    "16UC1; compressedDepth png", "h264", "bayer_", "bayer_junk; png", *ODD_TEXTS,
)  # fmt: skip
BYTES_PER_PIXEL = {"16": 2, "FC": 4}
SOURCES = ("none", "depth", "points", "scan")
_NOW_NS = 200 * 10**9


def header(rng: np.random.Generator) -> Header:
    seconds = int(pick(rng, (0, 1, 199, 200, 2**31 - 1, -(2**31))))
    stamp = Time(sec=seconds, nanosec=int(pick(rng, (0, 999_999_999, 2**32 - 1))))
    return Header(stamp=stamp, frame_id=pick(rng, ("camera", "other", *ODD_TEXTS)))


def image(rng: np.random.Generator, encodings: tuple[str, ...] = ENCODINGS) -> Image:
    """A valid image with up to three fields that lie."""
    encoding = pick(rng, encodings)
    pixel = 8 if "a16" in encoding else 6 if "b16" in encoding or "r16" in encoding else 4
    message = Image(header=header(rng), height=HEIGHT, width=WIDTH, encoding=encoding)
    message.step = pixel * WIDTH
    message.data = rng.bytes(message.step * HEIGHT * 3 // 2)
    for _ in range(int(rng.integers(4))):
        how = int(rng.integers(6))
        if how == 0:
            message.width = pick(rng, SIDES)
        elif how == 1:
            message.height = pick(rng, SIDES)
        elif how == 2:
            message.step = pick(rng, (*SIDES, WIDTH, 3 * WIDTH - 1))
        elif how == 3:
            message.is_bigendian = pick(rng, (1, 255))
        elif how == 4:
            message.data = message.data[: int(rng.integers(len(message.data) + 1))]
        else:
            message.encoding = pick(rng, encodings)
    return message


def compressed(rng: np.random.Generator) -> CompressedImage:
    suffix = pick(rng, (".jpg", ".png", ".bmp", ".webp"))
    data = depth_png(rng) if rng.random() < 0.1 else valid(suffix, rng)
    if rng.random() < 0.85:
        data = broken(data, rng)
    form = suffix[1:] if rng.random() < 0.5 else pick(rng, FORMATS)
    return CompressedImage(header=header(rng), format=form, data=data)


def camera_info(rng: np.random.Generator) -> CameraInfo:
    message = camera_info_message(None, Intrinsics.from_fov(WIDTH, HEIGHT, 70.0), header(rng))
    for _ in range(int(rng.integers(4))):
        how = int(rng.integers(8))
        if how == 0:
            message.k[int(rng.integers(9))] = pick(rng, FLOATS)
        elif how == 1:
            message.p[int(rng.integers(12))] = pick(rng, FLOATS)
        elif how == 2:
            message.r[int(rng.integers(9))] = pick(rng, FLOATS)
        elif how == 3:
            message.d = [pick(rng, (*FLOATS, 0.1, -0.3)) for _ in range(int(rng.integers(20)))]
        elif how == 4:
            message.distortion_model = pick(
                rng, ("plumb_bob", "equidistant", "rational_polynomial", *ODD_TEXTS)
            )
        elif how == 5:
            message.width = pick(rng, SIDES)
        elif how == 6:
            message.binning_x = message.binning_y = pick(rng, SIDES)
        else:
            message.roi.width, message.roi.x_offset = pick(rng, SIDES), pick(rng, SIDES)
    return message


def cloud(rng: np.random.Generator) -> PointCloud2:
    depth = rng.uniform(0.5, 5.0, (HEIGHT, WIDTH)).astype(np.float32)
    camera = Intrinsics.from_fov(WIDTH, HEIGHT, 70.0)
    message = CloudWriter().cloud(depth, camera, header(rng))
    for _ in range(int(rng.integers(4))):
        how = int(rng.integers(7))
        if how == 0:
            message.point_step = pick(rng, SIDES)
        elif how == 1:
            message.row_step = pick(rng, SIDES)
        elif how == 2:
            message.width = pick(rng, SIDES)
        elif how == 3:
            message.height = pick(rng, SIDES)
        elif how == 4:
            message.data = message.data[: int(rng.integers(len(message.data) + 1))]
        elif how == 5:
            message.is_bigendian = not message.is_bigendian
        else:
            names = ["x", "y", "z", "", "x"][: int(rng.integers(6))]
            message.fields = [
                PointField(
                    name=name,
                    offset=int(pick(rng, (0, 4, 7, 8, 2**32 - 1))),
                    datatype=int(pick(rng, (0, 1, 7, 8, 255))),
                    count=int(pick(rng, (0, 1, 2**32 - 1))),
                )
                for name in names
            ]
    return message


def scan(rng: np.random.Generator) -> LaserScan:
    message = LaserScan(
        header=header(rng), angle_min=-1.0, angle_max=1.0, angle_increment=0.01, range_max=30.0
    )
    message.ranges = [float(each) for each in rng.uniform(0, 30, 200).astype(np.float32)]
    for _ in range(int(rng.integers(4))):
        name = pick(rng, ("angle_min", "angle_increment", "range_min", "range_max"))
        setattr(message, name, pick(rng, (0.0, -1.0, 3e38, float("nan"), float("inf"))))
        if rng.random() < 0.3:
            message.ranges = [pick(rng, (0.0, float("nan"), float("inf")))] * int(rng.integers(9))
    return message


MEASUREMENTS: dict[str, Callable[[np.random.Generator], Any]] = {
    "depth": lambda rng: image(rng, (*DEPTH_ENCODINGS, "rgb8", "junk")),
    "points": cloud,
    "scan": scan,
}


class Messages:
    """A camera for each transport and source of scale; parameters vary from frame to frame."""

    def __init__(self, folder: Path) -> None:
        cv2.setNumThreads(1)
        write_red_artefact(folder / "red.onnx")
        self._perceiver = Perceiver.load(folder / "red.onnx", backend="onnxruntime", threads=1)
        self._cameras = {
            (transport, source): self._camera(transport, source)
            for transport in ("raw", "compressed")
            for source in SOURCES
        }

    def make(self, rng: np.random.Generator) -> Callable[[], str]:
        transport, source = pick(rng, ("raw", "compressed")), pick(rng, SOURCES)
        camera, graph, settings = self._cameras[transport, source]
        sent: list[tuple[str, Any]] = []
        if rng.random() < 0.4:
            sent.append(("camera_info", camera_info(rng)))
        if source != "none":
            sent.append((f"scale/{source}", MEASUREMENTS[source](rng)))
        message = image(rng) if transport == "raw" else compressed(rng)
        settings = replace(
            settings,
            temporal_smoothing=float(pick(rng, (0.0, 0.7))),
            camera_matrix=pick(rng, ("auto", "K", "P")),
            depth_encoding=pick(rng, ("32FC1", "16UC1")),
            max_output_side=int(pick(rng, (16, 1280))),
        )

        def feed() -> str:
            for topic, other in sent:
                graph.put(topic, other)
            return self._answer(camera, graph, message, settings)

        return feed

    def _answer(
        self,
        camera: Camera[DepthParameters],
        graph: RecordedGraph,
        message: Any,
        settings: DepthParameters,
    ) -> str:
        # As the worker does: a frame that fails is counted, never raised.
        received = Received(message, time.perf_counter())
        answer_batch(self._perceiver, [(camera, received)], settings, lambda: _NOW_NS)
        error = camera.frame_log.last_error
        camera.frame_log.last_error = ""
        answers = graph.sent(TOPICS[0])
        for topic in TOPICS:
            for answer in graph.sent(topic):
                assert answer.header == message.header, f"{topic} has another header"
            graph.open[topic].messages.clear()
        if error:
            name = error.split(":")[0]
            assert " " in name or not name.endswith(("Error", "error", "Exception")), error
            return "refused"
        return "answered" if answers else "no scale"

    def _camera(
        self, transport: str, source: str
    ) -> tuple[Camera[DepthParameters], RecordedGraph, DepthParameters]:
        settings = DepthParameters(image_transport=transport, scale_source=source)
        graph = RecordedGraph()
        log, _ = recorded_log()
        camera: Camera[DepthParameters] = Camera("", graph, log)
        card = self._perceiver.card
        specs = [spec for group in GROUPS for spec in group.specs(card, settings)]
        camera.offer(GROUPS, specs, card, settings)
        camera.listen(settings, lambda name, message: None)
        graph.listen(*TOPICS)
        return camera, graph, settings


def target(folder: Path) -> Messages:
    return Messages(folder)
