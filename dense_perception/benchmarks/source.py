"""A camera for benchmarks: publishes images at a fixed rate, stamped when they are published.

``python -m dense_perception.benchmarks.source OPTIONS``: :class:`SourceOptions` as a line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SourceOptions:
    """Size in pixels, images per second, seconds; ``camera`` is the name to publish below."""

    width: int = 640
    height: int = 480
    rate: float = 30.0
    seconds: float = 60.0
    camera: str = ""


def publish(options: SourceOptions) -> None:
    """Publish from the first subscriber on, until the time is up or Ctrl-C."""
    import rclpy
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from rclpy.signals import SignalHandlerOptions
    from sensor_msgs.msg import CameraInfo, Image
    from std_msgs.msg import Header

    from dense_perception.core.camera import Intrinsics
    from dense_perception.core.machine import keep_freed_memory
    from dense_perception.ros.convert import camera_info_message, image_message
    from dense_perception.ros.processes import interrupt_on_signals

    keep_freed_memory()
    interrupt_on_signals()
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(f"source_{options.camera}".rstrip("_"), start_parameter_services=False)
    sensor_data = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    prefix = f"{options.camera}/" if options.camera else ""
    publisher = node.create_publisher(Image, f"{prefix}image", sensor_data)
    infos = node.create_publisher(CameraInfo, f"{prefix}camera_info", sensor_data)
    shown = images(options.width, options.height)
    intrinsics = Intrinsics.from_fov(options.width, options.height, 60.0)
    count, late = 0, 0
    try:
        while not publisher.get_subscription_count():
            time.sleep(0.01)
        print("publishing", flush=True)
        started = time.monotonic()
        for count in range(round(options.rate * options.seconds)):
            wait = started + count / options.rate - time.monotonic()
            late += wait < -1 / options.rate
            time.sleep(max(0.0, wait))
            header = Header(frame_id="camera_optical", stamp=node.get_clock().now().to_msg())
            publisher.publish(image_message(shown[count % len(shown)], header, "rgb8"))
            infos.publish(camera_info_message(None, intrinsics, header))
    except KeyboardInterrupt:
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    print(f"published {count + 1}, {late} late", flush=True)


def images(width: int, height: int) -> list[np.ndarray]:
    """Eight (height, width, 3) uint8 images of soft gradients that move from one to the next."""
    v, u = np.mgrid[:height, :width].astype(np.float32)
    ramps = np.stack([u / width, v / height, (u + v) / (width + height)], axis=2)
    return [((ramps + phase) % 1 * 255).astype(np.uint8) for phase in np.arange(8) / 8]


if __name__ == "__main__":
    publish(SourceOptions(**json.loads(sys.argv[1])))
