"""A node at 30 Hz for an hour: parameters, models and states change all the time, nothing may grow.

Every image has a stamp and a frame of its own, so an answer under another image's header shows.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import SetBool
from tqdm import tqdm

from dense_perception.core.camera import Intrinsics
from dense_perception.ros.convert import camera_info_message, image_message
from dense_perception.ros.parameter_table import Changes, ParameterSpec, table
from dense_perception.ros.params import DepthParameters
from dense_perception.ros.processes import ChildProcess, resident_mb
from dense_perception.ros.transport import local_environment, reserved_domain, transport_environment
from test.support.artefacts import write_red_artefact
from test.support.ros_probe import Probe, header, random_rgb, values_of, wait_until

# One file in one backend: which of several is the fastest may be decided anew at every load, and
# each holds another amount of memory.
MODEL = Path(__file__).parents[2] / "models" / "dpt_tiny_indoor_int8.onnx"
BACKEND = "openvino" if find_spec("openvino") else "onnxruntime"
WIDTH, HEIGHT, RATE_HZ = 640, 480, 30.0
FRAMES = 7  # names of frames, by the image's number
PATIENCE_S = 60.0
MOST_GROWTH_MB = 10.0
CYCLE = ("deactivate", "cleanup", "configure", "activate")


@dataclass(frozen=True)
class Footprint:
    """What a process holds while nothing is asked of it."""

    resident_mb: float
    threads: int
    files: int


@dataclass
class SoakReport:
    """``rests``: the footprint each minute, at the same model, parameters and state."""

    minutes: float
    seed: int
    model: str
    sent: int = 0
    answered: int = 0
    wrong_headers: int = 0
    parameters_taken: int = 0
    parameters_refused: int = 0
    refused_without_reason: int = 0
    model_changes: int = 0
    transitions: int = 0
    errors_logged: int = 0
    rests: list[Footprint] = field(default_factory=list)

    @property
    def growth_mb(self) -> float:
        """From the first to the last rest; medians of three, as one sample wavers by megabytes."""
        sizes = [rest.resident_mb for rest in self.rests]
        return float(np.median(sizes[-3:]) - np.median(sizes[:3]))

    @property
    def problems(self) -> list[str]:
        """What was promised and not kept."""
        first, last = self.rests[0], self.rests[-1]
        broken = {
            f"memory grew by {self.growth_mb:.1f} MB": self.growth_mb > MOST_GROWTH_MB,
            f"{first.threads} threads became {last.threads}": first.threads != last.threads,
            f"{first.files} open files became {last.files}": first.files != last.files,
            f"{self.wrong_headers} wrong headers": self.wrong_headers > 0,
            f"{self.refused_without_reason} refused silently": self.refused_without_reason > 0,
            f"{self.errors_logged} tracebacks": self.errors_logged > 0,
            "nothing was answered": self.answered == 0,
        }
        return [text for text, is_broken in broken.items() if is_broken]

    def summary(self) -> dict[str, Any]:
        return {**asdict(self), "growth_mb": self.growth_mb, "problems": self.problems}


def soak(
    *,
    minutes: float,
    warm_up_minutes: float = 3.0,
    seed: int = 1,
    model: str = str(MODEL),
    backend: str = BACKEND,
    rate_hz: float = RATE_HZ,
    turn_s: float = 1.0,
    settle_s: float = 5.0,
    log: Path | None = None,
    quiet: bool = False,
) -> SoakReport:
    """Run the soak; ``log`` is a file for the node's output.

    Something changes about every ``turn_s``; a rest begins ``settle_s`` after all is as at first,
    which is when memory is compared.
    """
    report = SoakReport(minutes, seed, Path(model).name)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak_")))
        domain = stack.enter_context(reserved_domain())
        environment = {**local_environment(domain), **transport_environment()}
        os.environ.update(environment)
        others = [folder / "red.onnx", folder / "other.onnx"]
        for path in others:
            write_red_artefact(path)
        values = {"model": model, "backend": backend, "threads": 1, "diagnostics_period_s": 1.0}
        node = stack.enter_context(
            ChildProcess(
                "dense_perception.ros.depth_node",
                ["--ros-args", *(word for n, v in values.items() for word in ("-p", f"{n}:={v}"))],
                log=log or folder / "node.log",
                environment=environment,
            )
        )
        node.wait_for_text("waiting for images", PATIENCE_S)
        probe = stack.enter_context(Probe(domain))
        stream = stack.enter_context(streaming(probe, report, rate_hz))
        tormentor = Tormentor(probe, report, np.random.default_rng(seed), model, others)
        bar = stack.enter_context(
            tqdm(total=round(minutes + warm_up_minutes), unit="min", disable=quiet)
        )
        begin = time.monotonic()
        rest_at = max(warm_up_minutes, 0.05)
        for turn in itertools.count(1):
            tormentor.turn(turn, turn_s)
            passed = (time.monotonic() - begin) / 60
            if passed >= rest_at:
                report.rests.append(tormentor.rest(node.pid, stream, settle_s))
                bar.n = round(passed)
                bar.set_postfix_str(f"{report.rests[-1]}, {report.wrong_headers} wrong")
                rest_at += min(1.0, minutes / 6)
            if passed >= minutes + warm_up_minutes:
                break
        report.errors_logged = node.log().count("Traceback")
        assert node.returncode is None, f"the node ended: {node.log()[-2000:]}"
    return report


class Tormentor:
    """Changes whatever can be changed, turn by turn."""

    def __init__(
        self,
        probe: Probe,
        report: SoakReport,
        rng: np.random.Generator,
        model: str,
        others: list[Path],
    ) -> None:
        self._probe, self._report, self._rng = probe, report, rng
        self._model = model
        self._models = itertools.cycle([*map(str, others), model])
        # frame_id is what the answers are told apart by.
        self._specs = [
            spec
            for spec in table(DepthParameters)
            if spec.changes is Changes.ANY_TIME and spec.name != "frame_id"
        ]
        self._reports = probe.diagnostics()
        name = probe.target
        create = probe.node.create_client
        self._set = create(SetParameters, f"{name}/set_parameters")
        self._change = create(ChangeState, f"{name}/change_state")
        self._enable = create(SetBool, f"{name}/set_enabled")

    def turn(self, number: int, seconds: float) -> None:
        spec = self._specs[self._rng.integers(len(self._specs))]
        (result,) = self._set_parameters({spec.name: self._value(spec)})
        self._report.parameters_taken += result.successful
        self._report.parameters_refused += not result.successful
        self._report.refused_without_reason += not (result.successful or result.reason)
        if number % 10 == 0:
            (result,) = self._set_parameters({"model": next(self._models)})
            self._report.model_changes += result.successful
        if number % 15 == 0:
            for label in CYCLE:
                request = ChangeState.Request(transition=Transition(label=label))
                assert self._call(self._change, request).success, label
                self._report.transitions += 1
        if number % 7 == 0:
            for wanted in (False, True):
                self._call(self._enable, SetBool.Request(data=wanted))
        time.sleep(self._rng.uniform(0.5, 1.5) * seconds)

    def rest(self, pid: int, stream: Stream, settle_s: float) -> Footprint:
        """Everything as at the start and answering; then the footprint."""
        values = {spec.name: spec.default for spec in self._specs}
        self._reports.messages.clear()
        for name, value in values.items():
            (result,) = self._set_parameters({name: value})
            assert result.successful, result.reason
        (result,) = self._set_parameters({"model": self._model})
        assert result.successful, result.reason
        wait_until(self._is_settled, "the model to be loaded", PATIENCE_S)
        time.sleep(settle_s)  # the old one is freed
        expected = stream.answered + 30
        wait_until(lambda: stream.answered >= expected, "answers at rest", PATIENCE_S)
        process = Path(f"/proc/{pid}")
        threads, files = (len(os.listdir(process / name)) for name in ("task", "fd"))
        return Footprint(resident_mb(pid), threads, files)

    def _is_settled(self) -> bool:
        """Whether the newest report says that the first model runs and none is being loaded."""
        if not self._reports.messages:
            return False
        values = values_of(self._reports.messages[-1])
        self._reports.messages.clear()
        return values["model"] == self._model and not values["loading"]

    def _value(self, spec: ParameterSpec) -> Any:
        """A third of them wrong."""
        if self._rng.random() < 1 / 3:
            wrong = [-1e9, float("nan"), "", "junk", 7, ["x"]]
            return wrong[self._rng.integers(len(wrong))]
        if spec.choices:
            return spec.choices[self._rng.integers(len(spec.choices))]
        if spec.low is None or spec.high is None:
            return spec.default if spec.type is not bool else bool(self._rng.integers(2))
        # Near the default: depth limits of half a million metres would test nothing.
        high = min(spec.high, max(10.0, 2 * float(spec.default)))  # type: ignore[arg-type]
        return spec.type(self._rng.uniform(spec.low, high))

    def _set_parameters(self, values: dict[str, Any]) -> list[SetParametersResult]:
        parameters = [Parameter(n, value=v).to_parameter_msg() for n, v in values.items()]
        answer = self._call(self._set, SetParameters.Request(parameters=parameters))
        return list(answer.results)

    def _call(self, client: Any, request: Any) -> Any:
        assert client.wait_for_service(PATIENCE_S), client.srv_name
        future = client.call_async(request)
        wait_until(future.done, f"an answer of {client.srv_name}", PATIENCE_S)
        return future.result()


class Stream:
    """Images out and answers in; ``header`` of both is checked by the image's number."""

    def __init__(self, probe: Probe, report: SoakReport) -> None:
        self._report = report
        self._sizes: dict[int, tuple[int, int]] = {}
        self.answered = 0
        for kind, topic in ((Image, "depth/image"), (CameraInfo, "depth/camera_info")):
            probe.node.create_subscription(kind, f"{probe.target}/{topic}", self._on_answer, 10)

    def _on_answer(self, message: Image | CameraInfo) -> None:
        number = message.header.stamp.sec
        size = (message.width, message.height)
        if self._sizes.setdefault(number, size) != size:
            self._report.wrong_headers += 1
        while len(self._sizes) > 1000:
            del self._sizes[min(self._sizes)]
        if not 0 < number <= self._report.sent or message.header != header(number, frame(number)):
            self._report.wrong_headers += 1
        if isinstance(message, Image):
            self.answered += 1
            self._report.answered += 1


