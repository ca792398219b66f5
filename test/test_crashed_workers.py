"""A part of the tests runs again only if nothing failed in it but tests whose worker crashed."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from test.support.setup_script import ROOT

_CRASHES = "import os, signal\ndef test_crashes():\n    os.kill(os.getpid(), signal.SIGKILL)\n"
_FAILS = "def test_fails():\n    assert False\n"
_ERRS = (
    "import pytest\n@pytest.fixture\ndef broken():\n    raise OSError\n"
    "def test_errs(broken):\n    pass\n"
)
_PASSES = "def test_passes():\n    pass\n"


@pytest.fixture(scope="module")
def only_crashed() -> Callable[[Path], bool]:
    found: Callable[[Path], bool] = runpy.run_path(str(ROOT / ".ci" / "run_tests.py"))[
        "only_crashed"
    ]
    return found


@pytest.mark.parametrize(
    ("files", "again"),
    [
        ([_CRASHES, _PASSES], True),
        ([_CRASHES, _FAILS], False),
        ([_CRASHES, _ERRS], False),
        ([_FAILS, _PASSES], False),
        ([_PASSES], False),
    ],
    ids=["crash", "crash and failure", "crash and error", "failure", "nothing"],
)
def test_a_part_runs_again(
    files: list[str], again: bool, tmp_path: Path, only_crashed: Callable[[Path], bool]
) -> None:
    for number, text in enumerate(files):
        (tmp_path / f"test_{number}.py").write_text(text)
    report = tmp_path / "report.xml"
    words = ["--numprocesses", "2", "--dist", "loadfile", "--max-worker-restart", "0"]
    subprocess.run(
        [sys.executable, "-m", "pytest", *words, f"--junitxml={report}", "-c", "/dev/null", "."],
        cwd=tmp_path,
        env={key: it for key, it in os.environ.items() if not key.startswith("PYTEST_")},
        capture_output=True,
        check=False,
    )
    assert only_crashed(report) is again


def test_without_a_report_nothing_runs_again(
    tmp_path: Path, only_crashed: Callable[[Path], bool]
) -> None:
    assert only_crashed(tmp_path / "missing.xml") is False
