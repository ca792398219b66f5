"""Video streams in messages: every picture that comes is the one that was sent with its packet."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from dense_perception.core.errors import InputError
from dense_perception.imaging import video
from dense_perception.imaging.messages import ImageReader
from dense_perception.imaging.video import VideoDecoder, is_video, video_codec

KEYFRAMES = 5
COUNT = 3 * KEYFRAMES
ENCODERS = [
    (
        "libx264",
        "h264",
        {
            "preset": "veryfast",
            "tune": "zerolatency",
            "x264-params": "scenecut=0",
        },
    ),
    ("libx265", "hevc", {"preset": "ultrafast", "tune": "zerolatency"}),
    ("libvpx-vp9", "vp9", {"deadline": "realtime", "lag-in-frames": "0"}),
]


def picture(index: int) -> np.ndarray:
    """A bright square that moves."""
    rgb_hwc = np.full((48, 64, 3), 40, np.uint8)
    rgb_hwc[8:40, 3 * index : 3 * index + 16] = (200, 120, 90)
    return rgb_hwc


def encoded(name: str, options: dict[str, str]) -> list[bytes]:
    av = pytest.importorskip("av")
    if name not in av.codecs_available:
        pytest.skip(f"PyAV was built without {name}")
    encoder = av.CodecContext.create(name, "w")
    encoder.width, encoder.height, encoder.pix_fmt = 64, 48, "yuv420p"
    encoder.time_base, encoder.gop_size = Fraction(1, 10), KEYFRAMES
    if name == "libx265":
        options = {**options, "x265-params": "log-level=none"}
    encoder.options = options
    packets = []
    for index in range(COUNT):
        frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
        frame = frame.reformat(format="yuv420p")
        frame.pts = index
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    return packets + [bytes(packet) for packet in encoder.encode(None)]


@pytest.fixture(params=ENCODERS, ids=lambda each: each[1], scope="module")
def stream(request: pytest.FixtureRequest) -> tuple[str, list[bytes]]:
    name, codec, options = request.param
    return codec, encoded(name, options)


def shows(rgb_hwc: np.ndarray | None, index: int) -> bool:
    """Whether it is that picture, and not the one before or after."""
    assert rgb_hwc is not None
    return float(np.abs(rgb_hwc.astype(int) - picture(index)).mean()) < 6


def test_each_packet_gives_its_picture(stream: tuple[str, list[bytes]]) -> None:
    codec, packets = stream
    decoder = VideoDecoder(codec)
    assert len(packets) == COUNT
    assert all(shows(decoder.rgb(packet), index) for index, packet in enumerate(packets))
    assert decoder.skipped == 0
    with pytest.raises(InputError, match=r"at most 0\.002 million pixels"):
        VideoDecoder(codec, max_pixels=2000).rgb(packets[0])


def test_who_comes_late_waits_for_a_keyframe(stream: tuple[str, list[bytes]]) -> None:
    codec, packets = stream
    decoder = VideoDecoder(codec)
    found = [decoder.rgb(packet) for packet in packets[2:]]
    waited = KEYFRAMES - 2
    assert all(rgb is None for rgb in found[:waited])
    assert decoder.skipped == waited
    assert all(shows(rgb, KEYFRAMES + index) for index, rgb in enumerate(found[waited:]))


def test_after_damage_no_picture_is_shown_until_a_keyframe(
    stream: tuple[str, list[bytes]],
) -> None:
    codec, packets = stream
    decoder = VideoDecoder(codec)
    for packet in packets[:2]:
        decoder.rgb(packet)
    with pytest.raises(InputError, match="the next keyframe is waited for"):
        decoder.rgb(bytes(80))
    found = [decoder.rgb(packet) for packet in packets[3:]]
    assert all(rgb is None for rgb in found[: KEYFRAMES - 3])
    assert shows(found[KEYFRAMES - 3], KEYFRAMES)


def test_a_lost_packet_is_noticed() -> None:
    """FFmpeg goes on with a wrong picture and says nothing."""
    packets = encoded(*ENCODERS[0][::2])  # type: ignore[arg-type]
    decoder = VideoDecoder("h264")
    for packet in packets[:2]:
        decoder.rgb(packet)
    with pytest.raises(InputError, match="refers to one that is missing"):
        decoder.rgb(packets[3])
    assert decoder.rgb(packets[4]) is None
    assert shows(decoder.rgb(packets[KEYFRAMES]), KEYFRAMES)


def test_pictures_out_of_order_are_refused() -> None:
    packets = encoded("libx264", {"preset": "medium"})
    decoder = VideoDecoder("h264")
    with pytest.raises(InputError, match=r"has B-frames.*tune zerolatency"):
        list(map(decoder.rgb, packets))


def test_messages_of_every_transport() -> None:
    packets = encoded(*ENCODERS[0][::2])  # type: ignore[arg-type]
    for fields in ({"format": "h264"}, {"encoding": "libx264;yuv420p", "pts": 3}):
        reader = ImageReader()
        for index, data in enumerate(packets[:3]):
            assert shows(reader.rgb(SimpleNamespace(data=data, **fields)), index)  # type: ignore[arg-type]


def test_names_of_codecs() -> None:
    names = {"h264_nvenc": "h264", "libx265;bgr8": "hevc", "HEVC": "hevc", "vp9": "vp9", "av1": ""}
    assert {name: video_codec(name) for name in names} == names
    assert is_video("av1")
    assert not is_video("rgb8; jpeg compressed bgr8")


def test_without_pyav_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(InputError, match=r"needs PyAV: pip install 'dense_perception\[video\]'"):
        ImageReader().rgb(SimpleNamespace(data=b"", format="h264"))  # type: ignore[arg-type]
    assert video.video_codec("h264") == "h264"
