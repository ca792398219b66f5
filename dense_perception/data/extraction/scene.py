"""From matched messages to a frame with its truth: decoded, undistorted, registered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import cv2
import numpy as np

from dense_perception.core.camera import Intrinsics, intrinsics_from_info
from dense_perception.core.errors import InputError
from dense_perception.data.doubts import view_doubt
from dense_perception.data.extraction.matching import Match, StampedMessage
from dense_perception.data.extraction.registration import (
    Registration,
    Undistortion,
    project_points,
    shrunk_depth,
)
from dense_perception.data.extraction.topics import Topics, label_values
from dense_perception.data.sample import Sample
from dense_perception.imaging.encodings import check_pixels
from dense_perception.imaging.messages import (
    ImageMessage,
    ImageReader,
    is_compressed,
    is_rectified,
    message_depth_m,
)
from dense_perception.imaging.picture_headers import read_header
from dense_perception.imaging.point_messages import cloud_points, scan_points
from dense_perception.imaging.transforms import Transform, TransformBuffer

# A depth camera within these of the colour camera is the same one: drivers align depth so.
_SAME_FOCAL = 0.01
_SAME_PIXELS = 2.0
_JPEG_START = b"\xff\xd8\xff"
_LABEL_ENCODINGS = {"mono8": "u1", "8UC1": "u1", "mono16": "u2", "16UC1": "u2"}


class RawImage(ImageMessage, Protocol):
    """``sensor_msgs/Image``."""

    encoding: str
    width: int
    height: int
    step: int
    is_bigendian: int


@dataclass(frozen=True)
class Motions:
    """Where things are at an image's time; looked up while the messages come.

    ``depth`` and ``points`` (by topic) take points to the colour camera's frame; ``camera_7`` is
    its pose in the world. None or left out where it is not known.
    """

    depth: Transform | None = None
    points: Mapping[str, Transform] = field(default_factory=dict)
    camera_7: np.ndarray | None = None


def _nearest(values_hw: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(values_hw, size, interpolation=cv2.INTER_NEAREST)


class Cameras:
    """The cameras of one recording, and what is made of them once: maps and rays.

    :param size: width and height of the frames; None keeps the images'.
    :param hfov_deg: horizontal field of view where the recording has no calibration; None refuses
        such a recording.
    :param reader: reads the colour images.
    """

    def __init__(
        self,
        topics: Topics,
        size: tuple[int, int] | None,
        hfov_deg: float | None,
        reader: ImageReader,
    ) -> None:
        self.topics = topics
        self.reader = reader
        self.doubt = ""  # about depth that claims to be aligned, once some was seen
        self._size, self._hfov_deg = size, hfov_deg
        self._colour: dict[tuple[int, int], tuple[Undistortion | None, Intrinsics]] = {}
        self._registrations: dict[tuple[Any, ...], Registration] = {}

    def sample(self, match: Match, motions: Motions, key: str, recording: str) -> Sample:
        """The frame of a match, with whatever truth was found for it.

        :raises InputError: if an image cannot be decoded, or a calibration cannot be used.
        """
        rgb_hwc = self._rgb(match)
        picture_hw = rgb_hwc.shape[0], rgb_hwc.shape[1]
        undistortion, camera = self._camera(*picture_hw[::-1])
        jpeg = _jpeg(match.colour)
        if undistortion is not None:
            rgb_hwc, jpeg = undistortion.image(rgb_hwc), None
        if self._size is not None and self._size != (camera.width, camera.height):
            rgb_hwc, jpeg = cv2.resize(rgb_hwc, self._size, interpolation=cv2.INTER_AREA), None
            camera = camera.resized(*self._size)
        depth = match.partners.get(self.topics.depth)
        if depth is None:
            depth_m = np.zeros((camera.height, camera.width), np.float32)
        else:
            depth_m = self._depth(depth, match, motions, undistortion, camera, picture_hw)
        for topic in self.topics.points:
            points = match.partners.get(topic)
            motion = motions.points.get(topic)
            if points is not None and motion is not None:
                read = scan_points if hasattr(points, "ranges") else cloud_points
                sparse = project_points(motion.apply(read(points)), camera)
                depth_m = np.where(depth_m > 0, depth_m, sparse)
        labels_hw = None
        labels = match.partners.get(self.topics.labels)
        if labels is not None:
            labels_hw = self._fitted(label_image(labels), undistortion, camera)
        return Sample(
            rgb_hwc,
            depth_m,
            camera,
            None if labels_hw is None else label_values(labels_hw),
            camera_7=motions.camera_7,
            key=key,
            recording=recording,
            stamp_ns=match.stamp_ns,
            jpeg=jpeg,
        )

    def depth_m(self, match: Match, motions: Motions, size: tuple[int, int]) -> np.ndarray:
        """The depth of a match alone, as its colour image of ``size`` (width, height) sees it.

        :raises InputError: as :meth:`sample`.
        """
        undistortion, camera = self._camera(*size)
        message = match.partners[self.topics.depth]
        return self._depth(message, match, motions, undistortion, camera, size[::-1])

    def labels(self, match: Match, size: tuple[int, int]) -> np.ndarray:
        """The labels of a match alone, from 0 on, at the size of its image (width, height).

        :raises InputError: if they are no image of labels.
        """
        undistortion, camera = self._camera(*size)
        return self._fitted(label_image(match.partners[self.topics.labels]), undistortion, camera)

    def thumbnail(self, match: Match) -> np.ndarray:
        """float32 (24, 32): what an image shows, without its noise; cheap.

        :raises InputError: if it cannot be decoded.
        """
        jpeg, gray = _jpeg(match.colour), None
        if jpeg is not None:
            header = read_header(memoryview(jpeg), self.reader.max_scans)
            check_pixels("JPEG picture", header.width, header.height, self.reader.max_pixels)
            gray = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8)
        if gray is None:
            gray = self._rgb(match)[..., 1]
            step = max(1, min(gray.shape) // 96)
            gray = gray[::step, ::step]
        small = cv2.resize(np.ascontiguousarray(gray), (32, 24), interpolation=cv2.INTER_AREA)
        return small.astype(np.float32)

    def _rgb(self, match: Match) -> np.ndarray:
        if match.rgb_hwc is not None:
            return match.rgb_hwc
        rgb_hwc = self.reader.rgb(match.colour)
        if rgb_hwc is None:  # a video that did not begin as one
            raise InputError("the packet of a video has no keyframe before it")
        return rgb_hwc

    def is_aligned(self, match: Match) -> bool:
        """Whether depth is seen from the colour camera: one frame, and one camera as far as known.

        :raises InputError: if the calibration of either cannot be used.
        """
        depth = match.partners[self.topics.depth]
        if depth.header.frame_id != match.colour.header.frame_id:
            return False
        if self.topics.depth_info is None or self.topics.colour_info is None:
            return True
        info = self.topics.depth_info
        own = intrinsics_from_info(
            info, info.width, info.height, rectified=is_rectified(self.topics.depth)
        )
        info = self.topics.colour_info
        colour = intrinsics_from_info(
            info, info.width, info.height, rectified=self.topics.colour_is_rectified
        ).resized(own.width, own.height)
        return (
            abs(own.fx / colour.fx - 1) < _SAME_FOCAL
            and abs(own.cx - colour.cx) < _SAME_PIXELS
            and abs(own.cy - colour.cy) < _SAME_PIXELS
        )

    def _camera(self, width: int, height: int) -> tuple[Undistortion | None, Intrinsics]:
        """How the lens is taken out of images of this size, and the pinhole that is left."""
        if (width, height) not in self._colour:
            info = self.topics.colour_info
            if info is not None:
                camera = intrinsics_from_info(
                    info, width, height, rectified=self.topics.colour_is_rectified
                )
            elif self._hfov_deg is not None:
                camera = Intrinsics.from_fov(width, height, self._hfov_deg)
            else:
                raise InputError(
                    f"{self.topics.colour} has no camera_info in the recording, expected it beside "
                    "the images: give the camera's horizontal field of view with --hfov"
                )
            undistortion = Undistortion(camera) if camera.lens is not None else None
            found = (undistortion, camera if undistortion is None else undistortion.camera)
            self._colour[width, height] = found
        return self._colour[width, height]

    def _depth(
        self,
        message: ImageMessage,
        match: Match,
        motions: Motions,
        undistortion: Undistortion | None,
        camera: Intrinsics,
        picture_hw: tuple[int, int],
    ) -> np.ndarray:
        depth_m = message_depth_m(message, self.reader.max_pixels)
        if self.is_aligned(match):
            names = self.topics.depth, self.topics.colour
            self.doubt = self.doubt or view_doubt(names[0], depth_m.shape, names[1], picture_hw)
            # In place, for it is a fresh array; of NaN and a number this takes the number.
            np.fmax(depth_m, np.float32(0), out=depth_m)
            return self._fitted(depth_m, undistortion, camera, shrunk_depth)
        if motions.depth is None:
            return np.zeros((camera.height, camera.width), np.float32)
        if self.topics.depth_info is None:
            raise InputError(
                f"{self.topics.depth} is seen from {message.header.frame_id!r} and has no "
                "camera_info in the recording, so it cannot be registered to the image: record it, "
                "or depth that is aligned with the colour camera"
            )
        height, width = depth_m.shape
        own = intrinsics_from_info(
            self.topics.depth_info, width, height, rectified=is_rectified(self.topics.depth)
        )
        motion = motions.depth
        place = (own, camera, motion.rotation.tobytes(), motion.translation.tobytes())
        registration = self._registrations.get(place)
        if registration is None:
            registration = Registration(own, camera, motion)
            # Cameras that move against each other need each one once: only the newest is kept.
            self._registrations = {place: registration}
        return registration(depth_m)

    def _fitted(
        self,
        values_hw: np.ndarray,
        undistortion: Undistortion | None,
        camera: Intrinsics,
        resize: Callable[[np.ndarray, tuple[int, int]], np.ndarray] = _nearest,
    ) -> np.ndarray:
        """A map that is aligned with the colour image, at the frame's size, without the lens."""
        if undistortion is not None:
            full = (undistortion.camera.width, undistortion.camera.height)
            values_hw = undistortion.map(_nearest(values_hw, full))
        size = (camera.width, camera.height)
        return values_hw if values_hw.shape == size[::-1] else resize(values_hw, size)


