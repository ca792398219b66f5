"""What goes on while a model takes long to load: answers, diagnostics, services, Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from sensor_msgs.msg import Image

from dense_perception.ros.convert import image_message
from dense_perception.ros.processes import ChildProcess, cpu_s
from test.ros.conftest import NodeFactory
from test.support.artefacts import write_red_artefact
from test.support.endless import write_endless_artefact
from test.support.ros_probe import Probe, header, random_rgb, values_of, wait_until
from test.support.streaming import STAMPS, longest_gap_s, streaming

pytestmark = pytest.mark.ros

LOAD_S, BUILD_S = 3.0, 60.0
LONGEST_GAP_S, LONGEST_END_S, LONGEST_STOP_S = 0.3, 2.0, 3.0


@pytest.fixture
def slow_model(tmp_path: Path) -> Path:
    write_red_artefact(tmp_path / "slow.onnx")
    return tmp_path / "slow.onnx"


def start_slow(
    stack: ExitStack, folder: Path, environment: dict[str, str], load_s: float, **parameters: object
) -> ChildProcess:
    values = {"backend": "onnxruntime", "threads": 1, "diagnostics_period_s": 0.1, **parameters}
    arguments = ["--ros-args"]
    for name, value in values.items():
        arguments += ["-p", f"{name}:={str(value).lower() if value is False else value}"]
    return stack.enter_context(
        ChildProcess(
            "test.support.slow_node",
            arguments,
            log=folder / "node.log",
            environment={**environment, "DENSE_PERCEPTION_LOAD_S": str(load_s)},
        )
    )


def test_a_model_that_takes_long_is_changed_in_without_a_gap(
    ros_environment: dict[str, str], probe: Probe, tmp_path: Path, red_model: Path, slow_model: Path
) -> None:
    with ExitStack() as stack:
        node = start_slow(stack, tmp_path, ros_environment, LOAD_S, model=red_model)
        node.wait_for_text("waiting for images")
        answers: list[float] = []
        reports: list[tuple[float, str]] = []

        def report(message: DiagnosticArray) -> None:
            reports.append((time.monotonic(), values_of(message)["model"]))

        probe.node.create_subscription(
            Image, "/depth_node/depth/image", lambda _: answers.append(time.monotonic()), 10
        )
        probe.node.create_subscription(DiagnosticArray, "/diagnostics", report, 10)
        stack.enter_context(streaming(probe))
        wait_until(lambda: len(answers) > 20 and len(reports) > 5, "the stream to flow")
        idle = time.monotonic()
        time.sleep(LOAD_S)
        begin = time.monotonic()
        (accepted,) = probe.set_parameters(model=str(slow_model))
        accepted_s = time.monotonic() - begin
        assert accepted.successful, accepted.reason
        changed_s = wait_until(
            lambda: next((t for t, model in reports if model == str(slow_model)), 0.0),
            "the change",
        )
        time.sleep(1.0)
        end = time.monotonic()
        assert changed_s - begin >= LOAD_S
        for name, times in (("answers", answers), ("diagnostics", [t for t, _ in reports])):
            # What a busy machine does to a stream without any change is not the change's doing.
            before_s = longest_gap_s(times, idle, begin)
            gap_s = longest_gap_s(times, begin, end)
            print(
                f"\n{name}: longest gap {before_s * 1e3:.0f} ms before, {gap_s * 1e3:.0f} with it"
            )
            assert gap_s < max(LONGEST_GAP_S, 2 * before_s), name
        print(f"the parameter call took {accepted_s * 1e3:.0f} ms")
        assert accepted_s < LONGEST_GAP_S
        assert "ERROR" not in node.log()


def ask_to_load(how: str, probe: Probe, node: ChildProcess, model: Path) -> None:
    """Until the node is in the middle of the load."""
    if how == "configure":
        client = probe.node.create_client(ChangeState, "/depth_node/change_state")
        assert client.wait_for_service(15.0)
        client.call_async(ChangeState.Request(transition=Transition(label="configure")))
    elif how == "change":
        node.wait_for_text("waiting for images")
        (accepted,) = probe.set_parameters(model=str(model))
        assert accepted.successful, accepted.reason
    probe.diagnostics().wait_for(lambda array: str(model) in values_of(array)["loading"])


@pytest.mark.parametrize("how", ["start", "configure", "change"])
def test_ctrl_c_ends_a_build_at_once(
    how: str,
    ros_environment: dict[str, str],
    probe: Probe,
    tmp_path: Path,
    red_model: Path,
    slow_model: Path,
) -> None:
    with ExitStack() as stack:
        node = start_slow(
            stack,
            tmp_path,
            ros_environment,
            BUILD_S,
            model=red_model if how == "change" else slow_model,
            autostart=how != "configure",
        )
        if how == "configure":
            wait_until(probe.state, "the services")
        ask_to_load(how, probe, node, slow_model)
        time.sleep(0.5)  # so that it is surely in the build
        begin = time.monotonic()
        node.interrupt()
        code = node.wait(BUILD_S / 2)
        seconds = time.monotonic() - begin
        print(f"\nended {seconds * 1e3:.0f} ms after SIGINT")
        assert code == 0
        assert seconds < LONGEST_END_S
        assert not any(word in node.log() for word in ("ERROR", "Traceback", "core dumped"))


@pytest.mark.parametrize(
    ("how", "number"),
    [("start", signal.SIGTERM), ("change", signal.SIGINT), ("frame", signal.SIGINT)],
)
def test_a_graph_that_never_ends_is_stopped_by_a_signal(
    how: str,
    number: signal.Signals,
    ros_environment: dict[str, str],
    probe: Probe,
    tmp_path: Path,
    red_model: Path,
) -> None:
    """While the backends are compared, which runs the graph, and while a frame is answered."""
    endless = tmp_path / "endless.onnx"
    write_endless_artefact(endless)
    with ExitStack() as stack:
        node = start_slow(
            stack,
            tmp_path,
            ros_environment,
            0.0,
            model=red_model if how == "change" else endless,
            backend="onnxruntime" if how == "frame" else "auto",
        )
        if how == "frame":
            node.wait_for_text("waiting for images")
            probe.collect(Image, "/depth_node/depth/image")
        else:
            ask_to_load(how, probe, node, endless)
        begin_s = cpu_s(node.pid)

        def runs() -> bool:
            if how == "frame":  # the first ones may come before the node knows the subscriber
                probe.send_image(image_message(random_rgb(), header(next(STAMPS)), "rgb8"))
            return cpu_s(node.pid) > begin_s + 1.0

        wait_until(runs, "the graph to run", 30)
        begin = time.monotonic()
        os.kill(node.pid, number)
        code = node.wait(20)
        assert time.monotonic() - begin < LONGEST_STOP_S
        assert code == 0
        assert "Traceback" not in node.log()


def test_services_are_answered_while_the_first_model_is_loaded(
    ros_environment: dict[str, str], probe: Probe, tmp_path: Path, slow_model: Path
) -> None:
    with ExitStack() as stack:
        start_slow(stack, tmp_path, ros_environment, 3.0, model=slow_model)
        wait_until(probe.state, "the services")
        begin = time.monotonic()
        while probe.state() == "unconfigured":
            assert probe.set_parameters(max_depth_m=5.0)[0].successful
            assert time.monotonic() - begin < 15
        assert probe.state() in ("inactive", "active")
        wait_until(lambda: probe.state() == "active", "the activation")


@pytest.mark.parametrize("attempt", range(4))
def test_ctrl_c_while_frames_flow_is_no_error(
    attempt: int, start_node: NodeFactory, probe: Probe, red_model: Path
) -> None:
    node = start_node(model=red_model)
    depth = probe.collect(Image, "/depth_node/depth/image")
    publisher = probe.publisher(Image, "/image")
    stopped = threading.Event()

    def flood() -> None:
        while not stopped.wait(0.002):
            publisher.publish(image_message(random_rgb(), header(next(STAMPS)), "rgb8"))

    thread = threading.Thread(target=flood, daemon=True)
    thread.start()
    try:
        depth.wait(20 + attempt)
        assert node.stop() == 0
    finally:
        stopped.set()
        thread.join()
    assert not any(word in node.log() for word in ("ERROR", "WARN", "Traceback", "invalid"))
