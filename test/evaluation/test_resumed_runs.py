"""Scores do not depend on who computes them, how many do, and how often they are stopped."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dense_perception.core.prediction import DepthMap
from dense_perception.evaluation import contestants, parts, run, workers
from dense_perception.evaluation.request import Request, evaluate
from dense_perception.evaluation.sources import name_sources
from dense_perception.evaluation.truth import TruthOptions
from test.support.walks import COUNT, OTHER, RUN, STEP_NS, replaced, walk

pytestmark = pytest.mark.usefixtures("own_cache")


def lines(folder: Path) -> dict[str, list[str]]:
    """The scores of a run by file, without what was measured."""
    return {
        str(path.relative_to(folder)): path.read_text().splitlines()[:-1]
        for path in sorted(folder.rglob("*.jsonl"))
    }


def judged(report: Any) -> dict[str, Any]:
    """A report without when it was made and what it cost."""
    free = ("created", "command", "contestants", "frames_shown")
    return {key: value for key, value in report.items() if key not in free}


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_steps_that_overlap_change_nothing(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, storage: str
) -> None:
    monkeypatch.setattr(parts, "TIMED", 3)
    bag = walk(tmp_path / "bag", storage=storage, other=1.1, unanswered=5)
    entries = [contestants.resolve(text, RUN) for text in (model, f"topic:{OTHER}")]
    options = TruthOptions(recorded=(OTHER,))
    plan = run.make_plan(name_sources([str(bag)]), entries, options, {})
    (source,) = plan.sources
    found: dict[bool, list[list[str]]] = {}
    times: dict[bool, list[int]] = {}
    for overlaps in (False, True):
        opened = parts.Opened()
        texts = [
            parts.answer_part(
                parts.Job(
                    source.source, options, part, plan.entries, source.protocol, overlaps=overlaps
                ),
                opened,
            )
            for part in source.parts
        ]
        opened.close()
        found[overlaps] = [t.splitlines()[:-1] for each in texts for t in each.values()]
        ends = [json.loads(each[plan.entries[0].name].splitlines()[-1])["part"] for each in texts]
        times[overlaps] = [len(end["ms"]) for end in ends]
    assert found[True] == found[False]
    assert sum(map(len, found[True])) == 3 * COUNT + COUNT - 5
    # Only times of frames that had the machine to themselves count.
    assert (sum(times[False]), times[True]) == (COUNT, [3, 0, 0])


def test_workers_and_interruptions_change_nothing(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = (str(walk(tmp_path / "one")), str(walk(tmp_path / "two", 1, truth=1.2)))
    request = Request((model,), sources, RUN)
    whole = evaluate(replaced(request, out=tmp_path / "a")).report
    parallel = evaluate(replaced(request, out=tmp_path / "b", workers=2)).report
    assert judged(parallel) == judged(whole)
    assert lines(tmp_path / "b") == lines(tmp_path / "a")

    def stopping(jobs: Any, workers: Any) -> Any:
        for number, each in enumerate(run_jobs(jobs, workers)):
            if number == 2:
                raise KeyboardInterrupt
            yield each

    run_jobs = run.run_jobs
    monkeypatch.setattr(run, "run_jobs", stopping)
    with pytest.raises(KeyboardInterrupt):
        evaluate(replaced(request, out=tmp_path / "c"))
    begun = lines(tmp_path / "c")
    assert 0 < len(begun) < len(lines(tmp_path / "a"))
    done: list[Any] = []

    def counting(jobs: Any, workers: Any) -> Any:
        done.extend(jobs)
        return run_jobs(jobs, workers)

    monkeypatch.setattr(run, "run_jobs", counting)
    resumed = evaluate(replaced(request, out=tmp_path / "c")).report
    assert judged(resumed) == judged(whole)
    assert len(done) == 6 - 2
    # Nothing is left to do: the same report from what is there.
    assert judged(evaluate(replaced(request, out=tmp_path / "c")).report) == judged(whole)
    assert len(done) == 6 - 2


def without_cost(path: Path) -> str:
    """A report's text without when it was made, by which command, and what it cost."""
    report = json.loads(path.read_text())
    for row in report["contestants"]:
        row["latency_ms"] = row["memory_mb"] = None
    return json.dumps({**report, "created": "", "command": []}, indent=1)


def test_ray_gives_the_same_bytes(tmp_path: Path, model: str) -> None:
    """CI lacks Ray, which takes 240 MB: docs/experiments/evaluation.md has the command."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")
    sources = (str(walk(tmp_path / "one")), str(walk(tmp_path / "two", 1, truth=1.2)))
    request = Request((model,), sources, RUN)
    evaluate(replaced(request, out=tmp_path / "here"))
    evaluate(replaced(request, out=tmp_path / "ray", workers=2, ray="local"))
    assert lines(tmp_path / "ray") == lines(tmp_path / "here")
    here, there = (without_cost(tmp_path / name / "report.json") for name in ("here", "ray"))
    assert there == here
    assert (tmp_path / "ray/frames.csv").read_bytes() == (tmp_path / "here/frames.csv").read_bytes()


class _Deadly:
    """Ends the process that is given one of the ``deadly`` keys."""

    def __init__(self, deadly: set[str]) -> None:
        self._deadly = deadly

    def answer(self, truth: Any) -> Any:
        if truth.key in self._deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return contestants.Answer(DepthMap(np.ones((48, 64), np.float32)))

    def close(self) -> None:
        return


def _deadly_job(job: Any) -> Any:
    opened = workers.Opened()
    opened.contestant = lambda entry: _Deadly({str(9 * STEP_NS)})  # type: ignore[method-assign]
    return workers._answered(job, opened)


def test_a_part_that_ends_its_worker_is_named_and_the_others_are_scored(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bag, out = walk(tmp_path / "bag"), tmp_path / "out"
    request = Request((model,), (str(bag),), RUN, out=out, workers=2)
    with monkeypatch.context() as patched:
        patched.setattr(workers, "_job", _deadly_job)
        report = evaluate(request).report
    assert report["data"][0]["scored"] == COUNT - 6
    (problem,) = report["problems"]
    assert "bag: part 1 from" in problem
    assert "is not scored: its worker was ended by the system" in problem
    assert problem.endswith(" frames)")
    # The next run does what is missing, and nothing else is beside it.
    done = evaluate(request)
    assert done.report["data"][0]["scored"] == COUNT
    assert (done.report["problems"], done.notes) == ([], ())
    latency = done.report["contestants"][0]["latency_ms"]
    assert latency is not None
    assert latency["workers"] == 1  # but one part was missing
