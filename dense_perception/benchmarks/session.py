"""What the benchmarks of nodes share: the stream, the processes, and the listening side."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription
from tqdm import tqdm

from dense_perception.benchmarks.source import SourceOptions
from dense_perception.core.errors import BackendError
from dense_perception.core.json_text import json_text
from dense_perception.core.machine import keep_freed_memory
from dense_perception.imaging.messages import stamp_ns
from dense_perception.ros.processes import ChildProcess, interrupt_on_signals
from dense_perception.ros.transport import local_environment, reserved_domain, transport_environment

WARM_UP_S = 5.0
"""How long a stream runs before it is measured, or half of it where it is short."""

_START_S = 120.0
SENSOR_DATA = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


@dataclass(frozen=True)
class StreamOptions:
    """What is streamed to which model.

    ``model`` is a name or an ONNX file; ``rate`` is images per second and camera; ``parameters``
    of the node are texts ``NAME:=VALUE``; ``transport_profile`` is a Fast DDS file, ``None`` the
    package's, an empty text none.
    """

    model: str
    seconds: float
    rate: float
    width: int = 640
    height: int = 480
    parameters: tuple[str, ...] = ()
    transport_profile: str | None = None

    def __str__(self) -> str:
        return f"{self.width}x{self.height} rgb8 at {self.rate:g} Hz"


@dataclass
class Session:
    """Starts processes; :func:`open_session` ends them."""

    folder: Path
    environment: dict[str, str]
    stack: ExitStack = field(default_factory=ExitStack)
    _started: int = 0

    def node(
        self, executable: str, parameters: Sequence[str], *, namespace: str = ""
    ) -> ChildProcess:
        """A node of this package, configured and active.

        :raises BackendError: if it does not come up.
        """
        arguments = ["--ros-args", *(["-r", f"__ns:=/{namespace}"] if namespace else [])]
        for each in parameters:
            arguments += ["-p", each]
        process = self._start(f"dense_perception.ros.{executable}", arguments)
        process.wait_for_text("waiting for images", _START_S, failure="cannot configure")
        return process

    def source(self, options: StreamOptions, seconds: float, camera: str = "") -> ChildProcess:
        """A camera that publishes for ``seconds`` below ``camera``, once somebody subscribes."""
        wanted = SourceOptions(options.width, options.height, options.rate, seconds, camera)
        return self._start("dense_perception.benchmarks.source", [json_text(wanted)])

    def _start(self, module: str, arguments: Sequence[str]) -> ChildProcess:
        self._started += 1
        return self.stack.enter_context(
            ChildProcess(
                module,
                arguments,
                log=self.folder / f"{self._started}.log",
                environment=self.environment,
            )
        )


@contextmanager
def open_session(transport_profile: str | None) -> Iterator[tuple[Session, Listener]]:
    """A session and this process's listener, with rclpy running; ends all of it."""
    interrupt_on_signals()
    keep_freed_memory()
    with reserved_domain() as domain, tempfile.TemporaryDirectory() as folder:
        environment = {**local_environment(domain), **transport_environment(transport_profile)}
        os.environ.update(environment)
        session = Session(Path(folder), environment)
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        listener = Listener(rclpy.create_node("listener", start_parameter_services=False))
        try:
            with session.stack:
                yield session, listener
        finally:
            listener.node.destroy_node()
            rclpy.try_shutdown()


class Listener:
    """Notes when each answer came, by its stamp; also keeps the newest diagnostics.

    ``arrivals``: by name and stamp, when the middleware received the answer and when it reached
    the callback as a Python message (which costs a cloud of 5 MB some milliseconds); nanoseconds.
    ``reports``: the newest values on /diagnostics by the name of the status.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self.arrivals: dict[str, dict[int, tuple[int, int]]] = {}
        self.reports: dict[str, dict[str, str]] = {}
        self.model_ms: list[float] = []
        """The model's own time as each status on /diagnostics gives it."""
        self.subscribe(DiagnosticArray, "/diagnostics", self._on_diagnostics)

    def subscribe(
        self, kind: type, topic: str, callback: Any, profile: QoSProfile = SENSOR_DATA
    ) -> Subscription[Any]:
        return self.node.create_subscription(kind, topic, callback, profile)

    def note(self, name: str, kind: type, topic: str) -> Subscription[Any]:
        """Subscribe, and note the arrivals under ``name``."""
        arrivals = self.arrivals.setdefault(name, {})

        def with_info(message: Any, info: Any) -> None:
            called_ns = time.time_ns()
            times_ns = (info["received_timestamp"] or called_ns, called_ns)
            arrivals[stamp_ns(message.header)] = times_ns

        def without_info(message: Any) -> None:  # Humble's rclpy tells no more
            with_info(message, {"received_timestamp": 0})

        has_info = hasattr(Subscription, "CallbackType")
        return self.subscribe(kind, topic, with_info if has_info else without_info)

    def wait_until_matched(self, topics: Sequence[str]) -> None:
        """
        :raises BackendError: if a topic has no publisher after 15 s.
        """
        self.wait_for(
            lambda: all(self.node.count_publishers(topic) for topic in topics),
            f"publishers of {', '.join(topics)}",
        )
        self.spin(1.0)

    def wait_for(self, condition: Callable[[], object], what: str, timeout_s: float = 15) -> None:
        """Spin until ``condition`` holds.

        :raises BackendError: naming ``what`` was waited for, when the time is up.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise BackendError(f"waited {timeout_s:g} s for {what}")
            self.spin(0.05)

    def wait_for_images(self, sources: Sequence[ChildProcess]) -> None:
        """Spin until these cameras publish: what is not taken meanwhile would be lost.

        :raises BackendError: if one of them does not within 30 s.
        """
        self.wait_for(
            lambda: all("publishing" in source.log() for source in sources),
            "the cameras to publish, which wait until somebody subscribes",
            30,
        )

    def spin(self, seconds: float, label: str = "") -> None:
        """Listen for so long, with a progress bar on stderr where it has a ``label``."""
        deadline = time.monotonic() + seconds
        bar = tqdm(
            total=round(seconds, 1),
            desc=label,
            unit="s",
            disable=None if label else True,
            file=sys.stderr,
            leave=False,
        )
        with bar:
            while (rest := deadline - time.monotonic()) > 0:
                self._executor.spin_once(timeout_sec=min(rest, 0.5))
                bar.update(round(seconds - max(0.0, deadline - time.monotonic()) - bar.n, 3))

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            values = {value.key: value.value for value in status.values}
            self.reports[status.name] = values
            if values.get("latency infer median (ms)"):
                self.model_ms.append(float(values["latency infer median (ms)"]))


def stages_ms(report: dict[str, str]) -> dict[str, float]:
    """The median of each stage in milliseconds, from the values of a status."""
    ending = " median (ms)"
    return {
        key.removeprefix("latency ").removesuffix(ending): float(value)
        for key, value in report.items()
        if key.startswith("latency ") and key.endswith(ending)
    }
