"""Lines of libpng and libjpeg are thinned out, everybody else's are not."""

from __future__ import annotations

import os
import threading

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage

from dense_perception.core.errors import InputError
from dense_perception.ros import convert
from dense_perception.ros.decoder_output import DecoderOutput
from test.support.ros_probe import random_rgb

FRAMES = 1000


def damaged_png() -> CompressedImage:
    """Whole in its chunks, so that the decoder itself has to find out."""
    data = bytearray(cv2.imencode(".png", random_rgb())[1].tobytes())
    data[data.index(b"IDAT") + 30] ^= 0xFF
    return CompressedImage(format="png", data=bytes(data))


def test_damaged_pictures_do_not_fill_the_log(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "_decoder_output", DecoderOutput())
    message = damaged_png()
    with pytest.raises(InputError, match="damaged"):
        convert.ImageReader().rgb(message)
    assert "libpng" in capfd.readouterr().err, "nothing is printed: the test would show nothing"
    stopped = threading.Event()
    written = 0

    def other_thread() -> None:
        nonlocal written
        while not stopped.is_set():
            os.write(2, b"[INFO] line %d\n" % written)
            written += 1
            stopped.wait(0.001)

    thread = threading.Thread(target=other_thread)
    thread.start()
    for _ in range(FRAMES):
        with pytest.raises(InputError, match="damaged"):
            convert.rgb_from_message(message)
    stopped.set()
    thread.join()
    with pytest.raises(InputError, match="damaged"):  # passes on what was under way at the last one
        convert.rgb_from_message(message)
    lines = capfd.readouterr().err.splitlines()
    assert 1 <= sum("libpng" in line for line in lines) <= 4
    # None is lost; a write that was under way while the others were read comes after them.
    passed = [int(line.removeprefix("[INFO] line ")) for line in lines if "[INFO]" in line]
    assert sorted(passed) == list(range(written))


def test_what_was_left_out_is_counted(capfd: pytest.CaptureFixture[str]) -> None:
    output = DecoderOutput(period_s=0.0)
    lasting = DecoderOutput(period_s=60.0)
    for number in range(3):
        for each in (output, lasting):
            with each.caught():
                os.write(2, b"Corrupt JPEG data: %d extraneous bytes\n" % number)
    with lasting.caught():
        os.write(2, b"libpng error: bad\nTraceback (most recent call last):\n")
    assert capfd.readouterr().err.splitlines() == [
        "Corrupt JPEG data: 0 extraneous bytes",
        "Corrupt JPEG data: 0 extraneous bytes",
        "Corrupt JPEG data: 1 extraneous bytes",
        "Corrupt JPEG data: 2 extraneous bytes",
        "libpng error: bad (2 more lines of decoders were left out)",
        "Traceback (most recent call last):",
    ]


def test_a_log_line_inside_a_decoders_line_is_kept(capfd: pytest.CaptureFixture[str]) -> None:
    """libpng writes the end of its line apart: another thread's line may come between."""
    output = DecoderOutput(period_s=60.0)
    for number in range(3):
        with output.caught():
            os.write(2, b"libpng error: IDAT: CRC error")
            os.write(2, b"[INFO] [%d.5] [depth_node]: ready\n" % number)
            os.write(2, b"\n")
    lines = [line for line in capfd.readouterr().err.splitlines() if line]
    assert lines == ["[INFO] [0.5] [depth_node]: ready", "libpng error: IDAT: CRC error"] + [
        f"[INFO] [{number}.5] [depth_node]: ready" for number in (1, 2)
    ]


def test_a_process_without_stderr_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(_: int) -> int:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(os, "dup", closed)
    image = CompressedImage(
        format="png", data=cv2.imencode(".png", np.zeros((4, 5, 3)))[1].tobytes()
    )
    assert convert.rgb_from_message(image).shape == (4, 5, 3)
