"""A camera for benchmarks: publishes pictures at a fixed rate, stamped when they are published."""

from __future__ import annotations

import argparse
import time

import numpy as np


def main(arguments: list[str] | None = None) -> int:
    """``python -m dense_perception.benchmarks.source``; returns 0 after the last picture."""
    parser = argparse.ArgumentParser(description="Publish rgb8 pictures at a fixed rate.")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--rate", type=float, default=30.0, help="pictures per second")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--camera", default="", help="publish below this name")
    parser.add_argument("--subscribers", type=int, default=1, help="wait for this many first")
    args = parser.parse_args(arguments)

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
    node = rclpy.create_node(f"source_{args.camera}".rstrip("_"), start_parameter_services=False)
    sensor_data = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    prefix = f"{args.camera}/" if args.camera else ""
    images = node.create_publisher(Image, f"{prefix}image", sensor_data)
    infos = node.create_publisher(CameraInfo, f"{prefix}camera_info", sensor_data)
    shown = pictures(args.width, args.height)
    intrinsics = Intrinsics.from_fov(args.width, args.height, 60.0)
    count, late = 0, 0
    try:
        while images.get_subscription_count() < args.subscribers:
            time.sleep(0.01)
        print("publishing", flush=True)
        started = time.monotonic()
        for count in range(round(args.rate * args.seconds)):
            wait = started + count / args.rate - time.monotonic()
            late += wait < -1 / args.rate
            time.sleep(max(0.0, wait))
            header = Header(frame_id="camera_optical", stamp=node.get_clock().now().to_msg())
            images.publish(image_message(shown[count % len(shown)], header, "rgb8"))
            infos.publish(camera_info_message(None, intrinsics, header))
    except KeyboardInterrupt:
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    print(f"published {count + 1}, {late} late", flush=True)
    return 0


def pictures(width: int, height: int) -> list[np.ndarray]:
    """Soft gradients that move from picture to picture."""
    v, u = np.mgrid[:height, :width].astype(np.float32)
    ramps = np.stack([u / width, v / height, (u + v) / (width + height)], axis=2)
    return [((ramps + phase) % 1 * 255).astype(np.uint8) for phase in np.arange(8) / 8]


if __name__ == "__main__":
    raise SystemExit(main())
