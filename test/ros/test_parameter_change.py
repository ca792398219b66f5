"""Parameters and models that change in a configured node: all at once, and between two batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from dense_perception.backends.selection import Broken
from dense_perception.core.errors import BackendError
from dense_perception.ros import perception_node
from dense_perception.ros.batch import Received
from dense_perception.ros.convert import image_message
from dense_perception.ros.diagnostics import Health, judge
from dense_perception.ros.outputs import DepthOutputs, PointOutputs
from dense_perception.ros.params import DepthParameters
from dense_perception.ros.perception_node import PerceptionNode
from dense_perception.runtime.perceiver import Perceiver
from test.support.artefacts import write_red_artefact
from test.support.multitask_artefacts import multitask_card, without_depth, write_multitask_artefact
from test.support.ros_probe import header

pytestmark = pytest.mark.ros

Node = PerceptionNode[DepthParameters]
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class Loads:
    """The loads of a node: which there were, and when each of them may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.models: list[DepthParameters] = []
        self.broken: list[list[tuple[str, str]]] = []
        self.perceivers: list[Perceiver] = []
        self.go = threading.Event()
        self.go.set()
        self.problem = ""
        original = perception_node.load_model

        def load(
            settings: DepthParameters, log: Callable[[str], None], broken: Broken
        ) -> Perceiver:
            self.models.append(settings)
            self.broken.append(list(broken))
            assert self.go.wait(20)
            if self.problem:
                raise BackendError(self.problem)
            self.perceivers.append(original(settings, log, broken))
            return self.perceivers[-1]

        monkeypatch.setattr(perception_node, "load_model", load)


class Running:
    """A node, an executor that the test turns, and the node's loads."""

    def __init__(self, domain: int, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loads = Loads(monkeypatch)
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node: Node = PerceptionNode(
            "changing",
            DepthParameters,
            (DepthOutputs, PointOutputs),
            "depth",
            context=self.context,
            parameter_overrides=[
                Parameter("model", value=str(model)),
                Parameter("backend", value="onnxruntime"),
                Parameter("diagnostics_period_s", value=0.1),
            ],
        )
        self.model = str(model)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)

    def spin_until(self, condition: Callable[[], object], timeout_s: float = 15.0) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, "it did not happen"
            self.executor.spin_once(timeout_sec=0.02)

    def set(self, **values: Any) -> list[Any]:
        """One after the other in one call, as ``ros2 param load`` does."""
        return [self.node.set_parameters([Parameter(n, value=v)])[0] for n, v in values.items()]

    def shown(self, name: str) -> Any:
        return self.node.get_parameter(name).value

    def report(self) -> tuple[bytes, str]:
        healths = [self.node._health(camera) for camera in self.node._cameras.values()]
        return judge((healths or [self.node._node_health()])[0])

    def end(self) -> None:
        self.loads.go.set()
        self.node.close()
        self.node.destroy_node()
        self.executor.shutdown()
        rclpy.try_shutdown(context=self.context)


@pytest.fixture
def running(
    domain: int, ros_environment: dict[str, str], red_model: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Running]:
    made = Running(domain, red_model, monkeypatch)
    yield made
    made.end()


@pytest.fixture
def configured(running: Running) -> Running:
    assert running.node.trigger_configure() == SUCCESS
    return running


@pytest.fixture
def other(tmp_path: Path) -> str:
    write_red_artefact(tmp_path / "other.onnx")
    return str(tmp_path / "other.onnx")


def watch(node: Node, monkeypatch: pytest.MonkeyPatch, name: str) -> list[Any]:
    """The setting's value each time the worker may go on after a change."""
    seen: list[Any] = []
    original = node._model.between_batches

    @contextmanager
    def watched() -> Iterator[None]:
        with original():
            yield
            seen.append(getattr(node.settings, name))

    monkeypatch.setattr(node._model, "between_batches", watched)
    return seen


