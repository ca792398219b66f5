"""The loop that fills a corpus."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import InputError, TrainingError
from dense_perception.data.corpus import Corpus
from dense_perception.data.sample import Sample
from dense_perception.data.shards import shard_path
from dense_perception.synthetic import generate
from test.support.processes import is_running


def sample(value: int, width: int = 8, height: int = 6) -> Sample:
    rng = np.random.default_rng(value)
    return Sample(
        rng.integers(0, 256, (height, width, 3)).astype(np.uint8),
        rng.uniform(0.5, 9, (height, width)).astype(np.float32),
        Intrinsics(width, height, 7.5, 7.5, 3.5, 2.5),
        rng.integers(0, 5, (height, width)).astype(np.uint8),
        value,
        np.arange(7, dtype=np.float32),
    )


@dataclass(frozen=True)
class Numbers:
    """A generator of noise that also keeps count of its calls on disk."""

    log: Path
    flavour: str = "plain"
    name = "numbers"
    classes = ("void", "thing", "b", "c", "d")
    frames_per_shard = 4

    def settings(self) -> dict[str, Any]:
        return {"flavour": self.flavour}

    def assets(self) -> list[dict[str, str]]:
        return [{"name": "noise", "licence": "CC0-1.0", "source": "here"}]

    def make_shard(
        self, seed: int, index: int, frames: int, width: int, height: int
    ) -> list[Sample]:
        with self.log.open("a") as file:
            file.write(f"{index}\n")
        if self.flavour == "fatal" and index == 1:
            import os

            os._exit(3)
        if self.flavour == "slow":
            import time

            time.sleep(60)
        if self.flavour == "wrong" and index == 1:
            raise InputError("shard 1 is wrong")
        return [sample(1000 * seed + 10 * index + k, width, height) for k in range(frames)]

    def calls(self) -> list[int]:
        return sorted(int(line) for line in self.log.read_text().split())


def read(corpus: Path) -> dict[str, np.ndarray]:
    frames = Corpus(corpus)
    samples = [frames[index] for index in range(len(frames))]
    return {
        "rgb": np.stack([each.rgb_hwc for each in samples]),
        "scene": np.array([each.scene for each in samples]),
    }


def test_a_corpus_is_whole_and_described(tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    generate.corpus(Numbers(tmp_path / "log"), out, 10, (8, 6), 5, command="make it")
    held = read(out)
    assert held["rgb"].shape == (10, 6, 8, 3)
    description = Corpus(out).description
    expected = {"schema": 2, "name": "corpus", "generator": "numbers", "width": 8, "height": 6}
    assert expected.items() <= description.items()
    assert description["frames"] == 10
    assert description["classes"] == ["void", "thing", "b", "c", "d"]
    assert description["assets"][0]["licence"] == "CC0-1.0"
    assert description["command"] == "make it"


def test_going_on_keeps_finished_shards(tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    maker = Numbers(tmp_path / "log")
    generate.corpus(maker, out, 12, (8, 6), 5)
    before = read(out)["rgb"]
    shard_path(out, 1).unlink()
    maker.log.write_text("")
    generate.corpus(maker, out, 12, (8, 6), 5)
    assert maker.calls() == [1]
    np.testing.assert_array_equal(read(out)["rgb"], before)
    assert not list(out.glob(".*"))


def test_a_corpus_can_grow(tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    maker = Numbers(tmp_path / "log")
    generate.corpus(maker, out, 6, (8, 6), 5)
    before = read(out)["scene"]
    maker.log.write_text("")
    generate.corpus(maker, out, 11, (8, 6), 5)
    assert maker.calls() == [1, 2], "the half shard is made again, the whole one is not"
    assert read(out)["scene"].tolist()[:6] == before.tolist()
    assert len(read(out)["scene"]) == 11


def test_workers_make_the_same_corpus(tmp_path: Path) -> None:
    alone, together = tmp_path / "one", tmp_path / "two"
    generate.corpus(Numbers(tmp_path / "log"), alone, 7, (8, 6), 5, workers=1)
    generate.corpus(Numbers(tmp_path / "log"), together, 7, (8, 6), 5, workers=2)
    np.testing.assert_array_equal(read(alone)["rgb"], read(together)["rgb"])


def test_other_settings_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    generate.corpus(Numbers(tmp_path / "log"), out, 4, (8, 6), 5)
    with pytest.raises(InputError, match=r"other settings \(seed\)"):
        generate.corpus(Numbers(tmp_path / "log"), out, 4, (8, 6), 6)
    with pytest.raises(InputError, match=r"other settings \(flavour\)"):
        generate.corpus(Numbers(tmp_path / "log", "sweet"), out, 4, (8, 6), 5)
    (out / "settings.json").write_text("{ half")
    with pytest.raises(InputError, match="other settings"):
        generate.corpus(Numbers(tmp_path / "log"), out, 4, (8, 6), 5)
    assert len(read(out)["scene"]) == 4, "what was written stays"


def test_an_error_in_a_worker_arrives_and_nothing_is_lost(tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    with pytest.raises(InputError, match="shard 1 is wrong"):
        generate.corpus(Numbers(tmp_path / "log", "wrong"), out, 8, (8, 6), 5)
    assert shard_path(out, 0).exists()
    assert not (out / "corpus.json").exists()


def test_a_dying_worker_is_reported(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="run the same command again"):
        generate.corpus(
            Numbers(tmp_path / "log", "fatal"), tmp_path / "corpus", 8, (8, 6), 5, workers=2
        )


@pytest.mark.parametrize(
    ("frames", "expected"), [(1, [1]), (4, [4]), (5, [4, 1]), (8, [4, 4]), (11, [4, 4, 3])]
)
def test_shard_sizes(frames: int, expected: list[int]) -> None:
    assert generate.shard_sizes(frames, 4) == expected


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_a_killed_parent(how: signal.Signals, tmp_path: Path) -> None:
    """A job takes a minute; nobody waits for it."""
    log = tmp_path / "log"
    script = (
        "from pathlib import Path\n"
        "from dense_perception.synthetic import generate\n"
        "from test.synthetic.test_generate import Numbers\n"
        "if __name__ == '__main__':\n"
        f"    slow = Numbers(Path({str(log)!r}), 'slow')\n"
        f"    generate.corpus(slow, Path({str(tmp_path / 'corpus')!r}), 8, (8, 6), 5, workers=2)\n"
    )
    (tmp_path / "run.py").write_text(script)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "run.py")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        stderr=subprocess.DEVNULL,
        # A background job of a shell ignores SIGINT, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        _wait(lambda: log.exists() and len(log.read_text().split()) == 2)
        children = _children(parent.pid)
        assert len(children) >= 2
        parent.send_signal(how)
        parent.wait(30)
        _wait(lambda: not any(is_running(pid) for pid in children))
    finally:
        parent.kill()
        parent.wait(10)


def _wait(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
