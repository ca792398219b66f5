"""Where frames come from without ROS: pictures, folders, videos, cameras and bags."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2

from dense_perception.core.camera import (
    CameraInfoMessage,
    Frame,
    Intrinsics,
    calibration_doubt,
    intrinsics_from_info,
)
from dense_perception.core.errors import InputError
from dense_perception.core.storage import require_regular_file, user_path
from dense_perception.imaging.encodings import check_pixels
from dense_perception.imaging.messages import ImageReader, stamp_ns, takes_projection
from dense_perception.media.bag_images import CALIBRATIONS, calibration_topic, choose_topic
from dense_perception.media.bag_reader import BagReader, is_bag
from dense_perception.media.files import (
    PICTURE_SUFFIXES,
    VIDEO_SUFFIXES,
    Kind,
    kind_of,
    pictures_in,
)
from dense_perception.media.problems import Problems

_NAME_BYTES = 190
_SIDES = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
_NO_VIDEO = "it holds no pictures or is cut off: copy it again, or convert it with ffmpeg"
_FOLDER_INTERVAL_NS = 100_000_000


@dataclass(frozen=True)
class SourceItem:
    """A frame with the name its outputs get, and its time on the recording's clock."""

    frame: Frame
    name: str
    time_ns: int
    camera_info: CameraInfoMessage | None = None


class Source(ABC):
    """Iterates over items; what cannot be read goes to ``problems`` and the next one follows.

    ``total`` is how many there are, ``None`` where nobody knows. ``calibration`` replaces
    what the source knows about its camera and is scaled to each image; one that does not fit the
    image ends a video or bag with an InputError. ``reader`` says what images may be, and is by
    default one that takes all bits. ``matrix`` says which matrix of a calibration describes the
    images, as :func:`~dense_perception.imaging.messages.takes_projection` takes it.
    """

    total: int | None = None
    topic = ""

    def __init__(
        self,
        calibration: CameraInfoMessage | None = None,
        reader: ImageReader | None = None,
        matrix: str = "auto",
    ) -> None:
        self.calibration = calibration
        self.matrix = matrix
        self.reader = reader or ImageReader()
        self._problems = Problems()

    @abstractmethod
    def __iter__(self) -> Iterator[SourceItem]: ...

    @property
    def problems(self) -> list[str]:
        """What went wrong so far, a line for each kind."""
        return [*self._problems.lines, *self.reader.doubts]

    def close(self) -> None:
        """Free the file or the device."""
        return

    def _given(self, width: int, height: int) -> Intrinsics | None:
        """
        :raises InputError: if the given calibration is of an image of another shape.
        """
        if self.calibration is None:
            return None
        try:
            return self._intrinsics(self.calibration, width, height, "--camera-info")
        except InputError as error:
            raise InputError(str(error).replace("camera_info", "--camera-info", 1)) from error

    def _intrinsics(
        self, info: CameraInfoMessage, width: int, height: int, origin: str
    ) -> Intrinsics:
        """
        :raises InputError: see :func:`intrinsics_from_info`.
        """
        rectified = takes_projection(self.matrix, self.topic)
        camera = intrinsics_from_info(info, width, height, rectified=rectified)
        matrix = "P" if rectified else self.matrix
        if doubt := calibration_doubt(info, matrix, "--camera-matrix"):
            self._problems.note(f"{origin}: {doubt}")
        return camera


class PictureSource(Source):
    """One picture, or every picture of a folder in natural order (2 before 10)."""

    def __init__(
        self,
        path: Path,
        calibration: CameraInfoMessage | None = None,
        *,
        reader: ImageReader | None = None,
        matrix: str = "auto",
    ) -> None:
        super().__init__(calibration, reader, matrix)
        if path.is_dir():
            found, left_out = pictures_in(path)
            self.files = sorted(found, key=lambda file: _natural(file.name))
            if left_out:
                self._problems.note(left_out)
            if not self.files:
                raise InputError(
                    f"{path} holds neither pictures ({', '.join(PICTURE_SUFFIXES)}) nor a bag "
                    "(metadata.yaml, .mcap, .db3, .bag)"
                )
        else:
            self.files = [path]
        self.total = len(self.files)
        self._names = _unique_names(self.files)

    def __iter__(self) -> Iterator[SourceItem]:
        for index, file in enumerate(self.files):
            try:
                require_regular_file(file)
                rgb_hwc = self.reader.picture(file.read_bytes(), apply_orientation=True)
                camera = self._given(rgb_hwc.shape[1], rgb_hwc.shape[0])
            except (InputError, OSError) as error:
                self._problems.note(f"{file.name}: {error}")
                continue
            name = self._names[index]
            time_ns = index * _FOLDER_INTERVAL_NS
            yield SourceItem(Frame(rgb_hwc, time_ns, "camera", camera), name, time_ns)


