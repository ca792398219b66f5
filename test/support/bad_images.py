"""Images no camera should send, and what a node has to say about each."""

from __future__ import annotations

from collections.abc import Callable

from sensor_msgs.msg import Image

from dense_perception.ros.convert import image_message
from test.support.ros_probe import header, random_rgb


def broken(change: Callable[[Image], None], seconds: int) -> Image:
    """An image of 64x48 pixels with that stamp, after ``change``."""
    message = image_message(random_rgb(), header(seconds), "rgb8")
    change(message)
    return message


def set_fields(**fields: object) -> Callable[[Image], None]:
    def change(message: Image) -> None:
        for name, value in fields.items():
            setattr(message, name, value)

    return change


# Name: the change, and what the node has to say about it.
BAD_IMAGES = {
    "step too short": (set_fields(step=100), "step is 100 bytes, expected at least 192"),
    "short data": (lambda message: message.data.pop(), "data has 9215 bytes, expected 9216"),
    "no data": (lambda message: message.data.__delitem__(slice(None)), "data has 0 bytes"),
    "zero width": (set_fields(width=0), "the image is 0x48 pixels"),
    "zero height": (set_fields(height=0), "the image is 64x0 pixels"),
    "unknown encoding": (set_fields(encoding="rgb9"), "unknown image encoding 'rgb9'"),
    "depth instead": (set_fields(encoding="32FC1", step=256), "which is depth"),
    "huge claim": (set_fields(width=2**31, height=2**31, step=2**32 - 1), "at most 96 million"),
    "odd yuv": (set_fields(encoding="yuv422", width=63), "expected an even number"),
}
