"""What every node's process does around its node: start, autostart, spin, end."""

from __future__ import annotations

import gc
import logging
import os
import sys
import textwrap
from collections.abc import Callable
from typing import TypeVar

import cv2
import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.utilities import remove_ros_args

from dense_perception.core.errors import InputError
from dense_perception.core.machine import keep_freed_memory
from dense_perception.core.printable import printable
from dense_perception.ros.convert import cv_bridge_doubt
from dense_perception.ros.parameter_table import table
from dense_perception.ros.params import CloudParameters, PerceptionParameters
from dense_perception.ros.perception_node import PerceptionNode
from dense_perception.ros.shared_memory import remove_dead_segments

Settings = TypeVar("Settings", bound=CloudParameters)

_SWITCH_INTERVAL_S = 0.0005


def run_node(
    name: str,
    parameters: type[Settings],
    create: Callable[[], PerceptionNode[Settings]],
    arguments: list[str] | None = None,
) -> int:
    """Create a node, bring it up if ``autostart`` says so, and spin it until it is interrupted.

    A model that does not load leaves the node unconfigured and alive. Returns the exit code: 0
    after SIGINT or SIGTERM, 1 if an argument is not understood or a parameter has a wrong value.
    If a model is still being loaded then, the process ends here and at once: no runtime lets a
    build be broken off, and the interpreter's own end would pull its libraries from under it.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & set(arguments):
        _show(usage(name, parameters))
        return 0
    keep_freed_memory()
    # On single frames OpenCV's threads save nothing, and waiting for work they use processor time
    # that the model needs: 1 ms a frame and more on a busy machine.
    cv2.setNumThreads(1)
    # The executor and the worker hand frames to each other; 5 ms would be a seventh of a frame.
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    # Full of dead segments, images would go over UDP and half of them would be lost.
    remove_dead_segments()
    try:
        _initialise(name, arguments)
    except InputError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    node: PerceptionNode[Settings] | None = None
    ended = True
    executor: SingleThreadedExecutor | None = None
    try:
        executor = SingleThreadedExecutor()
        try:
            node = create()
        except (InputError, ParameterException) as error:
            rclpy.logging.get_logger(name).fatal(str(error))
            return 1
        executor.add_node(node)
        logging.getLogger("dense_perception").addHandler(_ConsoleRelay(node.get_logger()))
        if doubt := cv_bridge_doubt():
            node.get_logger().warning(doubt)
        # What is there now stays. Else each collection would walk through all of it, 20 ms in
        # which no thread answers, when a model goes.
        gc.collect()
        gc.freeze()
        if node.settings.autostart:
            node.start()
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        if rclpy.ok():
            raise
        # A signal during start ends the context under the hands of whatever was being done.
    finally:
        if executor is not None:
            executor.shutdown(timeout_sec=1.0)
        if node is not None:
            ended = node.close()
            node.destroy_node()
        rclpy.try_shutdown()
    if not ended:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


class _ConsoleRelay(logging.Handler):
    """What the package below logs goes to the node's console, and so to /rosout."""

    def __init__(self, logger: RcutilsLogger) -> None:
        super().__init__(logging.WARNING)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        if rclpy.ok():
            self._logger.warning(printable(record.getMessage()))


def _initialise(name: str, arguments: list[str]) -> None:
    """
    :raises InputError: naming the argument that is not understood.
    """
    cure = f"expected --ros-args -p NAME:=VALUE and the like: `{name} --help` lists the parameters"
    try:
        rclpy.init(args=arguments)
        foreign = remove_ros_args([name, *arguments])[1:]
    except RuntimeError as error:  # of rclpy's compiled part, whose types have no stable names
        reason = str(error).partition(", at /")[0]
        raise InputError(f"the arguments are not understood ({reason}), {cure}") from error
    if foreign:
        rclpy.try_shutdown()
        raise InputError(f"the arguments are {' '.join(foreign)!r}, {cure}")


def _show(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # The reader (head, less) has gone; Python must not try to flush to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def usage(name: str, parameters: type[PerceptionParameters]) -> str:
    """What ``--help`` prints: how to set parameters, and which there are."""
    lines = [
        f"usage: {name} --ros-args [-p NAME:=VALUE]... [-r FROM:=TO]... [--params-file FILE]",
        "",
        "examples:",
        f"  {name} --ros-args -r image:=/camera/image_raw -r camera_info:=/camera/camera_info",
        f"  {name} --ros-args -p backend:=onnxruntime -p threads:=2 --log-level debug",
        "",
        "parameters:",
    ]
    for spec in table(parameters):
        allowed = f" ({spec.constraint})" if spec.constraint else ""
        lines.append(f"  {spec.name}: {spec.type.__name__} = {spec.default}{allowed}")
        text = f"{spec.description} Changes {spec.changes.value}."
        lines += textwrap.wrap(text, 92, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)