def frame(number: int) -> str:
    return f"camera_{number % FRAMES}"


@contextmanager
def streaming(probe: Probe, report: SoakReport, rate_hz: float) -> Iterator[Stream]:
    """Images at that rate from a thread of their own; what is late is left out, as by a camera."""
    stream = Stream(probe, report)
    images = probe.publisher(Image, "/image", reliable=False)
    infos = probe.publisher(CameraInfo, "/camera_info", reliable=False)
    camera = Intrinsics.from_fov(WIDTH, HEIGHT, 70.0)
    pictures = [random_rgb(WIDTH, HEIGHT, seed) for seed in range(4)]
    stopped = threading.Event()

    def send() -> None:
        due = time.monotonic()
        while not stopped.wait(max(0.0, due - time.monotonic())):
            number = report.sent + 1
            report.sent = number
            stamp = header(number, frame(number))
            infos.publish(camera_info_message(None, camera, stamp))
            images.publish(image_message(pictures[number % len(pictures)], stamp, "rgb8"))
            due = max(due + 1 / rate_hz, time.monotonic())

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield stream
    finally:
        stopped.set()
        thread.join()


def table_of_soak(report: SoakReport) -> str:
    """What happened, a line each."""
    first, last = report.rests[0], report.rests[-1]
    lines = [
        f"{report.minutes:g} minutes, seed {report.seed}, {report.model}",
        f"images: {report.sent} sent, {report.answered} answered, "
        f"{report.wrong_headers} wrong headers",
        f"parameters: {report.parameters_taken} taken, {report.parameters_refused} refused",
        f"models changed {report.model_changes} times, {report.transitions} transitions",
        f"memory {first.resident_mb:.1f} to {last.resident_mb:.1f} MB "
        f"(medians of three: {report.growth_mb:+.1f})",
        f"threads {first.threads} to {last.threads}, files {first.files} to {last.files}",
    ]
    return "\n".join([*lines, *(f"BROKEN: {problem}" for problem in report.problems)])