def motions_of(
    match: Match, cameras: Cameras, buffer: TransformBuffer, world: str
) -> tuple[Motions, list[str]]:
    """Where the sensors of a match and the camera are, and what is not known of that."""
    topics, colour_frame, problems = cameras.topics, match.colour.header.frame_id, []
    time_s = match.stamp_ns / 1e9

    def lookup(message: StampedMessage, what: str) -> Transform | None:
        frame = message.header.frame_id
        if frame == colour_frame:
            return Transform(np.eye(3), np.zeros(3))
        try:
            return buffer.lookup(colour_frame, frame, time_s)
        except InputError as error:
            problems.append(f"{what} is left out: {str(error).partition(' at ')[0]} in /tf")
            return None

    depth = None
    message = match.partners.get(topics.depth)
    if message is not None and not cameras.is_aligned(match):
        depth = lookup(message, topics.depth)
    points = {}
    for topic in topics.points:
        found = match.partners.get(topic)
        motion = lookup(found, topic) if found is not None else None
        if motion is not None:
            points[topic] = motion
    camera_7 = None
    if world:
        try:
            pose = buffer.lookup(world, colour_frame, time_s)
            camera_7 = np.array([*pose.translation, *pose.quaternion()], np.float32)
        except InputError as error:
            problems.append(f"no poses: {str(error).partition(' at ')[0]} in /tf")
    return Motions(depth, points, camera_7), problems


