"""Several cameras: one depth_node for all against a node for each.

A process for each camera, the node or nodes, and a listener to every depth image. In the middle
third of the stream the second camera is gone: its process is killed and started again.

A camera's frame counts as newest if it was the last to have come when the node became free to take
one: those that a later frame replaced before that do not. It counts as answered if the listener got
its depth image. Frames that were sent and never came to the node, or never answered because they
were replaced, show in the percentage of the frames sent.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import Image

from dense_perception.benchmarks.session import WARM_UP_S, Session, StreamOptions, open_session
from dense_perception.core.errors import BackendError, InputError
from dense_perception.ros.processes import ChildProcess, cpu_s, proportional_mb

_KILLED = 1  # which camera


@dataclass(frozen=True)
class CameraResult:
    """``sent`` is ``None`` for the camera that was killed. ``answers_hz``: before the second camera
    was killed, while it was gone, and after its return.
    """

    camera: str
    sent: int | None
    newest: int
    answered: int
    newest_percent: float
    sent_percent: float | None
    answers_hz: tuple[float, float, float]
    longest_gap_ms: float


@dataclass(frozen=True)
class LayoutResult:
    """Processor time and memory (PSS) are summed over the ``nodes``, of their processes alone."""

    nodes: int
    cameras: list[CameraResult]
    answers_hz: float
    cpu_percent: float
    cpu_ms_an_answer: float
    memory_mb: float
    last_error: str


@dataclass(frozen=True)
class CamerasResult:
    """``*_ratio``: of the separate nodes to the one; above 1 the one is better."""

    model: str
    stream: str
    seconds: float
    one_node: LayoutResult
    separate_nodes: LayoutResult
    cpu_ratio: float
    memory_ratio: float
    worst_newest_percent: float
    others_kept: float
    """The least rate of answers of a camera that stayed, while the killed one was gone or back,
    as a share of its rate before."""
    killed_came_back: bool


def measure_cameras(options: StreamOptions, cameras: int = 4) -> CamerasResult:
    """Stream to one node, then to one for each camera.

    :raises InputError: for less than 2 or more than 16 ``cameras``.
    :raises BackendError: if a process does not come up, or a node does not tell what it did.
    """
    if not 2 <= cameras <= 16:
        raise InputError(f"--cameras is {cameras}, expected 2 to 16")
    names = tuple(f"camera{index}" for index in range(cameras))
    one = _layout(options, names, separate=False)
    many = _layout(options, names, separate=True)
    stayed = [each for index, each in enumerate(one.cameras) if index != _KILLED]
    kept = [rate / max(each.answers_hz[0], 1e-9) for each in stayed for rate in each.answers_hz[1:]]
    return CamerasResult(
        model=options.model,
        stream=f"{cameras} cameras, {options} each",
        seconds=options.seconds,
        one_node=one,
        separate_nodes=many,
        cpu_ratio=many.cpu_ms_an_answer / one.cpu_ms_an_answer,
        memory_ratio=many.memory_mb / one.memory_mb,
        worst_newest_percent=min(each.newest_percent for each in one.cameras),
        others_kept=min(kept),
        killed_came_back=one.cameras[_KILLED].answers_hz[2] > 0,
    )


def _layout(options: StreamOptions, names: Sequence[str], *, separate: bool) -> LayoutResult:
    with open_session(options.transport_profile) as (session, listener):
        nodes = _nodes(options, session, names, separate=separate)
        topic = "/{0}/depth_node/depth/image" if separate else "/depth_node/{0}/depth/image"
        for name in names:
            listener.note(name, Image, topic.format(name))
        listener.wait_until_matched([topic.format(name) for name in names])
        label = f"{len(nodes)} node{'s' if separate else ''}"
        too_long_s = 2 * options.seconds + 60  # they are stopped, all at once
        sources = [session.source(options, too_long_s, name) for name in names]
        listener.wait_for_images(sources)
        listener.spin(min(WARM_UP_S, options.seconds / 2), f"{label}, warming up")
        begun_ns, cpu_begun_s = time.time_ns(), sum(cpu_s(node.pid) for node in nodes)
        bounds_ns = [begun_ns]
        for third in ("all", "one gone", "back"):
            if third == "one gone":
                sources[_KILLED].stop(signal.SIGKILL)
            listener.spin(options.seconds / 3, f"{label}, {third}")
            if third == "one gone":  # until it publishes again, however long its start takes
                sources[_KILLED] = session.source(options, too_long_s, names[_KILLED])
                listener.wait_for_images([sources[_KILLED]])
            bounds_ns.append(time.time_ns())
        cpu_used_s = sum(cpu_s(node.pid) for node in nodes) - cpu_begun_s
        memory_mb = sum(proportional_mb(node.pid) for node in nodes)
        for source in sources:
            source.interrupt()
        listener.spin(2.5)  # the last answers, and a report that counts them
        status = "/{0}/depth_node: perception" if separate else "/depth_node: {0}"
        reports = [listener.reports.get(status.format(name)) for name in names]
        cameras = []
        for name, report, source in zip(names, reports, sources, strict=True):
            if report is None:
                raise BackendError(f"no diagnostics of {name}, expected a message a second")
            newest = int(report["frames received"]) - int(report["frames dropped"])
            sent = None if source is sources[_KILLED] else _sent(source)
            cameras.append(_camera(name, sent, newest, listener.arrivals[name], bounds_ns))
    lengths_s = np.diff(bounds_ns) / 1e9
    seconds = float(lengths_s.sum())
    answers = sum(float(np.dot(each.answers_hz, lengths_s)) for each in cameras)
    return LayoutResult(
        nodes=len(nodes),
        cameras=cameras,
        answers_hz=answers / seconds,
        cpu_percent=100 * cpu_used_s / seconds,
        cpu_ms_an_answer=1e3 * cpu_used_s / max(answers, 1),
        memory_mb=memory_mb,
        last_error=next((r["last error"] for r in reports if r and r["last error"]), ""),
    )


def _nodes(
    options: StreamOptions, session: Session, names: Sequence[str], *, separate: bool
) -> list[ChildProcess]:
    parameters = [f"model:={options.model}", *options.parameters]
    if separate:
        return [session.node("depth_node", parameters, namespace=name) for name in names]
    return [session.node("depth_node", [*parameters, f"cameras:=[{', '.join(names)}]"])]


def _sent(source: ChildProcess) -> int | None:
    """What the camera says at its end."""
    source.wait(5)
    words = source.log().split()
    return int(words[words.index("published") + 1].rstrip(",")) if "published" in words else None


def _camera(
    name: str,
    sent: int | None,
    newest: int,
    arrivals: dict[int, tuple[int, int]],
    bounds_ns: Sequence[int],
) -> CameraResult:
    received_ns = np.sort([received for received, _ in arrivals.values()])
    counts, _ = np.histogram(received_ns, bounds_ns)
    rates = counts / (np.diff(bounds_ns) / 1e9)
    measured = received_ns[(received_ns >= bounds_ns[0]) & (received_ns < bounds_ns[-1])]
    return CameraResult(
        camera=name,
        sent=sent,
        newest=newest,
        answered=len(arrivals),
        newest_percent=100 * len(arrivals) / newest if newest else 0.0,
        sent_percent=100 * len(arrivals) / sent if sent else None,
        answers_hz=(float(rates[0]), float(rates[1]), float(rates[2])),
        longest_gap_ms=float(np.diff(measured).max() / 1e6) if len(measured) > 1 else float("nan"),
    )