class VideoSource(Source):
    """A video file, or a camera by its index; stamps are the video's own times."""

    def __init__(
        self,
        target: Path | int,
        calibration: CameraInfoMessage | None = None,
        *,
        reader: ImageReader | None = None,
        matrix: str = "auto",
    ) -> None:
        super().__init__(calibration, reader, matrix)
        self._live = isinstance(target, int)
        self._what = f"camera {target}" if self._live else str(target)
        if isinstance(target, Path):
            require_regular_file(target)
        self._capture = cv2.VideoCapture(target if isinstance(target, int) else str(target))
        if not self._capture.isOpened():
            cure = "check that it is plugged in" if self._live else _NO_VIDEO
            raise InputError(f"cannot open {self._what} as a video: {cure}")
        width, height = (int(self._capture.get(side)) for side in _SIDES)
        check_pixels("video", width, height, self.reader.max_pixels)
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.total = count if count > 0 and not self._live else None

    def __iter__(self) -> Iterator[SourceItem]:
        import time

        index = last_ns = time_ns = 0
        start = time.monotonic_ns()
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        interval_ns = round(1e9 / rate) if 0.1 <= rate <= 1000 else _FOLDER_INTERVAL_NS
        while True:
            if self._live:
                time_ns = time.monotonic_ns() - start
            ok, bgr_hwc = self._capture.read()
            if not ok or bgr_hwc is None:
                break
            if not self._live:
                # The position is that of the frame read last, so it is asked afterwards.
                time_ns = round(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
                if index and time_ns <= last_ns:  # a stream without stamps, or with damaged ones
                    time_ns = last_ns + interval_ns
                last_ns = time_ns
            rgb_hwc = cv2.cvtColor(bgr_hwc, cv2.COLOR_BGR2RGB)
            height, width = rgb_hwc.shape[:2]
            frame = Frame(rgb_hwc, time_ns, "camera", self._given(width, height))
            yield SourceItem(frame, f"frame_{index:06d}", time_ns)
            index += 1
        if self._live:
            self._problems.note(f"{self._what} gave no further frame after {index}")
        elif index == 0:
            code = int(self._capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little", signed=True)
            codec = code.decode("ascii", "replace").strip("\0 ") or "an unknown codec"
            self._problems.note(
                f"no frame of {self._what} can be decoded ({codec}): convert it with "
                "`ffmpeg -i IN -c:v libx264 OUT.mp4`"
            )
        elif self.total is not None and index < 0.9 * self.total:
            self._problems.note(f"{self._what} ended after {index} of {self.total} frames")

    def close(self) -> None:
        self._capture.release()


class BagSource(Source):
    """The frames of one image topic of a rosbag2, with the calibration recorded beside it."""

    def __init__(
        self,
        path: Path,
        calibration: CameraInfoMessage | None = None,
        *,
        topic: str | None = None,
        info_topic: str | None = None,
        reader: ImageReader | None = None,
        matrix: str = "auto",
    ) -> None:
        super().__init__(calibration, reader, matrix)
        self.bag = BagReader(path)
        try:
            self.topic = choose_topic(self.bag, topic, "picture", "--topic")
            self.info_topic = info_topic or calibration_topic(self.bag, self.topic)
            known = {entry.name: entry for entry in self.bag.topics}
            if info_topic is not None and info_topic not in known:
                names = [t.name for t in self.bag.topics if t.msgtype in CALIBRATIONS]
                raise InputError(
                    f"{path.name} has no topic {info_topic!r}: --camera-info-topic one of "
                    f"{', '.join(names) or 'none'}"
                )
        except BaseException:
            self.bag.close()
            raise
        self.total = known[self.topic].count

    def __iter__(self) -> Iterator[SourceItem]:
        latest = self._first_info()
        index = 0
        for message in self.bag.messages([self.topic, self.info_topic]):
            try:
                content = self.bag.deserialize(message)
                if message.topic == self.info_topic:
                    latest = content
                    continue
                index += 1
                rgb_hwc = self.reader.rgb(content)
            except InputError as error:
                self._problems.at(f"{message.topic} at {message.time_ns} ns", error)
                continue
            if rgb_hwc is None:
                continue
            camera = self._camera(latest, rgb_hwc.shape[1], rgb_hwc.shape[0])
            frame = Frame(rgb_hwc, stamp_ns(content.header), content.header.frame_id, camera)
            used = None if camera is None else self.calibration or latest
            yield SourceItem(frame, f"frame_{index - 1:06d}", message.time_ns, used)
        self._problems.extend(self.bag.problems)

    def close(self) -> None:
        self.bag.close()

    def _first_info(self) -> CameraInfoMessage | None:
        """The first calibration, which may have been recorded after the first frame."""
        for message in self.bag.messages([self.info_topic]):
            try:
                return self.bag.deserialize(message)
            except InputError:
                continue
        return None

    def _camera(self, info: CameraInfoMessage | None, width: int, height: int) -> Intrinsics | None:
        given = self._given(width, height)
        if given is not None or info is None:
            return given
        try:
            return self._intrinsics(info, width, height, self.info_topic)
        except InputError as error:
            self._problems.note(f"{self.info_topic}: {error}")
            return None


def open_source(
    text: str,
    *,
    calibration: CameraInfoMessage | None = None,
    topic: str | None = None,
    info_topic: str | None = None,
    reader: ImageReader | None = None,
    matrix: str = "auto",
) -> Source:
    """Tell by content and name what ``text`` is, and open it.

    A number is a camera; a folder with bag files is a bag, any other a folder of pictures.
    ``reader`` says how many bits of 16-bit pictures count and how large images may be; by default
    all bits count, and unused ones are complained of. ``matrix`` chooses K or P of a calibration.

    :raises InputError: if there is nothing there or it cannot be read.
    """
    path = user_path(text)
    if text.isdigit() and not path.exists():
        return VideoSource(int(text), calibration, reader=reader, matrix=matrix)
    if not path.exists() and not path.is_symlink():
        raise InputError(
            f"there is no {text}: give a picture, a folder, a video, a bag or a camera's number"
        )
    if is_bag(path):
        return BagSource(
            path, calibration, topic=topic, info_topic=info_topic, reader=reader, matrix=matrix
        )
    kind = Kind.PICTURE if path.is_dir() else kind_of(path)
    if kind is Kind.PICTURE:
        return PictureSource(path, calibration, reader=reader, matrix=matrix)
    if kind is Kind.VIDEO:
        return VideoSource(path, calibration, reader=reader, matrix=matrix)
    raise InputError(
        f"cannot tell what {path.name} is: expected a picture ({', '.join(PICTURE_SUFFIXES)}), a "
        f"video ({', '.join(VIDEO_SUFFIXES)}), a folder or a bag (.mcap, .db3, .bag)"
    )


def _unique_names(files: list[Path]) -> list[str]:
    """A name for each picture's answers: its stem, with the suffix and a number where needed.

    Cut to what fits a file's name, and different also on disks that ignore upper and lower case.
    """
    stems = [_cut(file.stem) for file in files]
    folded = Counter(stem.casefold() for stem in stems)
    # What needs no change keeps its name, whatever comes before it.
    taken = {stem.casefold() for stem in stems if folded[stem.casefold()] == 1}
    names = []
    for stem, file in zip(stems, files, strict=True):
        name = stem
        if folded[stem.casefold()] > 1:
            base = name = f"{stem}_{_cut(file.suffix[1:].lower())}"
            number = 2
            while name.casefold() in taken:
                name, number = f"{base}_{number}", number + 1
            taken.add(name.casefold())
        names.append(name)
    return names


def _cut(name: str) -> str:
    """At most 190 bytes of a name: a suffix and a temporary file's marks come to it."""
    return name.encode("utf-8", "surrogateescape")[:_NAME_BYTES].decode("utf-8", "ignore")


def _natural(name: str) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", name.lower())
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
