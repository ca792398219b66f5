"""A node never waits for an engine: it answers, builds beside, and changes over."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import Image

from dense_perception.backends.engine_cache import EngineKey, store_engine
from dense_perception.backends.selection import MissingEngine
from dense_perception.core.onnx_file import OnnxFile
from dense_perception.ros import engine_building
from dense_perception.ros.engine_building import EngineBuilder
from dense_perception.ros.processes import ChildProcess
from test.support import slow_engine
from test.support.processes import is_running
from test.support.ros_probe import Probe, values_of, wait_until
from test.support.streaming import longest_gap_s, streaming

pytestmark = pytest.mark.ros

BUILD_S = float(os.environ.get("DENSE_PERCEPTION_BUILD_S", "4"))
LONGEST_GAP_S, LONGEST_START_S = 0.3, 3.0


def start(
    stack: ExitStack,
    folder: Path,
    environment: dict[str, str],
    engine: str,
    name: str = "depth_node",
    **parameters: object,
) -> ChildProcess:
    values = {"device": "gpu", "backend": "tensorrt", "threads": 1, "diagnostics_period_s": 0.1}
    arguments = ["--ros-args", "-r", f"__node:={name}"]
    for parameter, value in {**values, **parameters}.items():
        arguments += ["-p", f"{parameter}:={value}"]
    cache = folder / "cache"
    cache.mkdir(exist_ok=True)
    variables = {"DENSE_PERCEPTION_ENGINE": engine, "XDG_CACHE_HOME": str(cache)}
    node = stack.enter_context(
        ChildProcess(
            "test.support.slow_engine",
            arguments,
            log=folder / f"{name}.log",
            environment={**environment, **variables},
        )
    )
    node.wait_for_text("waiting for images")
    return node


def builder(node: ChildProcess) -> int:
    node.wait_for_text("building the engine of tensorrt/fp32 in process")
    found = re.search(r"in process (\d+)", node.log())
    assert found is not None
    return int(found[1])


def test_the_best_that_is_ready_answers_until_the_engine_is_built(
    ros_environment: dict[str, str],
    probe: Probe,
    tmp_path: Path,
    red_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The stored one is as long as its header says, and damaged, which is as none."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    key = slow_engine._key(OnnxFile.read(red_model))
    store_engine(key, b"an engine")
    key.path.write_bytes(key.path.read_bytes()[:-1] + b"x")
    with ExitStack() as stack:
        node = start(stack, tmp_path, ros_environment, f"{BUILD_S} good", model=red_model)
        active = time.monotonic()
        answers: list[float] = []
        reports: list[tuple[float, dict[str, str]]] = []
        probe.node.create_subscription(
            Image, "/depth_node/depth/image", lambda _: answers.append(time.monotonic()), 10
        )
        probe.node.create_subscription(
            DiagnosticArray,
            "/diagnostics",
            lambda message: reports.append((time.monotonic(), values_of(message))),
            10,
        )
        stack.enter_context(streaming(probe))
        wait_until(lambda: len(answers) > 20, "the stream to flow")
        flowing = time.monotonic()
        assert answers[0] - active < LONGEST_START_S
        assert "is damaged (its checksum is wrong); the node answers without it" in node.log()
        assert os.getpriority(os.PRIO_PROCESS, builder(node)) == 19
        changed_s = wait_until(
            lambda: next((t for t, each in reports if each["backend"].startswith("tensorrt")), 0.0),
            "the change-over",
            BUILD_S + 20,
        )
        time.sleep(1.0)
        end = time.monotonic()
        gap_s = longest_gap_s(answers, flowing, end)
        before_s = longest_gap_s(answers, flowing, changed_s - 2.0)
        print(f"\nfirst answer {answers[0] - active:.2f} s after activation")
        print(f"longest gap {before_s * 1e3:.0f} ms before, {gap_s * 1e3:.0f} with the change-over")
        assert gap_s < max(LONGEST_GAP_S, 2 * before_s)
        waiting = [each for t, each in reports if t < changed_s]
        assert {each["backend"].split()[0] for each in waiting} == {"onnxruntime"}
        assert any("tensorrt/fp32 for" in each["building an engine"] for each in waiting)
        assert any("tactics, step" in each["building an engine"] for each in waiting)
        assert reports[-1][1]["building an engine"] == ""
        assert "ERROR" not in node.log()


def test_a_killed_build_is_reported_and_not_tried_again(
    ros_environment: dict[str, str], probe: Probe, tmp_path: Path, red_model: Path
) -> None:
    with ExitStack() as stack:
        node = start(stack, tmp_path, ros_environment, "60 good", model=red_model)
        stack.enter_context(streaming(probe))
        os.kill(builder(node), signal.SIGKILL)
        node.wait_for_text("was not built: its process was ended by signal 9")
        said = probe.diagnostics().wait_for(lambda array: "signal 9" in array.status[0].message)
        assert "dense-perception compile" in said.status[0].message
        assert node.stop() == 0
        again = start(stack, tmp_path, ros_environment, "60 good", model=red_model)
        probe.diagnostics().wait_for(lambda array: "signal 9" in array.status[0].message)
        assert "building the engine" not in again.log()
        assert again.stop() == 0


@pytest.mark.parametrize(
    ("how", "said", "next_time"),
    [
        ("fails", "no kernel for node 7", "not tried again for this graph, runtime and GPU"),
        ("starts-not", "libnvinfer is missing: install it", "tries again when it is started"),
        ("wrong", "differ", ""),
    ],
)
def test_the_node_goes_on_without_a_failed_or_wrong_engine(
    how: str,
    said: str,
    next_time: str,
    ros_environment: dict[str, str],
    probe: Probe,
    tmp_path: Path,
    red_model: Path,
) -> None:
    with ExitStack() as stack:
        node = start(stack, tmp_path, ros_environment, f"0.5 {how}", model=red_model)
        stack.enter_context(streaming(probe))
        told = probe.diagnostics().wait_for(lambda array: said in array.status[0].message)
        assert values_of(told)["backend"].startswith("onnxruntime")
        assert next_time in told.status[0].message
        assert node.returncode is None
    kept = list((tmp_path / "cache").rglob("*.failed.json"))
    assert len(kept) == (1 if how == "fails" else 0)


def test_two_nodes_that_want_the_same_engine_build_it_once(
    ros_environment: dict[str, str], probe: Probe, tmp_path: Path, red_model: Path
) -> None:
    with ExitStack() as stack:
        first = start(stack, tmp_path, ros_environment, "60 good", model=red_model)
        pid = builder(first)
        second = start(stack, tmp_path, ros_environment, "60 good", "two", model=red_model)
        other = builder(second)
        assert is_running(pid)
        (tmp_path / "cache" / "go").touch()
        for node in (first, second):
            node.wait_for_text("the engine of tensorrt/fp32 was built in")
            node.wait_for_text("tensorrt/fp32 on gpu")
        assert pid != other
        assert len(list((tmp_path / "cache").rglob("*.engine"))) == 1
        built = (tmp_path / "cache" / "built.txt").read_text().split()
        assert built == [str(pid)]


def test_a_build_ends_with_its_node(
    ros_environment: dict[str, str], probe: Probe, tmp_path: Path, red_model: Path
) -> None:
    with ExitStack() as stack:
        node = start(stack, tmp_path, ros_environment, "60 good", model=red_model)
        pid = builder(node)
        begin = time.monotonic()
        assert node.stop() == 0
        assert time.monotonic() - begin < 3.0
        wait_until(lambda: not is_running(pid), "the end of the build")
        assert not list((tmp_path / "cache").rglob("*.failed.json"))


def test_engine_build_never_says_how_to_build_it(
    ros_environment: dict[str, str], probe: Probe, tmp_path: Path, red_model: Path
) -> None:
    with ExitStack() as stack:
        node = start(
            stack, tmp_path, ros_environment, "60 good", model=red_model, engine_build="never"
        )
        stack.enter_context(streaming(probe))
        told = probe.diagnostics().wait_for(lambda array: "never" in array.status[0].message)
        assert "dense-perception compile" in told.status[0].message
        assert "building the engine" not in node.log()


class _Log:
    def __init__(self) -> None:
        self.errors: list[str] = []
        self.info, self.error = lambda text: None, self.errors.append


def missing(name: str, batch: int = 1) -> MissingEngine:
    key = EngineKey(**{each.name: name for each in fields(EngineKey)})
    return MissingEngine("tensorrt", "fp32", "gpu", key, batch, "it does not load")


@pytest.mark.parametrize(
    ("outcome", "times", "said"),
    [
        ("no space", 1, "net --backend tensorrt --precision fp32 --max-batch 4` does"),
        ("", 2, "was built, but is not used: it does not load"),
    ],
)
def test_what_no_disk_keeps_or_nothing_loads_is_not_built_without_end(
    outcome: str, times: int, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tried: list[object] = []
    monkeypatch.setattr(
        EngineBuilder, "_compile", lambda self, build: tried.append(build) or outcome
    )

    def built() -> None:
        if len(tried) < 5:
            builder.want("net", [missing("one", 4)])

    log = _Log()
    builder = EngineBuilder(log, built)  # type: ignore[arg-type]
    builder.want("net", [missing("one", 4)])
    wait_until(lambda: builder.problems, "the builder to give up", 5)
    assert len(tried) == times
    assert builder.problems == tuple(log.errors)
    (error,) = log.errors
    assert said in error
    builder.want("other", ())
    assert not builder.problems


def test_an_engine_that_came_or_went_unnoticed_is_wanted_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was built while a reload had judged it missing; later somebody deletes the cache."""
    tried: list[object] = []
    monkeypatch.setattr(EngineBuilder, "_compile", lambda self, build: tried.append(build) or "")
    built, log = threading.Semaphore(0), _Log()
    builder = EngineBuilder(log, built.release)  # type: ignore[arg-type]
    for _ in range(2):
        builder.want("net", [missing("one")])
        assert built.acquire(timeout=5)
    for _ in range(2):
        builder.want("net", ())  # the reload found it
        builder.want("net", [missing("one")])
        assert built.acquire(timeout=5)
    assert len(tried) == 4
    assert not log.errors


