"""The loader's thread: what is asked for last is what comes, once, and nothing else is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from dense_perception.core.errors import InputError
from dense_perception.ros.model_loading import Failures, ModelLoader
from dense_perception.ros.params import DepthParameters
from test.support.ros_probe import wait_until


class Model:
    def __init__(self, name: str) -> None:
        self.name = name
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


class Slow:
    """Loads what it is told; one named ``slow...`` when ``go`` is set, ``broken...`` never."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.woken = 0
        self.asked: list[str] = []
        self.models: list[Model] = []

    def load(self, settings: DepthParameters) -> Model:
        self.asked.append(settings.model)
        if settings.model.startswith("slow"):
            assert self.go.wait(20)
        if settings.model.startswith("broken"):
            raise InputError("it is broken")
        if settings.model.startswith("odd"):
            raise MemoryError("no room")
        self.models.append(Model(settings.model))
        return self.models[-1]

    def wake(self) -> None:
        self.woken += 1


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def loader(slow: Slow) -> Iterator[ModelLoader[DepthParameters]]:
    made: ModelLoader[DepthParameters] = ModelLoader(slow.load, slow.wake)  # type: ignore[arg-type]
    yield made
    slow.go.set()
    wait_until(lambda: made.close(1.0), "the thread to end")


def named(name: str) -> DepthParameters:
    return DepthParameters(model=name)


def taken(loader: ModelLoader[DepthParameters]):
    loader.wait(20)
    outcome = loader.take()
    assert outcome is not None
    return outcome


def test_a_model_is_handed_over_once(loader: ModelLoader[DepthParameters], slow: Slow) -> None:
    assert loader.take() is None
    loader.request(named("a"))
    outcome = taken(loader)
    assert outcome.perceiver is slow.models[0]
    assert outcome.settings == named("a")
    assert slow.woken == 1
    assert loader.take() is None
    assert loader.wanted is None
    assert not slow.models[0].closed


@pytest.mark.parametrize(
    ("name", "problem"), [("broken", "it is broken"), ("odd", "MemoryError: no room")]
)
def test_a_model_that_does_not_load_is_a_problem_in_words_and_the_next_one_loads(
    loader: ModelLoader[DepthParameters], name: str, problem: str
) -> None:
    loader.request(named(name))
    outcome = taken(loader)
    assert outcome.perceiver is None
    assert outcome.problem == problem
    loader.request(named("a"))
    assert taken(loader).perceiver is not None


def test_requests_one_after_the_other_load_the_last_only(
    loader: ModelLoader[DepthParameters], slow: Slow
) -> None:
    for name in ("a", "b", "c"):
        loader.request(named(name), settle_s=0.3)
    assert taken(loader).settings == named("c")
    assert slow.asked == ["c"]


def test_what_is_superseded_is_closed_and_never_handed_over(
    loader: ModelLoader[DepthParameters], slow: Slow
) -> None:
    loader.request(named("slow one"))
    wait_until(lambda: slow.asked, "the load to begin")
    loader.request(named("second"))
    assert loader.wanted == named("second")
    time.sleep(0.05)
    assert slow.asked == ["slow one"]  # one at a time: two would need the memory of both
    slow.go.set()
    assert taken(loader).settings == named("second")
    first, second = slow.models
    wait_until(lambda: first.closed == 1, "the first model to be closed")
    assert (second.closed, slow.woken) == (0, 1)


def test_what_is_cancelled_is_closed_loading_or_loaded(
    loader: ModelLoader[DepthParameters], slow: Slow
) -> None:
    loader.request(named("slow one"))
    wait_until(lambda: slow.asked, "the load to begin")
    loader.cancel()
    assert loader.wanted is None
    slow.go.set()
    wait_until(lambda: slow.models and slow.models[0].closed == 1, "the model to be closed")
    loader.request(named("b"))
    loader.wait(20)
    loader.cancel()
    assert loader.take() is None
    wait_until(lambda: slow.models[1].closed == 1, "the loaded model to be closed")
    assert slow.woken == 1


