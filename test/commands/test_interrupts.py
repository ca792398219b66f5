"""Ctrl-C: code 130 for every command, also while a model's graph never comes to an end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from test.support.endless import write_endless_artefact
from test.support.run_command import picture, save

LONGEST_S = 6.0


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("endless")
    write_endless_artefact(folder / "endless.onnx")
    save(folder / "picture.png", picture(1))
    return folder


@contextmanager
def running(*words: str) -> Iterator[subprocess.Popen[str]]:
    """A command that is killed in the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dense_perception.cli", *words],
        stderr=subprocess.PIPE,
        text=True,
        # A job in the background ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for_graph(process: subprocess.Popen[str]) -> None:
    """Until the runtime's library is loaded, and some time more."""
    deadline = time.monotonic() + 60
    while "onnxruntime" not in Path(f"/proc/{process.pid}/maps").read_text():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.05)
    used = os.sysconf("SC_CLK_TCK")
    begin = _ticks(process.pid)
    while _ticks(process.pid) < begin + 1.5 * used:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("verb", ["run", "benchmark"])
def test_a_model_that_never_ends_is_stopped_by_a_signal(
    verb: str, number: signal.Signals, endless: Path, tmp_path: Path
) -> None:
    model = str(endless / "endless.onnx")
    options = ["--backend", "onnxruntime", "--threads", "1"]
    words = ["benchmark", "model", model, *options]
    if verb == "run":
        files = ["--input", str(endless / "picture.png"), "--output", str(tmp_path / "out")]
        words = ["run", model, *files, *options]
    with running(*words) as process:
        wait_for_graph(process)
        begin = time.monotonic()
        process.send_signal(number)
        code = process.wait(30)
        assert time.monotonic() - begin < LONGEST_S
        assert code == (130 if number == signal.SIGINT else -signal.SIGTERM)
        assert "Traceback" not in (process.stderr.read() if process.stderr else "")


# In a process of its own: what other tests have loaded must not be interrupted.
EVERY_COMMAND = """
import contextlib, io, json, signal, sys, time
from importlib import import_module
from dense_perception import cli
from dense_perception.commands.verbs import VERBS

def modules(verbs, before=""):
    for name, verb in verbs.items():
        if verb.module:
            yield before + name, verb.module
        yield from modules(dict(verb.kinds), before + name + " ")

def interrupted(error):
    def main(options):
        try:
            signal.raise_signal(signal.SIGINT)
            time.sleep(1)
        except KeyboardInterrupt as interrupt:
            if error is KeyboardInterrupt:
                raise
            raise error("numpy failed to load") from interrupt
        return 0
    return main

signal.signal(signal.SIGINT, signal.default_int_handler)
found = {}
for words, name in modules(VERBS):
    module = import_module(name)
    module.add_arguments = lambda parser: None
    for error in (KeyboardInterrupt, ImportError, RuntimeError):
        module.main = interrupted(error)
        with contextlib.redirect_stderr(io.StringIO()) as text:
            code = cli.main(words.split())
        default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        found[f"{words}, {error.__name__}"] = [code, text.getvalue(), default]
print(json.dumps(found))
"""


def test_every_command_that_is_interrupted_ends_with_130() -> None:
    """Also where a compiled module makes another error of it, as some do while they are loaded."""
    done = subprocess.run(
        [sys.executable, "-c", EVERY_COMMAND], check=True, capture_output=True, text=True
    )
    found = json.loads(done.stdout)
    assert len(found) > 3 * 12
    assert {
        case: what for case, what in found.items() if what != [130, "interrupted\n", True]
    } == {}
