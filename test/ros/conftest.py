"""Live nodes for the tests: separate processes, a domain of their own, large-image transport."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from dense_perception.ros.processes import ChildProcess
from dense_perception.ros.transport import local_environment, reserved_domain, transport_environment
from test.support.artefacts import write_red_artefact
from test.support.ros_interfaces import importable
from test.support.ros_probe import Probe


@pytest.fixture(scope="module")
def domain() -> Iterator[int]:
    with reserved_domain() as number:
        yield number


@pytest.fixture(scope="module")
def ros_environment(domain: int) -> Iterator[dict[str, str]]:
    """Also set in this process, whose probes need the same transport."""
    # A background job of a shell ignores SIGINT, and so would the nodes that are ended with it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    variables = {**local_environment(domain), **transport_environment()}
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    yield variables
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture
def probe(domain: int, ros_environment: dict[str, str]) -> Iterator[Probe]:
    with Probe(domain) as running:
        yield running


@pytest.fixture(scope="module")
def red_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A metric model of 64x48 pixels whose depth is known in closed form."""
    path = tmp_path_factory.mktemp("models") / "red.onnx"
    write_red_artefact(path)
    return path


@pytest.fixture(scope="module")
def vision_msgs() -> Iterator[None]:
    with importable("vision_msgs"):
        yield


@pytest.fixture(scope="module")
def bond_msgs() -> Iterator[None]:
    with importable("bond"):
        yield


@pytest.fixture(scope="module")
def tf2_msgs() -> Iterator[None]:
    with importable("tf2_msgs"):
        yield


NodeFactory = Callable[..., ChildProcess]


def launch_node(
    stack: ExitStack,
    folder: Path,
    environment: dict[str, str],
    *,
    node: str = "depth_node",
    ready: str | None = "waiting for images",
    **parameters: object,
) -> ChildProcess:
    """A node with parameters given as keywords; waits until it prints ``ready``."""
    parameters = {
        "backend": "onnxruntime",
        "threads": 1,
        "diagnostics_period_s": 0.1,
        **parameters,
    }
    arguments = ["--ros-args"]
    for name, value in parameters.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        arguments += ["-p", f"{name}:={text}"]
    log = folder / f"{node}_{len(list(folder.glob('*_node_*')))}.log"
    module = f"dense_perception.ros.{node}"
    process = stack.enter_context(ChildProcess(module, arguments, log=log, environment=environment))
    if ready:
        process.wait_for_text(ready)
    return process


@pytest.fixture
def start_node(tmp_path: Path, ros_environment: dict[str, str]) -> Iterator[NodeFactory]:
    """Starts nodes of this test's own; stops what it started."""
    with ExitStack() as stack:
        yield partial(launch_node, stack, tmp_path, ros_environment)


@dataclass(frozen=True)
class Live:
    """A node that several tests share, and a probe beside it."""

    node: ChildProcess
    probe: Probe


@pytest.fixture(scope="module")
def live(
    domain: int,
    ros_environment: dict[str, str],
    red_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Live]:
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("live")
        node = launch_node(stack, folder, ros_environment, model=red_model)
        yield Live(node, stack.enter_context(Probe(domain)))
