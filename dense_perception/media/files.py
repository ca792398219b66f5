"""What a file is: a picture or a video, told by its first bytes."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from dense_perception.core.errors import InputError
from dense_perception.core.storage import require_regular_file
from dense_perception.imaging.picture_headers import is_picture

PICTURE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".gif", ".avif"),
)
"""Names of pictures that a folder's reader takes."""
VIDEO_SUFFIXES = (
    *(".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".h264", ".gif"),
    *(".wmv", ".3gp", ".flv", ".ogv"),
)
"""Names of videos, for messages: a video is told by its content."""
_UNREAD_SUFFIXES = (".heic", ".heif", ".jp2", ".jxl", ".dng", ".cr2", ".nef", ".arw", ".exr")
_SHOWN = 5
_HEAD_BYTES = 400
_TS_PACKET = 188
# How containers and streams begin, at their start or after the four bytes of a box's length.
_VIDEO_STARTS = (
    *(b"\x1a\x45\xdf\xa3", b"FLV\x01", b"OggS", b"GIF87a", b"GIF89a", b"DKIF", b"YUV4MPEG2"),
    *(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"\0\0\x01\xba", b"\0\0\x01\xb3", b"\0\0\0\x01"),
    *(b"\0\0\x01\x67", b"\0\0\x01\x09", b"\0\0\x01\x40"),
)
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")


class Kind(Enum):
    """What :func:`kind_of` tells apart."""

    PICTURE = "picture"
    VIDEO = "video"
    OTHER = "other"


def kind_of(path: Path) -> Kind:
    """A GIF is a video, which a single picture is too.

    A playlist (``#EXTM3U``) is none, whatever its name: a player would open what it names.

    :raises InputError: if it is no regular file, cannot be read, or has a video's name and not its
        content.
    """
    require_regular_file(path)
    try:
        with open(path, "rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if _is_video(head):
        return Kind.VIDEO
    suffix = path.suffix.lower()
    if is_picture(head[:32]) or suffix in (*PICTURE_SUFFIXES, *_UNREAD_SUFFIXES):
        return Kind.PICTURE
    if suffix in VIDEO_SUFFIXES:
        raise InputError(
            f"cannot open {path.name} as a video: it starts with {head[:8].hex(' ') or 'nothing'}, "
            "as no kind of video does: copy it again, or convert it with ffmpeg"
        )
    return Kind.OTHER


def has_picture_name(file: Path) -> bool:
    """Whether a file is named like a picture.

    macOS leaves a small ``._`` file beside every file that it copies; those are none.
    """
    return not file.name.startswith("._") and file.suffix.lower() in PICTURE_SUFFIXES


def pictures_in(folder: Path) -> tuple[list[Path], str]:
    """The pictures of a folder by their names, in no order, and which others were left out."""
    present = list(folder.iterdir())
    found = [file for file in present if has_picture_name(file)]
    unread = (file.name for file in present if file.suffix.lower() in _UNREAD_SUFFIXES)
    others = sorted(name for name in unread if not name.startswith("._"))
    if not others:
        return found, ""
    shown = ", ".join(others[:_SHOWN]) + (", ..." if others[_SHOWN:] else "")
    return found, (
        f"{len(others)} pictures of {folder.name} are left out, expected "
        f"{', '.join(PICTURE_SUFFIXES)}: convert {shown}"
    )


def _is_video(head: bytes) -> bool:
    if head.startswith(_VIDEO_STARTS) or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return True
    if head[4:8] in _BOXES:
        return not is_picture(head[:32])  # AVIF and HEIC are in the same kind of boxes
    packet = next((start for start in (0, 4) if head[start : start + 1] == b"\x47"), None)
    if packet is None:
        return False
    size = _TS_PACKET + packet  # with a time stamp before each packet in .m2ts
    return head[packet + size : packet + size + 1] == b"\x47"
