"""Segments of killed processes go, those of living ones stay: with locks as Fast DDS takes them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dense_perception.ros.shared_memory import remove_dead_segments

# As Fast DDS: the lock file of a segment is held, exclusively, as long as its process lives.
HOLDER = """
import fcntl, os, sys, time
segment = sys.argv[1]
open(segment, "wb").write(bytes(100_000))
lock = os.open(segment + "_el", os.O_CREAT | os.O_RDONLY)
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    segment = tmp_path / "fastdds_0123456789abcdef"
    command = [sys.executable, "-c", HOLDER, str(segment)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process, segment
        process.kill()


def test_a_living_process_keeps_its_segment_and_a_killed_one_does_not(
    holder: tuple[subprocess.Popen[str], Path], tmp_path: Path
) -> None:
    process, segment = holder
    assert remove_dead_segments(tmp_path, 0.0) == 0
    assert segment.stat().st_size == 100_000
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert remove_dead_segments(tmp_path, 3600.0) == 0  # it may be young
    assert remove_dead_segments(tmp_path, 0.0) >= 100_000
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_a_segment_of_ours_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"data")
    others = ["fastdds_port7411", "fastdds_0123", "sem.fastdds_port7411_mutex", "mine"]
    others += ["fastrtps_00112233445566ff"]  # without a lock file nobody knows
    for name in others:
        (tmp_path / name).write_bytes(b"data")
        if "port" in name:
            (tmp_path / f"{name}_el").touch()
    (tmp_path / "fastdds_fedcba9876543210").symlink_to(target)
    (tmp_path / "fastdds_fedcba9876543210_el").touch()
    before = sorted(tmp_path.iterdir())
    assert remove_dead_segments(tmp_path, 0.0) == 0
    assert sorted(tmp_path.iterdir()) == before
    assert remove_dead_segments(tmp_path / "nothing") == 0


def test_a_lock_behind_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "fastdds_0123456789abcdef").write_bytes(b"data")
    (tmp_path / "fastdds_0123456789abcdef_el").symlink_to(tmp_path / "elsewhere")
    assert remove_dead_segments(tmp_path, 0.0) == 0
    assert (tmp_path / "fastdds_0123456789abcdef").exists()