@pytest.mark.parametrize(("name", "value"), [("max_depth_m", 7.0), ("output_size", "network")])
def test_the_next_batch_sees_the_new_value(
    configured: Running, monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    seen = watch(configured.node, monkeypatch, name)
    (result,) = configured.set(**{name: value})
    assert result.successful, result.reason
    assert seen == [value]


def test_a_batch_reads_the_settings_once(configured: Running) -> None:
    """Or a parameter that is set in the middle would count for some of its outputs only."""
    node = configured.node
    reads: list[str] = []

    class Watched(type(node)):  # type: ignore[misc]
        @property
        def settings(self) -> DepthParameters:
            reads.append(threading.current_thread().name)
            return self.__dict__["settings"]

    node._cameras[""].listen(node.settings, lambda name, message: None)
    publishers = node._cameras[""]._topics._publishers
    before = dict(publishers)
    for name, (spec, publisher) in list(publishers.items()):
        publishers[name] = (spec, Wanted(publisher))
    node.__class__ = Watched
    rgb_hwc = np.zeros((48, 64, 3), np.uint8)
    node._answer({"": Received(image_message(rgb_hwc, header(5), "rgb8"), time.perf_counter())})
    assert node._cameras[""].frame_log.last_error == ""
    assert node._cameras[""].frame_log.health(Health("inactive", "red")).answered == 1
    assert len(reads) == 1
    node.__class__ = PerceptionNode
    node._cameras[""]._topics._publishers.clear()
    node._cameras[""]._topics._publishers.update(before)


class Wanted:
    """A publisher that believes somebody subscribes to it."""

    def __init__(self, publisher: Any) -> None:
        self.publish = publisher.publish

    def get_subscription_count(self) -> int:
        return 1


def test_a_new_model_and_its_settings_count_from_the_same_batch_on(
    configured: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = configured.node
    old = node._model.perceiver
    seen = watch(node, monkeypatch, "threads")
    (result,) = configured.set(threads=1)
    assert result.successful, result.reason
    assert (seen, node.settings.threads) == ([], 0)  # it is only being loaded
    configured.spin_until(lambda: seen)
    assert seen == [1]
    assert node._model.perceiver is configured.loads.perceivers[-1] is not old
    assert configured.shown("threads") == 1


def test_a_change_that_finds_the_worker_busy_leaves_everything_as_it_was(
    configured: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = configured.node
    old = node._model.perceiver

    @contextmanager
    def busy() -> Iterator[None]:
        raise BackendError("the worker is still busy")
        yield

    monkeypatch.setattr(node._model, "between_batches", busy)
    (result,) = configured.set(max_depth_m=7.0)
    assert not result.successful
    assert "still busy" in result.reason
    assert node.settings.max_depth_m == configured.shown("max_depth_m") == 1e6
    configured.set(threads=1)
    configured.spin_until(lambda: node._node_health().notes)
    assert node._node_health().notes == (
        f"threads 1 not taken: the worker is still busy; {configured.model} goes on",
    )
    assert node.settings.threads == configured.shown("threads") == 0
    assert node._model.perceiver is old


def test_a_model_that_does_not_load_is_put_back_and_reported(
    configured: Running, other: str
) -> None:
    node, loads = configured.node, configured.loads
    old = node._model.perceiver
    loads.problem = "the engine does not build"
    (result,) = configured.set(model=other)
    assert result.successful  # that it does not build takes minutes to find out
    configured.spin_until(lambda: configured.shown("model") == configured.model)
    assert node.settings.model == configured.model
    assert node._model.perceiver is old
    (note,) = node._node_health().notes
    assert note == (
        f"model {other} not taken: the engine does not build; {configured.model} goes on"
    )
    # The next one that loads ends the warning.
    loads.problem = ""
    configured.set(model=other)
    configured.spin_until(lambda: node.settings.model == other)
    assert node._node_health().notes == ()
    assert configured.shown("model") == other


def test_what_can_be_told_without_loading_is_refused_at_once(
    configured: Running, tmp_path: Path
) -> None:
    labels_only = tmp_path / "labels.onnx"
    write_multitask_artefact(labels_only, without_depth(multitask_card()))
    for model, reason in (
        (str(tmp_path / "missing.onnx"), "missing.onnx"),
        ("no_such_model", "no_such_model"),
        (str(labels_only), "gives no depth"),
    ):
        (result,) = configured.set(model=model)
        assert not result.successful
        assert reason in result.reason
        assert configured.shown("model") == configured.model
    assert len(configured.loads.models) == 1
    assert configured.node._loader.wanted is None


def test_a_file_of_parameters_loads_one_model(configured: Running, other: str) -> None:
    results = configured.set(model=other, precision="fp32", threads=1, max_depth_m=9.0)
    assert all(result.successful for result in results)
    configured.spin_until(lambda: configured.node.settings.model == other)
    settings = configured.node.settings
    assert (settings.precision, settings.threads, settings.max_depth_m) == ("fp32", 1, 9.0)
    assert len(configured.loads.models) == 2  # that of configure, and this one


def test_what_is_set_while_a_model_is_loaded_is_kept(configured: Running, other: str) -> None:
    node, loads = configured.node, configured.loads
    loads.go.clear()
    configured.set(model=other)
    configured.spin_until(lambda: len(loads.models) == 2)
    (result,) = configured.set(max_depth_m=7.0)
    assert result.successful
    assert (node.settings.max_depth_m, node.settings.model) == (7.0, configured.model)
    assert node._node_health().loading.startswith(f"{other} for ")
    loads.go.set()
    configured.spin_until(lambda: node.settings.model == other)
    assert node.settings.max_depth_m == configured.shown("max_depth_m") == 7.0
    assert len(loads.models) == 2


def test_a_model_that_is_set_back_while_it_is_loaded_is_forgotten(
    configured: Running, other: str
) -> None:
    node, loads = configured.node, configured.loads
    old = node._model.perceiver
    loads.go.clear()
    configured.set(model=other)
    configured.spin_until(lambda: len(loads.models) == 2)
    configured.set(model=configured.model)
    assert node._node_health().loading == ""
    loads.go.set()
    configured.spin_until(lambda: len(loads.perceivers) == 2)
    for _ in range(5):
        configured.executor.spin_once(timeout_sec=0.02)
    assert node._model.perceiver is old
    assert node.settings.model == configured.shown("model") == configured.model


def test_a_broken_backend_is_replaced_whatever_is_set_meanwhile(configured: Running) -> None:
    node, loads = configured.node, configured.loads
    old = node._model.perceiver
    assert old is not None
    place = (old.selection.backend, old.selection.device)
    old.failures, old.last_failure = 5, "the device is lost"
    loads.problem = "no memory"
    configured.spin_until(lambda: node._node_health().notes)
    assert "another engine or backend not taken: no memory" in node._node_health().notes[0]
    assert len(loads.models) == 2
    old.failures, loads.problem = 10, ""
    loads.go.clear()
    configured.spin_until(lambda: len(loads.models) == 3)
    (result,) = configured.set(max_depth_m=7.0)
    assert result.successful
    loads.go.set()
    configured.spin_until(lambda: node._model.perceiver is not old)
    new = node._model.perceiver
    assert new is loads.perceivers[-1]
    assert (new.selection.backend, new.selection.device) != place
    assert loads.broken == [[], [place], [place]]
    assert (node.settings.max_depth_m, node._node_health().loading) == (7.0, "")


@pytest.mark.parametrize("how", ["fails", "is set back", "comes"])
def test_an_engine_that_is_finished_during_a_change_is_used_whatever_comes_of_that(
    how: str, configured: Running, other: str
) -> None:
    node, loads = configured.node, configured.loads
    loads.go.clear()
    change = {
        "fails": {"precision": "fp16"},
        "is set back": {"threads": 1},
        "comes": {"threads": 1},
    }
    configured.set(**change[how])
    configured.spin_until(lambda: len(loads.models) == 2)
    node._builder._built()
    configured.spin_until(lambda: node._engine_is_new)
    if how == "is set back":
        configured.set(threads=0)
    loads.go.set()
    if how == "comes":  # which looks for engines itself, and says which are still missing
        configured.spin_until(lambda: node.settings.threads == 1)
        assert not node._engine_is_new
        assert node._loader.wanted is None
        assert len(loads.models) == 2
        return
    configured.spin_until(lambda: len(loads.models) == 3 and node._loader.wanted is None)
    assert (loads.models[2].model, loads.models[2].precision) == (configured.model, "auto")
    assert loads.models[2].threads == 0
    assert not node._engine_is_new
    # That the change was refused stays said.
    assert len(node._node_health().notes) == (1 if how == "fails" else 0)


def test_word_of_an_engine_that_comes_after_cleanup_loads_nothing(
    configured: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, heard = configured.node, []
    monkeypatch.setattr(node, "_load_new_engine", lambda: heard.append(node._engine_is_new))
    assert node.trigger_cleanup() == SUCCESS
    node._builder._built()
    configured.spin_until(lambda: heard)
    assert heard == [False]


def test_cleanup_while_a_model_is_loaded_leaves_it_for_the_next_configure(
    configured: Running, other: str
) -> None:
    node, loads = configured.node, configured.loads
    loads.go.clear()
    configured.set(model=other)
    configured.spin_until(lambda: len(loads.models) == 2)
    assert node.trigger_cleanup() == SUCCESS
    assert node.settings.model == configured.shown("model") == other
    loads.go.set()
    assert node.trigger_configure() == SUCCESS
    assert node.settings.model == other
    assert node._model.perceiver is loads.perceivers[-1]


def test_the_node_closes_while_a_model_is_loaded(configured: Running, other: str) -> None:
    configured.loads.go.clear()
    configured.set(model=other)
    configured.spin_until(lambda: len(configured.loads.models) == 2)
    begun = time.monotonic()
    assert not configured.node.close()
    assert time.monotonic() - begun < 2.0
    configured.loads.go.set()


def test_it_starts_by_itself_and_answers_its_services_meanwhile(running: Running) -> None:
    node, loads = running.node, running.loads
    loads.go.clear()
    node.start()
    running.spin_until(lambda: loads.models)
    assert node.state == "unconfigured"
    level, summary = running.report()
    assert level == DiagnosticStatus.OK
    assert summary.startswith(f"unconfigured, loading {running.model} for ")
    (result,) = running.set(threads=1)  # the model that is taken is that of the last values
    assert result.successful
    loads.go.set()
    running.spin_until(lambda: node.state == "active")
    assert node.settings.threads == 1
    assert [each.threads for each in loads.models] == [0, 1]


def test_a_start_that_fails_leaves_the_node_alive_with_the_reason(running: Running) -> None:
    node, loads = running.node, running.loads
    loads.problem = "no such GPU"
    node.start()
    running.spin_until(lambda: running.report()[0] == DiagnosticStatus.ERROR)
    assert running.report()[1] == "not configured: no such GPU"
    assert node.state == "unconfigured"
    loads.problem = ""
    assert node.trigger_configure() == SUCCESS


def test_configure_reports_while_it_waits_and_ends_with_the_context(running: Running) -> None:
    node, loads = running.node, running.loads
    loads.go.clear()
    reported: list[str] = []
    publish = node._diagnostics.publish

    def watched(message: Any) -> None:
        reported.append(message.status[0].message)
        publish(message)

    node._diagnostics.publish = watched
    ends: list[str] = []

    def configure() -> None:
        try:
            node.trigger_configure()
            ends.append("configured")
        except KeyboardInterrupt:
            ends.append("interrupted")

    waiting = threading.Thread(target=configure)
    waiting.start()
    end = time.monotonic() + 15
    while len(reported) < 3:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert all("loading" in text for text in reported)
    node._diagnostics.publish = publish
    running.context.try_shutdown()  # as SIGINT does
    begun = time.monotonic()
    waiting.join(10)
    assert time.monotonic() - begun < 2.0
    assert ends == ["interrupted"]


def test_a_signal_amid_a_report_is_no_failure_of_the_transition(
    running: Running, capfd: pytest.CaptureFixture[str]
) -> None:
    node = running.node
    running.loads.go.clear()
    publish = node._diagnostics.publish

    def interrupted(message: Any) -> None:
        running.context.try_shutdown()  # as SIGINT does
        publish(message)

    node._diagnostics.publish = interrupted
    with pytest.raises(KeyboardInterrupt):
        node.trigger_configure()
    assert "ERROR" not in capfd.readouterr().err
