"""All tests in two parts, with the slowest of both in one list at the end.

Tests that only compute run beside each other, one thread each. Those that start ROS 2 processes or
use a GPU follow one by one: they measure times, and others beside them would be measured with them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path

import pytest

# A file stays on one worker, with what its fixtures made. Files come in the order of the folders,
# which does not leave the longest ones to the end. A crashed worker ends the run: one in its place
# would get none of the files that the first one held, and the run would wait for them for ever.
BESIDE = ["-m", "not ros and not gpu", "--numprocesses", "logical", "--maxprocesses", "4",
          "--dist", "loadfile", "--no-loadscope-reorder", "--max-worker-restart", "0"]  # fmt: skip
# Real processes on a shared machine: what fails once and passes alone is counted as a rerun in the
# summary. The plugin comes with colcon.
ALONE = ["-m", "ros or gpu", "--reruns", "1"]
NOTHING = pytest.ExitCode.NO_TESTS_COLLECTED


def main() -> int:
    """Returns pytest's code of the part that failed, or 0."""
    parser = argparse.ArgumentParser(description="Run all tests; other options go to pytest.")
    parser.add_argument("--slowest", type=int, default=0, metavar="N", help="list the N slowest")
    options, others = parser.parse_known_args()
    start = time.monotonic()
    codes, seconds = [], {}
    with tempfile.TemporaryDirectory() as folder:
        shared = with_bytecode(os.environ, Path(folder) / "bytecode")
        for name, words, threads in (("beside", BESIDE, "1"), ("alone", ALONE, None)):
            report = Path(folder) / f"{name}.xml"
            environment = {**shared, **({"OMP_NUM_THREADS": threads} if threads else {})}
            command = [sys.executable, "-m", "pytest", *words, f"--junitxml={report}", *others]
            code = subprocess.run(command, env=environment, check=False).returncode
            if only_crashed(report):
                print("Nothing failed but tests whose worker crashed: all once more", flush=True)
                code = subprocess.run(command, env=environment, check=False).returncode
            codes.append(code)
            seconds.update(durations(report))
    if options.slowest:
        print(f"slowest {options.slowest} of {len(seconds)} tests, with their fixtures:")
        for test in sorted(seconds, key=lambda test: -seconds[test])[: options.slowest]:
            print(f"{seconds[test]:7.1f} s  {test}")
    print(f"all tests took {time.monotonic() - start:.0f} s")
    # Of the tests that were named, one part may have none.
    failed = [code for code in codes if code not in (0, NOTHING)]
    return failed[0] if failed else min(codes)


def only_crashed(report: Path) -> bool:
    """Whether tests failed, all of them with their worker: the machine may have ended it for want
    of memory. A test that crashes it by itself does so again.
    """
    errors = [error.text or "" for case in cases(report) for error in case.iter("error")]
    failures = [failure for case in cases(report) for failure in case.iter("failure")]
    return bool(errors) and not failures and all("crashed while running" in e for e in errors)


def with_bytecode(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Where Python may write no bytecode, a folder of this run takes it.

    The tests start hundreds of processes. Each would compile what it imports anew, which takes a
    node as long as all else that it does, and PyTorch with its exporter six seconds.
    """
    if not environment.get("PYTHONDONTWRITEBYTECODE"):
        return dict(environment)
    kept = {key: it for key, it in environment.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(folder)}


def durations(report: Path) -> dict[str, float]:
    """Seconds by test of a JUnit report, set-up and clean-up included."""
    return {
        f"{case.get('classname')}::{case.get('name')}": float(case.get("time", 0))
        for case in cases(report)
    }


def cases(report: Path) -> list[ElementTree.Element]:
    """The tests of a JUnit report; none of one that could not be written, pytest has said why."""
    try:
        return list(ElementTree.parse(report).getroot().iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return []


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # pytest has said where
        sys.exit(130)
