"""Ctrl-C: code 130 for every command, also while a model's graph never comes to an end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from dense_perception import cli
from dense_perception.commands.verbs import VERBS, Verb
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


def modules(verbs: dict[str, Verb] = VERBS, before: str = "") -> Iterator[tuple[str, str]]:  # type: ignore[assignment]
    for name, verb in verbs.items():
        if verb.module:
            yield f"{before}{name}", verb.module
        yield from modules(dict(verb.kinds), f"{before}{name} ")


@pytest.mark.parametrize(
    ("words", "name"), list(modules()), ids=lambda value: str(value).split(".")[-1]
)
@pytest.mark.parametrize("error", [KeyboardInterrupt, ImportError, RuntimeError])
def test_every_command_that_is_interrupted_ends_with_130(
    words: str,
    name: str,
    error: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also where a compiled module makes another error of it, as some do while they are loaded."""

    def interrupted(_: object) -> int:
        try:
            signal.raise_signal(signal.SIGINT)
            time.sleep(1)
        except KeyboardInterrupt as interrupt:
            if error is KeyboardInterrupt:
                raise
            raise error("numpy failed to load") from interrupt
        return 0

    module: ModuleType = import_module(name)
    monkeypatch.setattr(module, "add_arguments", lambda _: None)
    monkeypatch.setattr(module, "main", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert cli.main(words.split()) == 130
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "interrupted\n"
