"""Which files of the package one plain frame enters, from the image callback to the last output.

``python -m test.support.corridor`` runs the real depth_node in this process, with every output
subscribed to and a calibrated camera, and watches the calls of one frame in both of its threads.
It prints JSON: the files with their lines, and the functions.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any
from unittest import mock

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

import dense_perception
from dense_perception.core.camera import Intrinsics
from dense_perception.ros import depth_node, node_process
from dense_perception.ros.convert import camera_info_message, image_message
from test.support.artefacts import write_red_artefact

PACKAGE = Path(dense_perception.__file__).parent
OUTPUTS = {"depth/image": Image, "depth/camera_info": CameraInfo}
OUTPUTS |= {"depth/color": Image, "points": PointCloud2}
TIMEOUT_S = 20.0


class Calls:
    """The package's functions that were entered while ``is_on``, in threads begun since."""

    def __init__(self) -> None:
        self.is_on = False
        self.functions: set[CodeType] = set()
        threading.setprofile(self)

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        if self.is_on and event == "call":
            code = frame.f_code
            if code.co_filename.startswith(f"{PACKAGE}{os.sep}"):
                self.functions.add(code)

    def report(self) -> dict[str, Any]:
        files = sorted({Path(code.co_filename) for code in self.functions})
        return {
            "files": {
                str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in files
            },
            "functions": sorted(
                f"{Path(code.co_filename).relative_to(PACKAGE)}:{code.co_name}"
                for code in self.functions
                if not code.co_name.startswith("<")
            ),
        }


def make_node() -> Any:
    """What depth_node's main makes, not yet configured."""
    made: list[Callable[[], Any]] = []
    with mock.patch.object(
        node_process, "run_node", lambda _name, _kind, create, _arguments: made.append(create) or 0
    ):
        depth_node.main([])
    return made[0]()


class Peer:
    """The camera and the subscribers, in the same process."""

    def __init__(self, node: Any) -> None:
        self.node = rclpy.create_node("peer")
        self.came: list[str] = []
        for name, kind in OUTPUTS.items():
            self.node.create_subscription(
                kind, f"/depth_node/{name}", lambda _, name=name: self.came.append(name), 5
            )
        self.images = self.node.create_publisher(Image, "/image", 2)
        self.infos = self.node.create_publisher(CameraInfo, "/camera_info", 2)
        self.executors = SingleThreadedExecutor(), SingleThreadedExecutor()
        for executor, each in zip(self.executors, (node, self.node), strict=True):
            executor.add_node(each)

    def spin_until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + TIMEOUT_S
        while not condition():
            if time.monotonic() > end:
                raise SystemExit(f"nothing more came within {TIMEOUT_S:g} s: {self.came}")
            for executor in self.executors:
                executor.spin_once(timeout_sec=0.01)

    def ask(self, stamp_s: int) -> None:
        """Send a frame and wait for all of its outputs."""
        self.came.clear()
        header = Header(frame_id="camera")
        header.stamp.sec = stamp_s
        rgb_hwc = np.full((48, 64, 3), 100, np.uint8)
        self.images.publish(image_message(rgb_hwc, header, "rgb8"))
        self.spin_until(lambda: set(self.came) == set(OUTPUTS))


def main() -> int:
    calls = Calls()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "red.onnx"
        write_red_artefact(model)
        parameters = [f"model:={model}", "backend:=onnxruntime", "diagnostics_period_s:=60.0"]
        rclpy.init(args=["--ros-args", *(word for each in parameters for word in ("-p", each))])
        node = make_node()
        node.trigger_configure()
        node.trigger_activate()
        peer = Peer(node)
        ready = (peer.images, peer.infos)
        peer.spin_until(lambda: all(each.get_subscription_count() for each in ready))
        camera = camera_info_message(None, Intrinsics.from_fov(64, 48, 60.0), Header())
        peer.infos.publish(camera)
        peer.ask(1)  # and what is only done once is done
        peer.ask(2)
        sys.setprofile(calls)
        calls.is_on = True
        peer.ask(3)
        time.sleep(0.2)  # the worker books the frame after it has sent it
        calls.is_on = False
        sys.setprofile(None)
        report = calls.report()
        node.close()
    print(json.dumps(report, indent=1), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
