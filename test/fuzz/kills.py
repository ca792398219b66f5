"""SIGKILL at random moments: the next run recovers, nothing half-written has a final name.

Every command is tried on tiny inputs. It is killed again and again on what the killed ones before
it left, and runs to its end after every few kills: all that a run without kills leaves must be
there then, whole, and nothing else.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from tqdm import tqdm

from test.support import artefacts, bags, corpora, models

UNKILLED_AFTER = 5  # kills
_LONGEST_S = 600.0
_FRAMES = 12
_WEIGHTS = 4 << 20


@dataclass(frozen=True)
class Scenario:
    """A command line that writes to ``out``; ``environment`` is added to the variables."""

    words: tuple[str, ...]
    out: Path
    environment: dict[str, str] = field(default_factory=dict)
    changing: tuple[str, ...] = ()
    """Parts of names that differ from run to run, such as files of a cache."""


@dataclass
class KillReport:
    """``whole_s``: how long an unkilled run takes; ``problems``: promises that were broken."""

    verb: str
    seed: int
    kills: int = 0
    completed: int = 0
    whole_s: float = 0.0
    problems: list[str] = field(default_factory=list)


def kill_all(
    verbs: list[str], *, kills: int = 20, seed: int = 1, quiet: bool = True
) -> list[KillReport]:
    """Every verb of :data:`VERBS` asked for."""
    reports = []
    for verb in verbs:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kills_")))
            scenario = stack.enter_context(VERBS[verb](folder))
            bar = stack.enter_context(tqdm(total=kills, unit="kill", desc=verb, disable=quiet))
            reports.append(_kill(verb, scenario, kills, seed, bar))
    return reports


def _kill(verb: str, scenario: Scenario, kills: int, seed: int, bar: Any) -> KillReport:
    report = KillReport(verb, seed)
    rng = random.Random(f"{verb} {seed}")
    begin = time.monotonic()
    _run_whole(scenario, report, "the first run")
    report.whole_s = time.monotonic() - begin
    expected = _names(scenario)
    if report.problems:
        return report
    _remove(scenario.out)
    span_s = report.whole_s
    while report.kills < kills:
        begin = time.monotonic()
        if _run_killed(scenario, rng.uniform(0.02, 1.0) * span_s):
            report.kills += 1
            bar.update()
        else:  # on a machine that has less to do by now
            span_s = time.monotonic() - begin
            report.completed += 1
        report.problems += _damaged(scenario)
        if report.kills % UNKILLED_AFTER == 0 or report.problems:
            time.sleep(2.5)  # younger leftovers may belong to a command that has just begun
            what = f"the run after {report.kills} kills"
            _run_whole(scenario, report, what)
            found = _names(scenario)
            for name in sorted(expected ^ found):
                report.problems.append(
                    f"{what}: {name} is {'left over' if name in found else 'missing'}"
                )
            report.problems += _damaged(scenario)
            if report.problems:
                break
            _remove(scenario.out)
    return report


def _command(scenario: Scenario) -> tuple[list[str], dict[str, str]]:
    words = [sys.executable, "-m", "dense_perception.cli", *scenario.words]
    return words, {**os.environ, **scenario.environment, "OMP_NUM_THREADS": "1"}


def _run_whole(scenario: Scenario, report: KillReport, what: str) -> None:
    words, variables = _command(scenario)
    done = subprocess.run(
        words, env=variables, capture_output=True, text=True, timeout=_LONGEST_S, check=False
    )
    if done.returncode != 0 or "Traceback" in done.stderr:
        report.problems.append(f"{what} gave {done.returncode}: {done.stderr[-500:]}")


def _run_killed(scenario: Scenario, after_s: float) -> bool:
    """Whether it was killed; false if it had ended before. Its children must end by themselves."""
    words, variables = _command(scenario)
    process = subprocess.Popen(
        words,
        env=variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.wait(after_s)
        return False
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 10.0
    while orphans := _session(process.pid):
        if time.monotonic() > deadline:
            for pid in orphans:
                os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"{scenario.words[0]} left {len(orphans)} processes running")
        time.sleep(0.05)
    return True


def _session(number: int) -> list[int]:
    """The processes of a session that live."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == number and fields[0] != "Z":
                    found.append(int(entry.name))
    return found


