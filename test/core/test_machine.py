"""What the machine says about itself, and what glibc does with freed memory."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from dense_perception.core import machine

X86 = """\
processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: A Processor 9000
flags\t\t: sse2 avx2 avx

processor\t: 1
model name\t: Another
"""
BOARD = """\
processor\t: 0
Features\t: fp asimd
CPU part\t: 0xd42

processor\t: 1
Features\t: fp

Hardware\t: none
Model\t\t: A Board Rev 2
"""
NAMELESS = "processor\t: 0\nFeatures\t: asimd\n\n"


@pytest.fixture(autouse=True)
def unread() -> Iterator[None]:
    machine.cpu_info.cache_clear()
    yield
    machine.cpu_info.cache_clear()


@pytest.mark.parametrize(
    ("text", "model", "flags"),
    [
        (X86, "A Processor 9000", ("avx", "avx2", "sse2")),
        (BOARD, "A Board Rev 2", ("asimd", "fp")),
    ],
)
def test_processors_of_both_kinds(
    text: str, model: str, flags: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    assert (machine.cpu_model(), machine.cpu_flags()) == (model, flags)
    digest = hashlib.sha256(" ".join(flags).encode()).hexdigest()[:8]
    cores = len(os.sched_getaffinity(0))
    assert machine.cpu_with_features() == f"{model} x{cores}, features {digest}"


def test_a_processor_without_a_name_is_called_by_its_architecture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(NAMELESS)
    for path in (tmp_path / "cpuinfo", tmp_path / "absent"):
        machine.cpu_info.cache_clear()
        monkeypatch.setattr(machine, "_CPUINFO", path)
        assert machine.cpu_model() in (platform.processor(), platform.machine())


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="not Linux")
def test_this_machine() -> None:
    text = Path("/proc/cpuinfo").read_text()
    assert all(f"{value}\n" in text for value in machine.cpu_info().values() if value)
    assert machine.cpu_model() in machine.cpu_name()


@pytest.mark.parametrize("settings", ["", "activations=True"])
def test_freed_memory_is_kept_unless_the_environment_says_otherwise(settings: str) -> None:
    code = f"""
from dense_perception.core.machine import keep_freed_memory
print(keep_freed_memory({settings}))
"""
    plain = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    for extra, expected in [({}, "True"), ({"MALLOC_TRIM_THRESHOLD_": "1"}, "False")]:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**plain, **extra},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == expected


class Unreachable:
    """Refers to itself, so that only the collector frees it."""

    def __init__(self) -> None:
        self.itself = self


def test_freed_memory_is_returned_after_unreachable_objects_are_found() -> None:
    ghost = weakref.ref(Unreachable())
    machine.return_freed_memory(collect=False)
    assert ghost() is not None
    machine.return_freed_memory()
    assert ghost() is None


def test_freed_memory_stays_where_the_c_library_has_no_malloc_trim(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def library(name: object) -> object:
        asked.append(name)
        return object()  # as musl: without malloc_trim

    monkeypatch.setattr(machine.ctypes, "CDLL", library)
    machine.return_freed_memory(collect=False)
    assert asked == [None]
