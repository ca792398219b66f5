"""tegrastats is read as JetPack prints it; the program here is a stand-in with such lines."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dense_perception.benchmarks.tegrastats import watched

ORIN = (
    "11-27-2026 10:00:0{0} RAM {1}/7620MB (lfb 4x4MB) SWAP 0/3810MB (cached 0MB) "
    "CPU [3%@1510,1%@1510,off,off] EMC_FREQ 0%@2133 GR3D_FREQ {2}%@[305] NVDEC off "
    "cpu@45.5C soc2@43.1C gpu@44C tj@{3}C VDD_IN {4}mW/4500mW VDD_CPU_GPU_CV 580mW/580mW"
)
XAVIER = "RAM 2448/7765MB (lfb 4x4MB) GR3D_FREQ 40%@905 thermal@41.2C VDD_IN 5000/5000 POM_5V_IN 1"


def program(folder: Path, name: str, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / name
    path.write_text("#!/bin/sh\n" + "".join(f"echo '{each}'\n" for each in lines) + "sleep 30\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_medians_and_the_highest_temperature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        ORIN.format(0, 2000, 10, 47.5, 4000),
        ORIN.format(1, 2100, 90, 61.5, 9000),
        ORIN.format(2, 2200, 80, 60, 8000),
    ]
    program(tmp_path, "tegrastats", lines, monkeypatch)
    with watched() as watch:
        deadline = time.monotonic() + 5
        while len(watch.lines) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    found = watch.result()
    assert found is not None
    assert (found.samples, found.gpu_percent, found.power_w) == (3, 80, 8.0)
    assert (found.ram_mb, found.heat_c, found.mode) == (2100, 61.5, "")
    assert str(found) == (
        "tegrastats, 3 samples: GPU 80 %, 8.0 W, 2100 MB of memory in use, up to 62 degrees"
    )


def test_what_is_not_said_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "tegrastats", [XAVIER], monkeypatch)
    with watched() as watch:
        deadline = time.monotonic() + 5
        while not watch.lines and time.monotonic() < deadline:
            time.sleep(0.01)
    found = watch.result()
    assert found is not None
    assert (found.gpu_percent, found.power_w, found.heat_c) == (40, None, None)


def test_elsewhere_there_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with watched() as watch:
        pass
    assert watch.result() is None