def _names(scenario: Scenario) -> set[str]:
    """Everything below the output folder; parts that change from run to run are left out."""
    names = set()
    for path in scenario.out.rglob("*"):
        name = str(path.relative_to(scenario.out))
        if not any(part in name for part in scenario.changing):
            names.add(name)
    return names


def _damaged(scenario: Scenario) -> list[str]:
    """Files under final names that cannot be read."""
    problems = []
    for path in sorted(scenario.out.rglob("*")):
        hidden = any(p.startswith(".") for p in path.relative_to(scenario.out).parts)
        check = READERS.get(path.suffix)
        if path.is_file() and check is not None and not hidden:
            try:
                check(path)
            except Exception as error:  # each library has its own
                problems.append(f"{path.relative_to(scenario.out)} is half written: {error}")
    return problems


def _remove(path: Path) -> None:
    """The next kills begin without earlier answers, as most users do."""
    import shutil

    shutil.rmtree(path, ignore_errors=True)


def _image(path: Path) -> None:
    assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED) is not None


def _onnx(path: Path) -> None:
    import onnx

    onnx.checker.check_model(str(path))


def _checkpoint(path: Path) -> None:
    import torch

    torch.load(path, map_location="cpu", weights_only=False)


def _bag(path: Path) -> None:
    from dense_perception.media.bag_reader import BagReader

    with BagReader(path.parent) as bag:
        assert sum(1 for _ in bag.messages()) > 0
        assert not bag.problems, bag.problems


def _weights(path: Path) -> None:
    assert path.stat().st_size == _WEIGHTS


READERS: dict[str, Callable[[Path], Any]] = {
    ".png": _image,
    ".jpg": _image,
    ".npy": np.load,
    ".json": lambda path: json.loads(path.read_text()),
    ".yaml": lambda path: yaml.safe_load(path.read_text()),
    ".onnx": _onnx,
    ".pt": _checkpoint,
    ".mcap": _bag,
    ".pth": _weights,
}


def _model(folder: Path) -> str:
    artefacts.write_red_artefact(folder / "red.onnx")
    return str(folder / "red.onnx")


_FAST = ("--backend", "onnxruntime", "--threads", "1", "--quiet", "--overwrite")


@contextmanager
def _of_run(folder: Path) -> Iterator[Scenario]:
    pictures = folder / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for number in range(_FRAMES):
        cv2.imwrite(str(pictures / f"{number}.png"), rng.integers(0, 256, (480, 640, 3), np.uint8))
    out = folder / "out"
    words = ("run", _model(folder), "--input", str(pictures), "--output", str(out), "--ply")
    yield Scenario((*words, *_FAST), out)


@contextmanager
def _of_run_bag(folder: Path) -> Iterator[Scenario]:
    recording = bags.write_bag(folder / "recording", bags.picture_messages(_FRAMES, 640, 480))
    out = folder / "out"
    words = ("run", _model(folder), "--input", str(recording), "--output", str(out), "--bag")
    yield Scenario((*words, *_FAST), out)


