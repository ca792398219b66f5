"""The processes of a benchmark: nodes, cameras, and a listener in this one."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dense_perception.ros.domain import local_environment, reserved_domain
from dense_perception.ros.processes import ChildProcess, interrupt_on_signals
from dense_perception.ros.transport import transport_environment

if TYPE_CHECKING:
    from dense_perception.benchmarks.listener import Listener

WARM_UP_S = 5.0
"""How long a stream runs before it is measured, or half of it where it is short."""

_START_S = 120.0


def add_stream_arguments(
    parser: argparse.ArgumentParser, *, model: str, seconds: float, rate: float
) -> None:
    """The options that every benchmark has, with its own defaults."""
    parser.add_argument("--model", default=model, help=f"name or ONNX file (default: {model})")
    parser.add_argument(
        "--seconds", type=_positive, default=seconds, help=f"how long to stream ({seconds:g})"
    )
    parser.add_argument(
        "--rate", type=_positive, default=rate, help=f"pictures per second and camera ({rate:g})"
    )
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument(
        "--parameter",
        nargs="+",
        default=[],
        metavar="NAME:=VALUE",
        help="parameters of the node",
    )
    parser.add_argument(
        "--transport-profile",
        default=None,
        metavar="XML",
        help="Fast DDS profile; default the package's, '' for none",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def stream_name(args: argparse.Namespace) -> str:
    """The stream in words."""
    return f"{args.width}x{args.height} rgb8 at {args.rate:g} Hz"


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

    def source(self, args: argparse.Namespace, seconds: float, camera: str = "") -> ChildProcess:
        """A camera that publishes for ``seconds`` below ``camera``, once somebody subscribes."""
        options = [f"--{name}={getattr(args, name)}" for name in ("width", "height", "rate")]
        return self._start(
            "dense_perception.benchmarks.source",
            [*options, f"--seconds={seconds}", f"--camera={camera}"],
        )

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
    # The ROS 2 wheels restart the interpreter at this import: there must be no child by then.
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    from dense_perception.benchmarks.listener import Listener
    from dense_perception.core.machine import keep_freed_memory

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


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value
