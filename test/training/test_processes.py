"""A run in several processes, and one that is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dense_perception.core.errors import TrainingError
from dense_perception.training import loop, run_folder
from dense_perception.training.batches import Division
from dense_perception.training.loop import fit
from test.support.corpora import write_corpus
from test.support.threads import one_thread
from test.training.small_run import task

TIMES = ("minutes", "waiting", "memory_mb")


def start(corpus: Path, out: Path, processes: int, steps: int) -> subprocess.Popen[bytes]:
    words = ["-m", "test.training.small_run", str(corpus), str(out), str(processes), str(steps)]
    return subprocess.Popen([sys.executable, *words])


def run(corpus: Path, out: Path, processes: int, steps: int) -> None:
    """Once more if it hangs: the port that the processes meet at may be taken by another test."""
    for _ in range(2):
        words = ["-m", "test.training.small_run", str(corpus), str(out), str(processes), str(steps)]
        child = subprocess.Popen([sys.executable, *words], start_new_session=True)
        try:
            assert child.wait(timeout=120) == 0
            return
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            shutil.rmtree(out, ignore_errors=True)
    pytest.fail("the run hung twice")


def weights(out: Path) -> dict[str, torch.Tensor]:
    state = run_folder.read(out / run_folder.STATE_FILE).content
    found: dict[str, torch.Tensor] = state["resume"]["weights"]
    return found


def curve(out: Path) -> list[dict[str, float]]:
    records = [json.loads(line) for line in (out / run_folder.LOG_FILE).open()]
    return [{k: v for k, v in record.items() if k not in TIMES} for record in records]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("data") / "rooms", frames=16)


@pytest.fixture
def every_step_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_LOG_EVERY", 1)


@pytest.mark.slow
@pytest.mark.usefixtures("every_step_logged")
def test_two_processes_equal_one_with_all_frames(corpus: Path, tmp_path: Path) -> None:
    run(corpus, tmp_path / "two", 2, 10)
    with one_thread():
        fit(task(corpus, tmp_path / "one", 10))
    one_weights, two_weights = weights(tmp_path / "one"), weights(tmp_path / "two")
    for key, value in one_weights.items():
        torch.testing.assert_close(two_weights[key], value, rtol=1e-6, atol=1e-6)
    moved = [record["loss"] for record in curve(tmp_path / "one") if record["kind"] == "train"]
    assert moved[-1] < 0.9 * moved[0]


@pytest.mark.slow
@pytest.mark.usefixtures("every_step_logged")
def test_a_killed_run_goes_on_with_the_same_curve(corpus: Path, tmp_path: Path) -> None:
    cut = start(corpus, tmp_path / "cut", 1, 12)
    log = tmp_path / "cut" / run_folder.LOG_FILE
    deadline = time.monotonic() + 300
    while not (log.exists() and len(log.read_bytes().splitlines()) >= 4):
        assert time.monotonic() < deadline
        assert cut.poll() is None
        time.sleep(0.01)
    cut.send_signal(signal.SIGKILL)
    cut.wait()
    with log.open("a") as file:
        file.write('{"kind": "tra')  # as a kill within a write leaves it
    with one_thread():
        fit(task(corpus, tmp_path / "whole", 12))
        fit(task(corpus, tmp_path / "cut", 12, resume=True))
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole")
    for key, value in weights(tmp_path / "whole").items():
        assert torch.equal(weights(tmp_path / "cut")[key], value), key


def test_the_parts_of_a_step_cover_it_once() -> None:
    divisions = [Division(rank, 3, 2) for rank in range(3)]
    starts = [start for each in divisions for start in each.positions(24, 12)]
    covered = [frame for start in starts for frame in range(start, start + 2)]
    assert sorted(covered) == list(range(24, 36))
    with pytest.raises(TrainingError, match=r"13 frames .* 3 processes .* multiple of 6"):
        divisions[0].size(13)
