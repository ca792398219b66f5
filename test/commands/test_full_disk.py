"""A disk that is really full: each command ends with one line that says so, and with its code."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from test.fuzz.kills import VERBS

_MOUNT = 'mount -t tmpfs -o size="$1"k tmpfs "$2" && shift 2 && exec "$@"'


def unshare() -> list[str]:
    """What gives a command mounts of its own, for root and for others."""
    words = ["unshare", "--mount"]
    return words if os.geteuid() == 0 else [*words, "--user", "--map-root-user"]


@pytest.fixture(scope="module", autouse=True)
def _can_mount(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = str(tmp_path_factory.mktemp("trial"))
    if shutil.which("unshare") is None:
        pytest.skip("unshare (util-linux) is not installed")
    words = [*unshare(), "sh", "-c", _MOUNT, "sh", "64", folder, "true"]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")


# Kilobytes at which the command has begun to write and cannot end.
SIZES = {"run": 900, "run-bag": 3000, "train": 150, "compile": 8, "fetch": 1000}


@pytest.mark.slow
@pytest.mark.parametrize("verb", SIZES)
def test_a_full_disk_is_one_line(verb: str, tmp_path: Path) -> None:
    with VERBS[verb](tmp_path) as scenario:
        scenario.out.mkdir(exist_ok=True)
        words = [sys.executable, "-m", "dense_perception.cli", *scenario.words]
        done = subprocess.run(
            [*unshare(), "sh", "-c", _MOUNT, "sh", str(SIZES[verb]), str(scenario.out), *words],
            env={**os.environ, **scenario.environment},
            capture_output=True,
            text=True,
            timeout=300,
        )
    complaints = [line for line in done.stderr.splitlines() if line.startswith("dense-perception")]
    if verb == "compile":  # a line of its table: others of its engines may have been stored
        complaints += [line for line in done.stdout.splitlines() if "No space left" in line]
    assert "Traceback" not in done.stderr
    assert done.returncode == (1 if verb == "compile" else 2)
    assert len(complaints) == 1, done.stderr
    assert "No space left on device" in complaints[0] or "full" in complaints[0]