@pytest.mark.parametrize("is_loaded", [False, True])
def test_a_request_for_the_current_model_outlives_other_parameters(
    loader: ModelLoader[DepthParameters], slow: Slow, is_loaded: bool
) -> None:
    """As of the same model in another backend; one for another model is forgotten."""
    current = DepthParameters(model="slow one", max_depth_m=7.0)
    loader.request(named("slow one"))
    if is_loaded:
        slow.go.set()
        loader.wait(20)
    loader.cancel_change(current)
    assert loader.wanted == named("slow one")
    slow.go.set()
    assert taken(loader).perceiver is slow.models[0]
    assert not slow.models[0].closed
    loader.request(named("other"))
    loader.cancel_change(current)
    assert loader.wanted is None
    loader.cancel_change(current)


def test_the_end_does_not_wait_for_a_load(loader: ModelLoader[DepthParameters], slow: Slow) -> None:
    loader.request(named("slow one"))
    wait_until(lambda: slow.asked, "the load to begin")
    begun = time.monotonic()
    assert not loader.close(10.0)
    assert time.monotonic() - begun < 1.0
    slow.go.set()
    wait_until(lambda: slow.models and slow.models[0].closed == 1, "the model to be closed")
    assert slow.woken == 0
    wait_until(lambda: loader.close(1.0), "the thread to end")


def test_models_are_discarded_before_the_end(
    loader: ModelLoader[DepthParameters],
) -> None:
    model = Model("old")
    loader.discard(model)  # type: ignore[arg-type]
    assert loader.close(10.0)
    assert model.closed == 1


def test_it_tells_for_how_long(loader: ModelLoader[DepthParameters], slow: Slow) -> None:
    assert loader.seconds == 0.0
    loader.request(named("slow one"))
    time.sleep(0.05)
    assert 0.04 < loader.seconds < 10
    slow.go.set()
    taken(loader)
    assert loader.seconds == 0.0


class Failing:
    """What is asked of a perceiver whose backend failed so many times in a row."""

    def __init__(self, backend: str = "tensorrt") -> None:
        self.selection = SimpleNamespace(backend=backend, device="gpu")
        self.card = SimpleNamespace(name="red")
        self.failures, self.last_failure = 0, "the device is lost"


def said_at(failures: Failures, perceiver: Failing, counts: range) -> list[int]:
    """At which counts a replacement is asked for."""
    said = []
    for perceiver.failures in counts:
        if failures.found_in(perceiver):  # type: ignore[arg-type]
            said.append(perceiver.failures)
    return said


def test_many_failures_in_a_row_ask_for_another_backend() -> None:
    failures, failing = Failures(), Failing()
    assert failures.found_in(None) == ""
    assert said_at(failures, failing, range(5)) == []
    assert not failures.reasons
    failing.failures = 5
    said = failures.found_in(failing)  # type: ignore[arg-type]
    assert said == (
        "tensorrt on gpu failed 5 times in a row: the device is lost; loading red without it"
    )
    assert failures.reasons == {("tensorrt", "gpu"): "the device is lost"}
    # Another backend that fails, too, is added.
    assert said_at(failures, Failing("openvino"), range(10)) == [5]
    assert set(failures.reasons) == {("tensorrt", "gpu"), ("openvino", "gpu")}
    failures.forget()
    assert not failures.reasons
    assert said_at(failures, failing, range(5, 6)) == [5]


def test_a_replacement_that_did_not_come_is_asked_for_again_and_ever_more_rarely() -> None:
    failures, failing = Failures(), Failing()
    assert said_at(failures, failing, range(100)) == [5, 10, 20, 40, 80]
    failing.failures = 0  # it answered
    assert failures.found_in(failing) == ""  # type: ignore[arg-type]
    assert said_at(failures, failing, range(1, 8)) == [5]