def test_engines_that_are_finished_while_the_node_reloads_are_loaded_not_built_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many there are, and however often it looked before: that one was not there says it
    does not load only if it was built before.
    """
    tried: list[object] = []
    monkeypatch.setattr(EngineBuilder, "_compile", lambda self, build: tried.append(build) or "")
    built, log = threading.Semaphore(0), _Log()
    builder = EngineBuilder(log, built.release)  # type: ignore[arg-type]
    names = [missing(name) for name in ("one", "two", "three")]
    looked_s = time.monotonic()
    builder.want("net", names)
    for _ in names:
        assert built.acquire(timeout=5)
    for _ in range(3):
        builder.want("net", names, looked_s)
        assert built.acquire(timeout=5)  # look again
    assert len(tried) == 3
    assert not log.errors
    assert not builder.problems


def test_a_build_goes_on_under_another_name_of_its_model_or_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[object] = []
    ended, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(
        EngineBuilder, "_compile", lambda self, build: begun.append(build) or str(go_on.wait(5))[5:]
    )
    builder = EngineBuilder(_Log(), ended.set)  # type: ignore[arg-type]
    builder.want("net", [missing("one")])
    wait_until(lambda: begun, "the build", 5)
    builder.want("./net.onnx", [replace(missing("one"), device="cuda")])
    go_on.set()
    assert ended.wait(5)
    assert len(begun) == 1


def test_an_engine_that_is_gone_when_its_process_ends_is_said_to_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(engine_building, "COMPILER", "this")  # a module that ends well
    done, log = threading.Event(), _Log()
    builder = EngineBuilder(log, done.set)  # type: ignore[arg-type]
    builder.want("net", [missing("one")])
    assert done.wait(30)
    (error,) = log.errors
    assert "its process built one, which is gone: no engine of this graph" in error


def test_what_could_not_be_stored_is_not_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(engine_building, "ChildProcess", None)
    done, log = threading.Event(), _Log()
    builder = EngineBuilder(log, done.set)  # type: ignore[arg-type]
    builder.want("net", [missing("one")])
    assert done.wait(5)
    (error,) = log.errors
    assert "nothing can be stored in" in error
    assert "Not a directory; free space there or make it writable" in error
    assert "tries again when it is started the next time" in error


def test_a_build_that_is_being_ended_is_begun_again_where_it_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[object] = []
    ending, go_on = threading.Event(), threading.Event()

    def compile_slowly(self: EngineBuilder, build: object) -> str:
        begun.append(build)
        if len(begun) == 1:
            ending.set()
            assert go_on.wait(5)
        return ""

    monkeypatch.setattr(EngineBuilder, "_compile", compile_slowly)
    builder = EngineBuilder(_Log(), lambda: None)  # type: ignore[arg-type]
    builder.want("net", [missing("one")])
    assert ending.wait(5)
    builder.want("net", ())
    builder.want("net", [missing("one")])
    go_on.set()
    wait_until(lambda: len(begun) == 2, "the second build", 5)
