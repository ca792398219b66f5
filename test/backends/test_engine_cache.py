"""Engines on disk: damaged, foreign, half-written, wanted twice at once."""

from __future__ import annotations

import multiprocessing
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dense_perception.backends.engine_cache import (
    UNUSED_DAYS,
    Engine,
    EngineKey,
    engines_dir,
    find_engine,
    obtain_engine,
    remember_check,
    remembered_check,
    store_engine,
    stored_keys,
)
from dense_perception.core.difference import Difference

KEY = EngineKey(
    graph="a" * 64,
    runtime="tensorrt",
    version="10.3",
    device="Orin, 8.7, driver 12.6",
    precision="fp16",
    profile="batch 1..1",
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def never() -> bytes:
    raise AssertionError("built although it was there")


def test_built_once_then_found() -> None:
    first = obtain_engine(KEY, lambda: b"engine")
    assert (first.payload, first.built, first.problem) == (b"engine", True, "")
    second = obtain_engine(KEY, never)
    assert (second.payload, second.built) == (b"engine", False)
    assert first.identity == second.identity
    assert list(stored_keys()) == [KEY]


@pytest.mark.parametrize(
    "change",
    [
        {"graph": "b" * 64},
        {"version": "10.4"},
        {"device": "Orin, 8.7, driver 13.0"},
        {"precision": "int8"},
        {"profile": "batch 1..4"},
        {"options": "dla 0"},
    ],
)
def test_anything_that_changed_builds_anew_and_is_named(change: dict[str, str]) -> None:
    obtain_engine(KEY, lambda: b"old")
    wanted = replace(KEY, **change)
    engine = obtain_engine(wanted, lambda: b"new")
    assert (engine.payload, engine.built) == (b"new", True)
    if "graph" not in change:
        ((name, value),) = change.items()
        assert name in engine.reason
        assert value in engine.reason
    assert obtain_engine(KEY, never).payload == b"old"


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "no header", "other header", "longer"])
def test_damaged_bytes_are_never_used(damage: str) -> None:
    obtain_engine(KEY, lambda: bytes(range(256)) * 4)
    whole = KEY.path.read_bytes()
    flipped = bytearray(whole)
    flipped[-100] ^= 4
    KEY.path.write_bytes(
        {
            "flip": bytes(flipped),
            "cut": whole[:-1],
            "empty": b"",
            "no header": whole[5:],
            "other header": b'["a"]\n' + whole,
            "longer": whole + b"x",
        }[damage]
    )
    problem = find_engine(KEY)
    assert isinstance(problem, str)
    assert "damaged" in problem
    engine = obtain_engine(KEY, lambda: b"rebuilt")
    assert (engine.payload, engine.built) == (b"rebuilt", True)
    assert "damaged" in engine.reason
    assert obtain_engine(KEY, never).payload == b"rebuilt"


def test_an_engine_of_another_device_under_this_name_is_refused() -> None:
    other = replace(KEY, device="RTX 4090, 8.9, driver 12.6")
    store_engine(other, b"theirs")
    os.replace(other.path, KEY.path)
    problem = find_engine(KEY)
    assert isinstance(problem, str)
    assert "RTX 4090" in problem
    assert obtain_engine(KEY, lambda: b"ours").payload == b"ours"


def test_a_folder_that_cannot_be_written_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    engine = obtain_engine(KEY, lambda: b"engine")
    assert engine.payload == b"engine"
    assert "not stored" in engine.problem
    assert not remember_check(engine.identity, "test", Difference(0.0, 0.0))
    assert remembered_check(engine.identity) is None


def test_a_full_disk_leaves_no_half_engine() -> None:
    """A limit on the size of files stands for the disk: the write fails half way."""
    code = (
        "import resource, signal\n"
        "from test.backends.test_engine_cache import KEY\n"
        "from dense_perception.backends.engine_cache import obtain_engine\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "engine = obtain_engine(KEY, lambda: bytes(1_000_000))\n"
        "assert len(engine.payload) == 1_000_000\n"
        "assert 'not stored' in engine.problem, engine.problem\n"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] != 0
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [path.suffix for path in engines_dir().iterdir()] == [".lock"]


def _build_slowly(log: str) -> None:
    def build() -> bytes:
        with open(log, "a") as stream:
            stream.write("built\n")
        time.sleep(0.3)
        return bytes(200_000)

    engine = obtain_engine(KEY, build)
    assert len(engine.payload) == 200_000


def test_two_processes_build_it_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_build_slowly, args=(str(log),)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert log.read_text() == "built\n"
    assert isinstance(find_engine(KEY), Engine)


def test_only_the_user_may_write_where_code_is_loaded_from() -> None:
    obtain_engine(KEY, lambda: b"engine")
    assert engines_dir().stat().st_mode & 0o077 == 0


def test_what_nobody_used_for_long_goes_when_another_engine_is_stored() -> None:
    old, used = replace(KEY, version="8.6"), replace(KEY, version="10.0")
    long_ago = time.time() - (UNUSED_DAYS + 1) * 86400
    for key in (old, used):
        store_engine(key, b"engine")
        os.utime(key.path, (long_ago, long_ago))
    remember_check("old", "test", Difference(0.0, 0.0))
    os.utime(engines_dir() / "old.check.json", (long_ago, long_ago))
    assert isinstance(find_engine(used), Engine)
    store_engine(KEY, b"engine")
    assert {key.version for key in stored_keys()} == {"10.0", "10.3"}
    assert remembered_check("old") is None


def test_engines_beyond_the_limit_go_in_the_order_of_their_last_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dense_perception.backends.engine_cache.MAX_GIGABYTES", 35e-6)
    keys = [replace(KEY, version=version) for version in ("1", "2", "3")]
    for age, key in zip((30, 20, 10), keys, strict=True):
        store_engine(key, bytes(10000))
        os.utime(key.path, (time.time() - age, time.time() - age))
    assert isinstance(find_engine(keys[0]), Engine)  # used just now: the second is the oldest
    store_engine(KEY, bytes(10000))
    assert {key.version for key in stored_keys()} == {"1", "3", KEY.version}
    huge = replace(KEY, version="huge")
    store_engine(huge, bytes(40000))
    assert [key.version for key in stored_keys()] == ["huge"]


@pytest.mark.parametrize("junk", ["", "[]", "{}", '{"max_of_range": 0.1}', '{"max_of_range": []}'])
def test_a_damaged_memory_of_a_check_is_none(junk: str) -> None:
    found = Difference(0.25, 0.125)
    assert remember_check("known", "a backend", found)
    assert remembered_check("known") == found
    (engines_dir() / "known.check.json").write_text(junk)
    assert remembered_check("known") is None


def test_an_engine_that_others_could_have_written_is_built_anew(tmp_path: Path) -> None:
    obtain_engine(KEY, lambda: b"engine")
    remember_check("identity", "x", Difference(0.0, 0.0))
    engines_dir().chmod(0o777)
    assert remembered_check("identity") is None
    assert list(stored_keys()) == []
    built = obtain_engine(KEY, lambda: b"mine")
    assert (built.payload, built.built) == (b"mine", True)
    assert "can be written by everybody" in built.reason
    assert "was not stored" in built.problem
    engines_dir().chmod(0o700)
    assert obtain_engine(KEY, never).payload == b"engine"