def _configuration(folder: Path, steps: int) -> tuple[str, ...]:
    """``train`` of a tiny network on a tiny corpus, saving all the time."""
    small = {"features": 16, "head_features": [8, 8], "dim": 32, "depth": 1, "heads": 2}
    config = {
        "name": "tiny_kills",
        "summary": "A test.",
        "network": {**models.default_network(), **small, "width": 64, "height": 64},
        "width": 64,
        "height": 64,
        "steps": steps,
        "save_minutes": 0.002,
        "validate_minutes": 0.01,
        "stages": [{"until": 1.0, "width": 64, "height": 64, "batch": 4}],
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    corpus = corpora.write_corpus(folder / "rooms", frames=12)
    words = ("train", str(folder / "config.yaml"), "--data", str(corpus), "--validation")
    return (*words, str(corpus), "--validation-frames", "4", "--threads", "1", "--json")


@contextmanager
def _of_train(folder: Path) -> Iterator[Scenario]:
    out = folder / "out"
    yield Scenario((*_configuration(folder, 30), "--out", str(out), "--resume"), out)


@contextmanager
def _of_export(folder: Path) -> Iterator[Scenario]:
    trained = Scenario((*_configuration(folder, 2), "--out", str(folder / "run")), folder / "run")
    words, variables = _command(trained)
    subprocess.run(words, env=variables, capture_output=True, check=True)
    out = folder / "out"
    model = str(folder / "run" / "model.pt")
    yield Scenario(("export", model, "--output", str(out), "--overwrite", "--quiet"), out)


@contextmanager
def _of_compile(folder: Path) -> Iterator[Scenario]:
    out = folder / "cache"
    words = ("compile", _model(folder), "--backend", "openvino", "--device", "cpu")
    # A check of another moment has another time in it, and its name is a digest.
    yield Scenario(words, out, {"XDG_CACHE_HOME": str(out)})


@contextmanager
def _of_fetch(folder: Path) -> Iterator[Scenario]:
    """From a server that is slow enough to be interrupted."""
    content = np.random.default_rng(0).bytes(_WEIGHTS)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            start = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0])
            self.send_response(206 if start else 200)
            self.send_header("ETag", '"one"')
            if start:
                self.send_header("Content-Range", f"bytes {start}-{_WEIGHTS - 1}/{_WEIGHTS}")
            self.send_header("Content-Length", str(_WEIGHTS - start))
            self.end_headers()
            with contextlib.suppress(OSError):
                for place in range(start, _WEIGHTS, 1 << 17):
                    self.wfile.write(content[place : place + (1 << 17)])
                    time.sleep(0.02)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    name = "dpt_large_midas"
    card = yaml.safe_load(
        (Path(__file__).parents[2] / "models" / f"{name}.yaml").read_text(encoding="utf-8")
    )
    card["source"] = {
        "url": f"http://127.0.0.1:{server.server_address[1]}/weights.pth",
        "file": "weights.pth",
    }
    (folder / "models").mkdir()
    (folder / "models" / f"{name}.yaml").write_text(yaml.safe_dump(card))
    out = folder / "cache"
    variables = {
        "XDG_CACHE_HOME": str(out),
        "DENSE_PERCEPTION_MODELS": str(folder / "models"),
        "DENSE_PERCEPTION_MIRROR": "",
    }
    try:
        yield Scenario(("fetch", name, "--json"), out, variables)
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def _of_synthesize(folder: Path) -> Iterator[Scenario]:
    out = folder / "out"
    words = ("data", "synthesize", "doom", "--frames", "4", "--size", "64x48", "--workers", "2")
    yield Scenario((*words, "--out", str(out)), out)


VERBS: dict[str, Callable[[Path], contextlib.AbstractContextManager[Scenario]]] = {
    "run": _of_run,
    "run-bag": _of_run_bag,
    "train": _of_train,
    "export": _of_export,
    "compile": _of_compile,
    "fetch": _of_fetch,
    "synthesize": _of_synthesize,
}


def table_of_kills(reports: list[KillReport]) -> str:
    """A line for each command, then what was broken."""
    lines = [f"{'command':<12}{'seed':>5}{'kills':>7}{'whole run':>11}{'broken':>8}"]
    for report in reports:
        lines.append(
            f"{report.verb:<12}{report.seed:>5}{report.kills:>7}{report.whole_s:>9.1f} s"
            f"{len(report.problems):>8}"
        )
    return "\n".join(
        [*lines, *(f"{report.verb}: {text}" for report in reports for text in report.problems)]
    )