def label_image(message: ImageMessage) -> np.ndarray:
    """Labels of a message as (H, W), 8 or 16 bits.

    :raises InputError: if it is no image of labels.
    """
    if is_compressed(message):
        labels = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_UNCHANGED)
        if labels is None or labels.ndim != 2 or labels.dtype not in (np.uint8, np.uint16):
            raise InputError("the compressed labels are no PNG of one channel, 8 or 16 bits")
        return np.asarray(labels)
    raw = cast(RawImage, message)
    kind = _LABEL_ENCODINGS.get(raw.encoding)
    if kind is None:
        known = ", ".join(_LABEL_ENCODINGS)
        raise InputError(f"labels are {raw.encoding!r}, expected {known}")
    item = np.dtype((">" if raw.is_bigendian else "<") + kind)
    data = np.frombuffer(raw.data, np.uint8)
    width, height = raw.width, raw.height
    if raw.step < width * item.itemsize or len(data) < raw.step * height:
        raise InputError(
            f"labels of {width}x{height} have {len(data)} bytes, expected "
            f"{height * max(raw.step, width * item.itemsize)}"
        )
    rows = data[: raw.step * height].reshape(height, raw.step)
    packed = np.ascontiguousarray(rows[:, : width * item.itemsize])
    return packed.view(item).reshape(height, width)


def _jpeg(message: ImageMessage) -> bytes | None:
    """The bytes of a compressed colour image that is a JPEG file."""
    if not is_compressed(message) or str(getattr(message, "format", "")).strip().startswith(
        "bayer_"
    ):
        return None
    data = bytes(message.data)
    return data if data.startswith(_JPEG_START) else None
